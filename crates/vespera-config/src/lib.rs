//! Responsible for what a configuration may say: units (durations, sizes), validation with path,
//! value and remedy, and the JSON Schema of it.
//!
//! It reads no file and no environment variable: layering belongs to the server. A value that
//! passes is normalised (durations are float seconds, sizes whole bytes, defaults filled in).
//! The Python half of the spawner repeats these rules and passes the same test vectors.
//!
//! ```
//! use serde_json::json;
//! use vespera_config::validate_agent;
//!
//! let config = validate_agent(&json!({"prompt": "hello", "timeouts": {"turn": "1h30m"}}))?;
//! assert_eq!(config.timeouts.unwrap().turn, Some(5400.0));
//!
//! let error = validate_agent(&json!({"timeouts": {"turm": 5}})).unwrap_err();
//! assert_eq!(error.context()["field"], "timeouts.turm");
//! assert_eq!(error.context()["remedy"], "did you mean \"turn\"?");
//! # Ok::<(), vespera_error::Error>(())
//! ```

mod agent;
mod choices;
mod fields;
mod nearest;
mod policies;
mod rules;
mod schema;
mod supervisor;
mod units;
mod workspace;

pub use agent::{AgentConfig, PathOrObject};
pub use choices::{
    Adapter, Backend, Effort, IdleState, OnAuthFailure, Overflow, PermissionMode, RetryOn,
};
pub use policies::{Budget, Idle, Limits, RetryPolicy, Timeouts};
pub use schema::{agent_schema, config_schema, config_schema_text, supervisor_schema};
pub use supervisor::SupervisorConfig;
pub use units::{MAX_SECONDS, MAX_SIZE, format_size, parse_duration, parse_size};
pub use workspace::WorkspaceOptions;

use serde_json::Value;
use vespera_error::{Error, Result};

/// Checks the configuration of one agent and fills in its defaults.
pub fn validate_agent(value: &Value) -> Result<AgentConfig> {
    AgentConfig::read("", value)
}

/// Checks the configuration of a supervisor and fills in its defaults.
pub fn validate_supervisor(value: &Value) -> Result<SupervisorConfig> {
    SupervisorConfig::read("", value)
}

/// Checks the options of a workspace.
pub fn validate_workspace(value: &Value) -> Result<WorkspaceOptions> {
    WorkspaceOptions::read("", value)
}

/// Reads JSON text; what is not JSON (NaN, a lone surrogate, nesting without end) is a `config`
/// error too, with an empty field.
pub fn parse_json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|reason| {
        Error::config_with(
            format!(
                "the configuration is not JSON: {reason}; {}",
                rules::NOT_JSON
            ),
            "",
            Value::Null,
            rules::NOT_JSON,
        )
    })
}
