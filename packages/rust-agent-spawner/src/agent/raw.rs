//! Any program: the prompt is its input, each line of its output an event, its exit the end.

use super::adapter::{Adapter, Told};
use super::claude::Envelope;
use super::session::Action;
use vespera_guardian::Order;

const SIGINT: u8 = 2;

/// The adapter `raw`.
#[derive(Debug)]
pub struct Raw;

impl Adapter for Raw {
    fn greeting(&self, _told: &Told) -> Option<Vec<u8>> {
        None
    }

    fn prompt(&self, prompt: &str, _uuid: &str) -> Vec<u8> {
        prompt.as_bytes().to_vec()
    }

    fn interrupt(&self, _number: u64) -> Action {
        Action::Order(Order::Signal(SIGINT))
    }

    /// Even a line that looks like a frame is the program's own business.
    fn frame<'a>(&self, _line: &'a [u8]) -> Option<Envelope<'a>> {
        None
    }

    fn runs_to_exit(&self) -> bool {
        true
    }
}
