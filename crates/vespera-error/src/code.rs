//! Responsible for the list of error codes: their stable strings and the Python class of each.

/// Declares the enum and its two columns together, so that no code can lack a string or a class.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $class:literal;)*) => {
        /// What went wrong, as a program sees it. The strings are promises: they never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable string, as `.code` shows it in Python.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The exception class of the Python half that stands for this code.
            pub const fn class_name(self) -> &'static str {
                match self { $(Self::$variant => $class,)* }
            }
        }
    };
}

codes! {
    /// A configuration value that cannot work.
    Config = "config", "ConfigError";
    /// The agent did not start, or ended before it was ready.
    SpawnFailed = "spawn_failed", "SpawnError";
    /// The agent's program is nowhere.
    ProgramNotFound = "program_not_found", "SpawnError";
    /// No agent with this id is known.
    AgentNotFound = "agent_not_found", "AgentNotFound";
    /// An agent with this id is alive.
    AgentExists = "agent_exists", "AgentExists";
    /// The agent is in a turn.
    AgentBusy = "agent_busy", "AgentBusy";
    /// A limit of time passed.
    Timeout = "timeout", "AgentTimeout";
    /// The agent ended, or could no longer be spoken to, while something was asked of it.
    AgentFailed = "agent_failed", "AgentFailed";
    /// The agent answered something that its protocol does not allow.
    Protocol = "protocol", "ProtocolError";
    /// A limit (memory, output, open files, …) was reached.
    LimitExceeded = "limit_exceeded", "LimitExceeded";
    /// A budget of money or tokens is spent.
    BudgetExceeded = "budget_exceeded", "BudgetExceeded";
    /// The supervisor is closed or closing.
    SupervisorClosed = "supervisor_closed", "SupervisorClosed";
    /// A file operation failed for a reason without a code of its own.
    FileOp = "file_op", "FileOpError";
    /// An edit could not be made.
    Edit = "edit", "EditError";
    /// The text to replace is not in the file.
    StringNotFound = "string_not_found", "StringNotFound";
    /// The text to replace is there more than once.
    AmbiguousMatch = "ambiguous_match", "AmbiguousMatch";
    /// The file is not what the caller expected it to be.
    ContentChanged = "content_changed", "ContentChanged";
    /// Somebody else holds a lock on the file.
    FileLocked = "file_locked", "FileLocked";
    /// A path leads out of its workspace.
    OutsideWorkspace = "outside_workspace", "OutsideWorkspace";
    /// The file is larger than the caller allowed.
    FileTooLarge = "file_too_large", "FileTooLarge";
    /// The bytes are not text in the expected encoding.
    Encoding = "encoding", "EncodingError";
    /// A search or glob pattern cannot be compiled.
    Pattern = "pattern", "PatternError";
    /// The operating system refused; Python sees the built-in `OSError` subclass.
    Io = "io", "OSError";
    /// A fault of ours, such as a caught panic.
    Internal = "internal", "AgentError";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_string_of_its_own() {
        let strings: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(strings.len(), ErrorCode::ALL.len());
        for string in strings {
            assert!(string.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}
