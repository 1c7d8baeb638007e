//! One agent: the state machine of its session and what callers may know of it.
//!
//! [`Session`] lives on the reactor's thread and makes every decision; [`Shared`] is what other
//! threads see of it. Neither starts a process (`process`) nor knows the CLI's words (`claude`).

pub mod claude;
pub mod claude_argv;
pub mod process;
mod session;
mod shared;
pub mod stream;

pub use session::{Action, Session, Timeouts};
pub use shared::{Ending, Failure, Shared, State, TurnEnd, View};
