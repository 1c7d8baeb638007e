//! What one agent is started with, settled before the engine sees it.

use crate::agent::Timeouts;
use crate::agent::process::Moment;
use crate::agent::queue::Overflow;
use crate::sampler::Ceilings;
use crate::standby::Standby;
use std::sync::Arc;
use vespera_guardian::{Environment, Limits};

/// What to start.
#[derive(Debug)]
pub struct Launch {
    pub agent_id: String,
    pub session_id: String,
    pub argv: Vec<Vec<u8>>,
    pub environment: Arc<Environment>,
    pub directory: Vec<u8>,
    pub timeouts: Timeouts,
    pub limits: Limits,
    pub host_death_grace_ms: u32,
    pub moment: Moment,
    /// A delegated cgroup2 directory in which the agent gets its own; without one it gets none.
    pub cgroup: Option<Vec<u8>>,
    /// What its tree may use at most, judged by looking at it.
    pub ceilings: Ceilings,
    pub overflow: Overflow,
    /// Bytes of undelivered events on disk.
    pub output_limit: u64,
    /// The file to which everything that is said is appended.
    pub transcript: Option<Vec<u8>>,
    /// Where its fleet's runs stand that follow each other without the event loop.
    pub standby: Option<Arc<Standby>>,
    /// It stands there itself, and starts when another run has ended.
    pub stands_by: bool,
}
