//! The agent's configuration as the engine uses it: read from JSON, checked by `vespera-config`.

mod schema;

pub use schema::schema;
pub use vespera_config::AgentConfig;

use crate::agent::queue::Overflow;
use crate::agent::{Idle, Timeouts};
use crate::sampler::Ceilings;
use std::time::Duration;
use vespera_config::IdleState;
use vespera_error::{Error, Result};
use vespera_guardian::{INHERIT, Limits};

/// Reads and checks a configuration.
///
/// # Errors
/// `config` with field, value and remedy.
pub fn read(json: &str) -> Result<AgentConfig> {
    vespera_config::validate_agent(&vespera_config::parse_json(json)?)
}

/// Checks a configuration and returns it with its defaults filled in, as JSON.
///
/// # Errors
/// As [`read`].
pub fn normalise(json: &str) -> Result<String> {
    serde_json::to_string(&read(json)?).map_err(|error| Error::internal(error.to_string()))
}

/// The limits that the kernel enforces from birth.
pub fn kernel_limits(config: &AgentConfig) -> Limits {
    let Some(limits) = &config.limits else {
        return Limits::default();
    };
    let nice = limits.nice.map_or(INHERIT, |nice| {
        u64::try_from(i64::from(nice).clamp(-20, 19) + 20).unwrap_or(39)
    });
    Limits {
        open_files: limits.open_files.map_or(INHERIT, u64::from),
        cpu_seconds: limits.cpu_seconds.map_or(INHERIT, whole_seconds),
        file_size: limits.file_size.unwrap_or(INHERIT),
        nice,
        memory: limits.memory.unwrap_or(INHERIT),
        processes: limits.processes.map_or(INHERIT, u64::from),
    }
}

/// The limits that are kept by looking at the tree.
pub fn ceilings(config: &AgentConfig) -> Ceilings {
    let limits = config.limits.clone().unwrap_or_default();
    Ceilings {
        memory: limits.memory,
        processes: limits.processes.map(u64::from),
        cpu: limits.cpu_seconds.map(Duration::from_secs_f64),
    }
}

/// The limits on time.
pub fn timeouts(config: &AgentConfig) -> Timeouts {
    let own = config.timeouts.clone().unwrap_or_default();
    let state = |wanted| {
        let seconds = match &own.idle {
            None => None,
            // The time of whoever decides about a tool counts only where it is asked for.
            Some(vespera_config::Idle::All(_)) if wanted == IdleState::Permission => None,
            Some(vespera_config::Idle::All(seconds)) => Some(*seconds),
            Some(vespera_config::Idle::PerState(states)) => states.get(&wanted).copied(),
        };
        seconds.map(Duration::from_secs_f64)
    };
    Timeouts {
        startup: Duration::from_secs_f64(own.startup),
        turn: own.turn.map(Duration::from_secs_f64),
        idle: Idle {
            model: state(IdleState::Model),
            tool: state(IdleState::Tool),
            mcp: state(IdleState::Mcp),
            subagent: state(IdleState::Subagent),
            permission: state(IdleState::Permission),
        },
        total: own.total.map(Duration::from_secs_f64),
        after_result: Duration::from_secs_f64(own.after_result),
        write: Duration::from_secs_f64(own.write),
    }
}

/// What happens to undelivered events.
pub const fn overflow(config: &AgentConfig) -> Overflow {
    match config.overflow {
        vespera_config::Overflow::Spill => Overflow::Spill,
        vespera_config::Overflow::DropOldest => Overflow::DropOldest,
        vespera_config::Overflow::Block => Overflow::Block,
    }
}

/// Bytes of undelivered events on disk.
pub fn output_limit(config: &AgentConfig) -> u64 {
    config.limits.clone().unwrap_or_default().output
}

/// RLIMIT_CPU counts whole seconds; a part of one is rounded up, so that no limit becomes zero.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked by validation"
)]
fn whole_seconds(seconds: f64) -> u64 {
    seconds.ceil().max(1.0) as u64
}
