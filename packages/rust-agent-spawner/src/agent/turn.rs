//! What is remembered of a prompt until its `result` comes.

use super::shared::Refused;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// A prompt on its way to a `result`.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Names the prompt.
    pub(super) uuid: String,
    /// Its asks for tools that the host has not decided: a person's time is not the agent's.
    pub(super) asking: HashSet<String>,
    pub(super) limit: Option<Duration>,
    /// Tools in flight, id and name.
    pub(super) tools: BTreeMap<String, String>,
    /// Why we stopped it, once we did.
    pub(super) stopped: Option<Stop>,
}

/// Why a turn was stopped that nobody had interrupted.
#[derive(Clone, Debug)]
pub(super) enum Stop {
    /// A limit of time passed: which one, after how many seconds.
    TimedOut { which: &'static str, seconds: f64 },
    /// The service answers nothing else.
    Refused(Refused),
}
