//! What is particular to one kind of program: its greeting, its words, what its end means.
//!
//! A new adapter is one file with an implementation and one line in [`named`]; its argv, which is
//! settled before a process starts, is the Python half's.

use super::claude::{Claude, Envelope};
use super::raw::Raw;
use super::relay::Relay;
use super::session::Action;
use serde_json::Value;
use std::fmt::Debug;

/// How a session speaks with its program.
pub trait Adapter: Debug + Sync {
    /// What is said first, and answered before the agent is ready; `None`: ready once it runs.
    fn greeting(&self, told: &Told) -> Option<Vec<u8>>;

    /// A prompt as it is written; `uuid` names it.
    fn prompt(&self, prompt: &str, uuid: &str) -> Vec<u8>;

    /// What stops the work in flight; `number` tells one interrupt from another.
    fn interrupt(&self, number: u64) -> Action;

    /// The frame that a line is; `None`: it is plain output.
    fn frame<'a>(&self, line: &'a [u8]) -> Option<Envelope<'a>>;

    /// True when the exit is the end of the work: there are no turns, the input ends after the
    /// prompt, every line counts as a sign of life and an output that ends early means nothing.
    fn runs_to_exit(&self) -> bool;

    /// True when somebody else speaks with the program: its frames are read for what they cost
    /// and mean, and none of them is answered.
    fn is_relayed(&self) -> bool {
        false
    }
}

/// What a CLI is told before its first prompt.
#[derive(Debug, Default)]
pub struct Told {
    /// Its subagents.
    pub agents: Option<Value>,
    /// The host's hooks: by event, who is to be called for what.
    pub hooks: Option<Value>,
}

/// The adapter of the configuration's name.
pub fn named(adapter: vespera_config::Adapter) -> &'static dyn Adapter {
    match adapter {
        vespera_config::Adapter::Claude => &Claude,
        vespera_config::Adapter::Raw => &Raw,
        vespera_config::Adapter::Relay => &Relay,
    }
}
