//! The Rust engine of `vespera_agent_spawner`.
//!
//! An agent is a process tree that is owned from the first fork to the last reap, and whose bytes
//! become events without costing the host its interpreter. Dependencies point one way: bindings
//! (`python`) → `handle` → `reactor` → `agent` → the guardian's protocol. Nothing but `python`
//! knows Python.
#![cfg(target_os = "linux")]

pub mod agent;
pub mod bridge;
pub mod cgroup;
pub mod config;
pub mod descriptor;
pub mod diagnostics;
pub mod error;
pub mod handle;
pub mod json;
pub mod kernel_files;
pub mod metrics;
pub mod oom;
pub mod reactor;
pub mod rights;
pub mod sampler;
pub mod sweep;
pub mod usage;

#[cfg(feature = "python")]
mod python;
