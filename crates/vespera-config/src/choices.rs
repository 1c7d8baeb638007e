//! Responsible for the values that are names from a list.

use schemars::JsonSchema;
use serde::Serialize;

/// Declares an enum whose variants are written as strings, with the list of those strings.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// Every accepted string, in the order of the documentation.
            pub const NAMES: &'static [&'static str] = &[$($text,)*];

            /// The string as it is written in a configuration.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl crate::rules::Choice for $name {
            const NAMES: &'static [&'static str] = Self::NAMES;
            fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

choices! {
    /// Which kind of program an agent is.
    Adapter {
        /// The Claude CLI.
        Claude = "claude",
        /// Any program: its lines are its events.
        Raw = "raw",
        /// A CLI that somebody else speaks with: lines in and out as they are.
        Relay = "relay",
    }
}

choices! {
    /// Which implementation runs the agents.
    Backend {
        /// Rust where it can be loaded, else Python.
        Auto = "auto",
        /// The compiled extension, or an error.
        Rust = "rust",
        /// Pure Python.
        Python = "python",
    }
}

choices! {
    /// What happens when an agent makes events faster than they are read.
    Overflow {
        /// Memory first, then an unlinked file up to `limits.output`.
        Spill = "spill",
        /// The oldest events are dropped and counted.
        DropOldest = "drop_oldest",
        /// The pipe is not read; the agent's own asks then wait in it too.
        Block = "block",
    }
}

choices! {
    /// What a supervisor does when an agent cannot log in.
    OnAuthFailure {
        /// Nothing more is started.
        Stop = "stop",
        /// Only that agent ends.
        Continue = "continue",
    }
}

choices! {
    /// How the CLI decides about permissions.
    PermissionMode {
        /// The CLI's own default.
        Default = "default",
        /// Asks for every use that is not allowed beforehand.
        Manual = "manual",
        /// Accepts edits of files.
        AcceptEdits = "acceptEdits",
        /// The model's judgement.
        Auto = "auto",
        /// Denies instead of asking.
        DontAsk = "dontAsk",
        /// Plans, changes nothing.
        Plan = "plan",
        /// No checks at all: only the user may choose it.
        BypassPermissions = "bypassPermissions",
    }
}

choices! {
    /// How much the model thinks.
    Effort {
        /// Least.
        Low = "low",
        /// Some.
        Medium = "medium",
        /// Much.
        High = "high",
        /// More.
        XHigh = "xhigh",
        /// Most.
        Max = "max",
    }
}

choices! {
    /// What an agent waits for when it is silent: each may have an idle time-out of its own.
    IdleState {
        /// The model's answer.
        Model = "model",
        /// A tool of the CLI.
        Tool = "tool",
        /// An MCP server.
        Mcp = "mcp",
        /// A subagent.
        Subagent = "subagent",
        /// Somebody's approval.
        Permission = "permission",
    }
}

choices! {
    /// Outcomes after which a run may be tried again. A completed, cancelled, unauthorised or
    /// over-budget run never is.
    RetryOn {
        /// The run failed.
        Failed = "failed",
        /// A time-out passed.
        TimedOut = "timed_out",
        /// A signal from outside ended it.
        Killed = "killed",
        /// The kernel ended it for want of memory.
        OutOfMemory = "out_of_memory",
        /// A limit was reached.
        LimitExceeded = "limit_exceeded",
        /// The service asked to slow down.
        RateLimited = "rate_limited",
        /// The stream ended without a result.
        Incomplete = "incomplete",
        /// It did not start.
        SpawnFailed = "spawn_failed",
    }
}
