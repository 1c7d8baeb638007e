//! What an agent is to do, as whoever starts it says.

use super::adapter::{Adapter, Told};
use super::claude::Claude;

/// What an agent is to do.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is asked for by its own setting"
)]
#[derive(Debug)]
pub struct Plan {
    pub adapter: &'static dyn Adapter,
    /// A run's prompt and its name; without one the agent is a session.
    pub prompt: Option<(String, String)>,
    /// What the CLI hears in `initialize`.
    pub told: Told,
    /// Whether the host answers permission asks.
    pub answers_asks: bool,
    /// Whether the host has functions that the CLI calls.
    pub answers_calls: bool,
    /// Whether the host is told of each message of the model, to count what it costs.
    pub counts_usage: bool,
    /// Whether the session has been in a process before, which has cost something.
    pub goes_on: bool,
    /// Nobody owns it yet: `timeouts.total` does not run.
    pub spare: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            adapter: &Claude,
            prompt: None,
            told: Told::default(),
            answers_asks: false,
            answers_calls: false,
            counts_usage: false,
            goes_on: false,
            spare: false,
        }
    }
}
