//! Responsible for `Error`: how it is built, what it carries and how it reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{ErrorCode, IoFailure};

/// Longest part of a string value that a message repeats, in characters.
const SHOWN_CHARACTERS: usize = 60;

/// A failure: `code` for programs, the message for a person, `context` for both.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    code: ErrorCode,
    message: String,
    context: BTreeMap<String, Value>,
    /// The paths of the context that are not UTF-8, by the names they have there.
    paths: Vec<(String, PathBuf)>,
    // Boxed so that a `Result` with this error stays small enough to return by value.
    #[source]
    io: Option<Box<IoFailure>>,
}

impl Error {
    /// An error with a message and no context yet.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            context: BTreeMap::new(),
            paths: Vec::new(),
            io: None,
        }
    }

    /// A configuration value that cannot work. `field` is a path such as `timeouts.turn`,
    /// `remedy` says what to write instead.
    pub fn config(field: &str, value: Value, remedy: impl Into<String>) -> Self {
        let remedy = remedy.into();
        let message = format!("{field}: got {}; {remedy}", shown(&value));
        Self::config_with(message, field, value, remedy)
    }

    /// Like [`Error::config`], with a message of its own: for values that must not be repeated.
    pub fn config_with(
        message: impl Into<String>,
        field: &str,
        value: Value,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(ErrorCode::Config, message)
            .with("field", field)
            .with("value", value)
            .with("remedy", remedy.into())
    }

    /// The agent did not start. `stage` says where: `find`, `chdir`, `exec`, `initialize`, ….
    /// `errno` is the system's number, if the system said no.
    pub fn spawn(
        message: impl Into<String>,
        errno: Option<i32>,
        program: &str,
        stage: &str,
        stderr_tail: &str,
    ) -> Self {
        Self::new(ErrorCode::SpawnFailed, message)
            .with("errno", errno)
            .with("program", program)
            .with("stage", stage)
            .with("stderr_tail", stderr_tail)
    }

    /// The limit `which` (`startup`, `turn`, `write`, …) passed after so many seconds.
    pub fn timeout(message: impl Into<String>, which: &str, after_seconds: f64) -> Self {
        Self::new(ErrorCode::Timeout, message)
            .with("which", which)
            .with("after", after_seconds)
    }

    /// No agent with this id was ever started here.
    pub fn agent_not_found(agent_id: &str) -> Self {
        let message =
            format!("no agent '{agent_id}' is known here; list_agents() shows those that are");
        Self::new(ErrorCode::AgentNotFound, message).with("agent_id", agent_id)
    }

    /// An agent with this id is alive.
    pub fn agent_exists(agent_id: &str) -> Self {
        let message =
            format!("an agent '{agent_id}' is alive; shut it down first or choose another id");
        Self::new(ErrorCode::AgentExists, message).with("agent_id", agent_id)
    }

    /// The agent is in a turn.
    pub fn agent_busy(agent_id: &str) -> Self {
        let message =
            format!("agent '{agent_id}' is in a turn; wait for its answer or interrupt it");
        Self::new(ErrorCode::AgentBusy, message).with("agent_id", agent_id)
    }

    /// A fault of ours, such as a caught panic.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// The system refused `operation` (a verb such as `open`, `rename`) on `path`.
    pub fn io(operation: &'static str, path: Option<&Path>, source: std::io::Error) -> Self {
        let failure = IoFailure::new(operation, path, source);
        let mut error = Self::new(ErrorCode::Io, failure.to_string())
            .with("errno", failure.errno())
            .with("operation", operation);
        if let Some(path) = path {
            error = error.with("filename", path.to_string_lossy());
        }
        error.io = Some(Box::new(failure));
        error
    }

    /// Keeps the system's error as the cause of this one.
    #[must_use]
    pub fn caused_by(mut self, failure: IoFailure) -> Self {
        self.io = Some(Box::new(failure));
        self
    }

    /// Adds a fact for programs; a later one with the same name replaces it.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.context.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a path as a fact. Text cannot hold one that is not UTF-8: it is replaced where it is not,
    /// and kept as it was beside it.
    #[must_use]
    pub fn with_path(mut self, name: &str, path: &Path) -> Self {
        if path.to_str().is_none() {
            self.paths.push((name.to_owned(), path.to_path_buf()));
        }
        self.with(name, path.to_string_lossy())
    }

    /// What went wrong, as a program sees it.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What went wrong, as a person reads it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The facts: agent id, field, errno, ….
    pub fn context(&self) -> &BTreeMap<String, Value> {
        &self.context
    }

    /// The paths among the facts that are not UTF-8, exactly as they are.
    pub fn paths(&self) -> impl Iterator<Item = (&str, &Path)> {
        let pairs = self.paths.iter();
        pairs.map(|(name, path)| (name.as_str(), path.as_path()))
    }

    /// The system's failure behind this error, if there is one.
    pub fn io_failure(&self) -> Option<&IoFailure> {
        self.io.as_deref()
    }
}

/// A value as a message may repeat it: strings quoted and cut, containers only by their kind
/// (they may be large, or hold secrets).
pub fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => match text.char_indices().nth(SHOWN_CHARACTERS) {
            Some((cut, _)) => format!("{}…", Value::from(&text[..cut])),
            None => value.to_string(),
        },
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_config_error_names_field_value_and_remedy() {
        let error = Error::config("timeouts.turn", json!("5x"), "give seconds");
        assert_eq!(
            error.to_string(),
            r#"timeouts.turn: got "5x"; give seconds"#
        );
        assert_eq!(error.code(), ErrorCode::Config);
        assert_eq!(error.context()["value"], "5x");
        assert_eq!(error.context()["remedy"], "give seconds");
    }

    #[test]
    fn messages_cut_long_strings_and_hide_containers() {
        let text = shown(&json!("é".repeat(500)));
        assert_eq!(text.chars().count(), SHOWN_CHARACTERS + 3);
        assert_eq!(shown(&json!({"token": "secret"})), "an object");
        assert_eq!(shown(&json!(["secret"])), "a list");
        assert_eq!(shown(&json!("\u{0}")), r#""\u0000""#);
    }

    #[test]
    fn an_io_error_keeps_errno_path_and_operation() {
        let source = std::fs::File::open("/nowhere/at/all").expect_err("does not exist");
        let error = Error::io("open", Some(Path::new("/nowhere/at/all")), source);
        assert_eq!(error.code(), ErrorCode::Io);
        assert_eq!(error.context()["errno"], libc::ENOENT);
        assert_eq!(error.context()["operation"], "open");
        assert_eq!(error.context()["filename"], "/nowhere/at/all");
        assert!(
            error.to_string().starts_with("open '/nowhere/at/all': "),
            "{error}"
        );
        assert!(std::error::Error::source(&error).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_utf8_is_kept_beside_its_text() {
        use std::os::unix::ffi::OsStrExt;

        let path = Path::new(std::ffi::OsStr::from_bytes(b"n\xff"));
        let error = Error::new(ErrorCode::Encoding, "n\u{fffd}: no text")
            .with_path("path", path)
            .with_path("root", Path::new("plain"));
        assert_eq!(error.context()["path"], "n\u{fffd}");
        assert_eq!(error.context()["root"], "plain");
        assert_eq!(error.paths().collect::<Vec<_>>(), [("path", path)]);
    }

    #[test]
    fn a_result_with_this_error_stays_small() {
        assert!(size_of::<Error>() <= 96, "{}", size_of::<Error>());
    }
}
