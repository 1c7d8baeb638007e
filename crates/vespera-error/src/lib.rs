//! Responsible for the one error type that every Vespera crate returns: a stable code, a message
//! for a person, a context for programs, and, for the system's failures, the io error itself.
//!
//! It knows nothing of agents or files beyond the list of codes. With the feature `python` it also
//! turns an [`Error`] into the exception class that the calling package wrote in Python; without
//! it no Python is linked.
//!
//! ```
//! use vespera_error::{Error, ErrorCode};
//!
//! let error = Error::new(ErrorCode::AgentBusy, "agent 'docs' is in a turn; wait or interrupt it")
//!     .with("agent_id", "docs");
//! assert_eq!(error.code().as_str(), "agent_busy");
//! assert_eq!(error.context()["agent_id"], "docs");
//! ```

mod code;
mod error;
mod io;
#[cfg(feature = "python")]
pub mod python;

pub use code::ErrorCode;
pub use error::{Error, shown};
pub use io::IoFailure;

/// What every fallible function of the Vespera crates returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
