//! The Rust engine of `vespera_agent_spawner`.
//!
//! An agent is a process tree that is owned from the first fork to the last reap, and whose bytes
//! become events without costing the host its interpreter. Dependencies point one way: bindings
//! (`python`) → `handle` → `reactor` → `agent` → the guardian's protocol. Nothing but `python`
//! knows Python.

pub mod json;

#[cfg(target_os = "linux")]
pub mod agent;
#[cfg(target_os = "linux")]
pub mod bridge;
#[cfg(target_os = "linux")]
pub mod cgroup;
#[cfg(target_os = "linux")]
pub mod config;
#[cfg(target_os = "linux")]
pub mod descriptor;
#[cfg(target_os = "linux")]
pub mod diagnostics;
#[cfg(target_os = "linux")]
pub mod error;
#[cfg(target_os = "linux")]
pub mod handle;
#[cfg(target_os = "linux")]
pub mod kernel_files;
#[cfg(target_os = "linux")]
pub mod launch;
#[cfg(target_os = "linux")]
pub mod metrics;
#[cfg(target_os = "linux")]
pub mod oom;
#[cfg(target_os = "linux")]
mod own_pid;
#[cfg(target_os = "linux")]
mod process_stat;
#[cfg(target_os = "linux")]
mod process_table;
#[cfg(target_os = "linux")]
pub mod reactor;
#[cfg(target_os = "linux")]
pub mod rights;
#[cfg(target_os = "linux")]
pub mod run_queue;
#[cfg(target_os = "linux")]
pub mod sampler;
#[cfg(target_os = "linux")]
pub mod standby;
#[cfg(target_os = "linux")]
pub mod sweep;
#[cfg(target_os = "linux")]
pub mod usage;

#[cfg(not(target_os = "linux"))]
pub mod elsewhere;

#[cfg(all(target_os = "linux", feature = "python"))]
mod python;
