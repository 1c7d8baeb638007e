//! Puts what went wrong with an agent into words: what was tried, what came back, what to do.

use crate::agent::{Failure, Refused};
use std::time::Duration;
use vespera_error::{Error, ErrorCode};

/// What is known of the agent that failed.
#[derive(Debug)]
pub struct Subject<'a> {
    pub agent_id: &'a str,
    pub program: &'a str,
    pub directory: &'a str,
    pub pid: i32,
    pub stderr: &'a str,
    /// What the service answered last instead of the model.
    pub refused: Option<&'a Refused>,
    /// Why the host ended it.
    pub reason: Option<&'a str>,
}

/// An agent that could not even be asked for.
pub fn not_asked_for(agent_id: &str, program: &str, error: &std::io::Error) -> Error {
    let whom = format!("agent '{agent_id}': {program}");
    no_guardian(&whom, program, error)
}

/// `whom`, a part of a sentence, did not start as there is no guardian, or none that can be asked.
pub fn no_guardian(whom: &str, program: &str, error: &std::io::Error) -> Error {
    let errno = error.raw_os_error();
    let remedy = match errno {
        Some(libc::EMFILE) => "; the host has no file descriptor left: raise 'ulimit -n'",
        Some(libc::ETOOMANYREFS) => {
            "; too many descriptors of this user are on their way between processes: raise \
             'ulimit -n', or start fewer at once"
        }
        _ => "",
    };
    let message = format!("{whom} did not start: {error}{remedy}");
    Error::spawn(message, errno, program, "guardian", "")
}

impl Subject<'_> {
    fn last_words(&self) -> String {
        let tail = self.stderr.trim();
        if tail.is_empty() {
            "it wrote nothing to stderr".into()
        } else {
            format!("stderr: {tail:?}")
        }
    }

    /// A session that never became ready.
    pub fn failed_to_start(&self, failure: &Failure) -> Error {
        let Self {
            agent_id,
            program,
            directory,
            pid,
            stderr,
            refused: _,
            reason,
        } = self;
        let words = self.last_words();
        let whom = match pid {
            0 => "the program has not even begun".into(),
            pid => format!("pid {pid}"),
        };
        let error = match failure {
            Failure::Spawn { errno, stage } => {
                let reason = std::io::Error::from_raw_os_error(*errno);
                // As the other backend and a look before the start name it.
                let stage = match stage.name() {
                    "working_directory" => "chdir",
                    other => other,
                };
                let remedy = match stage {
                    "chdir" => {
                        format!("; working_directory {directory:?} must exist and be accessible")
                    }
                    "exec" if *errno == libc::E2BIG => {
                        "; arguments and environment are too long together (128 KiB each)".into()
                    }
                    "exec" if *errno == libc::ENOEXEC => "; a script needs a '#!' line".into(),
                    "exec" if *errno == libc::ENOENT => {
                        "; it may name an interpreter in its first line that does not exist".into()
                    }
                    "exec" if *errno == libc::EACCES => {
                        "; check the permissions (and a noexec mount)".into()
                    }
                    "credentials" => "; user or group of the host changed after start".into(),
                    _ => String::new(),
                };
                let message = format!(
                    "agent '{agent_id}': {program} did not start ({stage}: {reason}){remedy}"
                );
                Error::spawn(message, Some(*errno), program, stage, stderr)
            }
            Failure::Exited { code, signal } => {
                let how = ended_how(*code, *signal);
                let why = reason.map_or_else(String::new, |reason| format!("{reason}; "));
                let message = format!(
                    "agent '{agent_id}': {program} {how} before it answered initialize ({why}{words})"
                );
                Error::spawn(message, None, program, "initialize", stderr)
            }
            Failure::Refused { message } => {
                let message = format!(
                    "agent '{agent_id}': {program} refused initialize: {message} ({words})"
                );
                Error::spawn(message, None, program, "initialize", stderr)
            }
            Failure::Silent { seconds } => Error::timeout(
                format!(
                    "agent '{agent_id}': no answer to initialize within {seconds} s ({whom}, {words}); \
                     raise timeouts.startup or run 'vespera doctor'"
                ),
                "startup",
                *seconds,
            ),
            Failure::Deaf { seconds } => Error::timeout(
                format!(
                    "agent '{agent_id}': it took none of its input for {seconds} s ({whom}, {words}); \
                     raise timeouts.write"
                ),
                "write",
                *seconds,
            ),
            Failure::Late { seconds } => Error::timeout(
                format!(
                    "agent '{agent_id}': not ready within {seconds} s (timeouts.total; {whom}, {words}); \
                     raise the limit"
                ),
                "total",
                *seconds,
            ),
            Failure::GuardianLost => Error::new(
                ErrorCode::AgentFailed,
                format!(
                    "agent '{agent_id}': its guardian died and took the agent along; spawn it again"
                ),
            ),
        };
        error
            .with("agent_id", *agent_id)
            .with("stderr_tail", *stderr)
    }

    /// A turn that got no `result` in time.
    pub fn turn_timed_out(&self, which: &str, seconds: f64, alive: bool) -> Error {
        let fate = if alive {
            "the turn was interrupted, after which a session lives on and a run ends"
        } else {
            "its tree was ended"
        };
        let what = if which == "write" {
            "it took none of its input for"
        } else {
            "no result within"
        };
        let retrying = self.refused.map_or_else(String::new, |refused| {
            format!("; the CLI was retrying: {}", refused.words)
        });
        let message = format!(
            "agent '{}': {what} {seconds} s (timeouts.{which}); {fate}{retrying} (pid {}, {}); raise the limit",
            self.agent_id,
            self.pid,
            self.last_words()
        );
        Error::timeout(message, which, seconds)
            .with("agent_id", self.agent_id)
            .with("alive", alive)
    }

    /// The process ended during a turn, or before it.
    pub fn ended(&self, doing: &str, code: i32, signal: i32) -> Error {
        let how = ended_how(code, signal);
        let message = format!(
            "agent '{}': pid {} {how} {doing} ({})",
            self.agent_id,
            self.pid,
            self.last_words()
        );
        Error::new(ErrorCode::AgentFailed, message)
            .with("agent_id", self.agent_id)
            .with("stderr_tail", self.stderr)
    }
}

fn ended_how(code: i32, signal: i32) -> String {
    let name = match signal {
        0 => return format!("exited with {code}"),
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGHUP => "SIGHUP",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        other => return format!("was ended by signal {other}"),
    };
    format!("was ended by {name}")
}

/// The tree of an agent did not end in time.
pub fn not_ended(agent_id: &str, after: Duration) -> Error {
    Error::timeout(
        format!(
            "agent '{agent_id}': its tree is not gone {} s after it was told to end; see survivors",
            after.as_secs_f64()
        ),
        "shutdown",
        after.as_secs_f64(),
    )
    .with("agent_id", agent_id)
}
