//! A CLI that another library of the host speaks with: its lines pass through both ways.
//!
//! The engine owns the process tree, the limits and the accounts; what is said is read and never
//! answered, so that the protocol has one speaker.

use super::adapter::{Adapter, Told};
use super::claude::{self, Envelope};
use super::session::Action;
use vespera_guardian::Order;

const SIGINT: u8 = 2;

/// The adapter `relay`.
#[derive(Debug)]
pub struct Relay;

impl Adapter for Relay {
    fn greeting(&self, _told: &Told) -> Option<Vec<u8>> {
        None
    }

    fn prompt(&self, prompt: &str, _uuid: &str) -> Vec<u8> {
        prompt.as_bytes().to_vec()
    }

    /// No turn of a relayed CLI is ours, so that nothing asks for this.
    fn interrupt(&self, _number: u64) -> Action {
        Action::Order(Order::Signal(SIGINT))
    }

    fn frame<'a>(&self, line: &'a [u8]) -> Option<Envelope<'a>> {
        claude::envelope(line)
    }

    fn runs_to_exit(&self) -> bool {
        false
    }

    fn is_relayed(&self) -> bool {
        true
    }
}
