//! One agent: the state machine of its session and what callers may know of it.
//!
//! [`Session`] lives on the reactor's thread and makes every decision; [`Shared`] is what other
//! threads see of it, and `queue` holds the events that nobody has taken yet. Neither starts a
//! process (`process`) nor knows a program's words (`adapter`, `claude`, `raw`).

pub mod adapter;
pub mod blocks;
pub mod claude;
pub mod claude_argv;
mod clocks;
mod conversation;
pub mod details;
mod image;
mod ladder;
pub(crate) mod mourning;
mod plan;
pub mod process;
pub mod queue;
pub mod raw;
pub mod refusal;
pub mod relay;
mod session;
mod shared;
mod silence;
pub mod stream;
mod swept;
pub mod transcript;
mod turn;

pub use image::program_size;
pub use plan::Plan;
pub use session::{Action, Session, Timeouts};
pub use shared::{Cause, Ending, Failure, NOTICE, Refused, Shared, State, TurnEnd, View};
pub use silence::Idle;

use std::time::Instant;
use stream::Line;
use transcript::{Transcript, Voice};

/// A line of the agent: to its transcript, then to its session.
pub fn deliver(
    session: &mut Session,
    transcript: Option<&mut Transcript>,
    line: Line<'_>,
    now: Instant,
    out: &mut Vec<Action>,
) {
    match line {
        Line::Whole(bytes) => {
            if let Some(transcript) = transcript {
                transcript.note(Voice::Agent, &bytes);
            }
            session.line(&bytes, now, out);
        }
        Line::Oversize { length, head } => {
            if let Some(transcript) = transcript {
                transcript.note_oversize(length, head);
            }
            session.oversize(head, length, out);
        }
    }
}
