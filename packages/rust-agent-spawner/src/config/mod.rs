//! The agent's configuration as the engine uses it: read from JSON, checked by `vespera-config`.

mod schema;

pub use schema::schema;
pub use vespera_config::AgentConfig;

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
    }
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
