//! Responsible for the parts that agents and supervisors share: time-outs, limits, retries, budget.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use vespera_error::Result;

use crate::choices::{IdleState, RetryOn};
use crate::fields::{Fields, join};
use crate::rules::{choice, duration, integer, list, number, positive_duration, size};
use crate::schema::{DurationInput, IdleInput, SizeInput};

/// How long each phase may last. Null means no limit.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Timeouts {
    /// From the start of the process to its answer to `initialize`, and as long before that for
    /// making its workspace.
    #[schemars(with = "DurationInput")]
    pub startup: f64,
    /// One turn; after it the turn is interrupted.
    #[schemars(with = "Option<DurationInput>")]
    pub turn: Option<f64>,
    /// Silence, for every state or per state.
    #[schemars(with = "Option<IdleInput>")]
    pub idle: Option<Idle>,
    /// The whole run.
    #[schemars(with = "Option<DurationInput>")]
    pub total: Option<f64>,
    /// Waiting for a place in the supervisor; 0 does not wait.
    #[schemars(with = "DurationInput")]
    pub queue: f64,
    /// From the last result to the end of the process.
    #[schemars(with = "DurationInput")]
    pub after_result: f64,
    /// One write to the agent.
    #[schemars(with = "DurationInput")]
    pub write: f64,
}

/// The idle time-out: one for every state, or one per state.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Idle {
    /// Seconds, whatever the agent waits for.
    All(f64),
    /// Seconds by what the agent waits for; a state that is not named has no limit.
    PerState(BTreeMap<IdleState, f64>),
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            startup: 60.0,
            turn: None,
            idle: None,
            total: None,
            queue: 30.0,
            after_result: 10.0,
            write: 30.0,
        }
    }
}

impl Timeouts {
    const FIELDS: &[&str] = &[
        "startup",
        "turn",
        "idle",
        "total",
        "queue",
        "after_result",
        "write",
    ];

    pub(crate) fn read(path: &str, value: &Value) -> Result<Self> {
        let fields = Fields::open(path, value, Self::FIELDS)?;
        let default = Self::default();
        Ok(Self {
            startup: fields.or("startup", default.startup, positive_duration)?,
            turn: fields.optional("turn", positive_duration)?,
            idle: fields.optional("idle", Idle::read)?,
            total: fields.optional("total", positive_duration)?,
            queue: fields.or("queue", default.queue, duration)?,
            after_result: fields.or("after_result", default.after_result, duration)?,
            write: fields.or("write", default.write, positive_duration)?,
        })
    }
}

impl Idle {
    fn read(path: &str, value: &Value) -> Result<Self> {
        let Value::Object(entries) = value else {
            return positive_duration(path, value).map(Self::All);
        };
        Fields::open(path, value, IdleState::NAMES)?;
        let states = entries.iter().map(|(name, value)| {
            let state = choice(path, &Value::from(name.as_str()))?;
            Ok((state, positive_duration(&join(path, name), value)?))
        });
        states.collect::<Result<_>>().map(Self::PerState)
    }
}

/// What one agent's process tree may use. Null means no limit.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Limits {
    /// Memory of the whole tree, in bytes.
    #[schemars(with = "Option<SizeInput>")]
    pub memory: Option<u64>,
    /// Processes in the tree.
    #[schemars(range(min = 1, max = 4_194_304))]
    pub processes: Option<u32>,
    /// Open files per process.
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub open_files: Option<u32>,
    /// Processor time of the whole tree, in seconds.
    #[schemars(with = "Option<DurationInput>")]
    pub cpu_seconds: Option<f64>,
    /// Largest file that may be written, in bytes.
    #[schemars(with = "Option<SizeInput>")]
    pub file_size: Option<u64>,
    /// Undelivered output kept on disk, in bytes.
    #[schemars(with = "SizeInput")]
    pub output: u64,
    /// Scheduling niceness.
    #[schemars(range(min = -20, max = 19))]
    pub nice: Option<i32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: None,
            processes: None,
            open_files: None,
            cpu_seconds: None,
            file_size: None,
            output: 1 << 30,
            nice: None,
        }
    }
}

impl Limits {
    const FIELDS: &[&str] = &[
        "memory",
        "processes",
        "open_files",
        "cpu_seconds",
        "file_size",
        "output",
        "nice",
    ];

    pub(crate) fn read(path: &str, value: &Value) -> Result<Self> {
        let fields = Fields::open(path, value, Self::FIELDS)?;
        Ok(Self {
            memory: fields.optional("memory", size(1))?,
            processes: fields.optional("processes", integer(1, 1 << 22))?,
            open_files: fields.optional("open_files", integer(1, 1 << 30))?,
            cpu_seconds: fields.optional("cpu_seconds", positive_duration)?,
            file_size: fields.optional("file_size", size(0))?,
            output: fields.or("output", Self::default().output, size(0))?,
            nice: fields.optional("nice", integer(-20, 19))?,
        })
    }
}

/// Whether and when a run is tried again. One attempt means never.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    #[schemars(range(min = 1, max = 100))]
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each further one.
    #[schemars(with = "DurationInput")]
    pub backoff: f64,
    /// Part of each wait that is random, from 0 (none) to 1 (all).
    #[schemars(range(min = 0, max = 1))]
    pub jitter: f64,
    /// Outcomes after which another attempt is made.
    pub on: Vec<RetryOn>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 1,
            backoff: 1.0,
            jitter: 0.5,
            on: vec![RetryOn::RateLimited, RetryOn::SpawnFailed],
        }
    }
}

impl RetryPolicy {
    const FIELDS: &[&str] = &["attempts", "backoff", "jitter", "on"];

    pub(crate) fn read(path: &str, value: &Value) -> Result<Self> {
        let fields = Fields::open(path, value, Self::FIELDS)?;
        let default = Self::default();
        Ok(Self {
            attempts: fields.or("attempts", default.attempts, integer(1, 100))?,
            backoff: fields.or("backoff", default.backoff, duration)?,
            jitter: fields.or("jitter", default.jitter, number(1))?,
            on: fields.or("on", default.on, list(choice))?,
        })
    }
}

/// What may be spent. Null means no limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct Budget {
    /// US dollars.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub usd: Option<f64>,
    /// Tokens, in and out together.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_i64))]
    pub tokens: Option<u64>,
    /// US dollars per hour above which the log warns; nothing is stopped.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub usd_per_hour: Option<f64>,
}

impl Budget {
    const FIELDS: &[&str] = &["usd", "tokens", "usd_per_hour"];

    pub(crate) fn read(path: &str, value: &Value) -> Result<Self> {
        let fields = Fields::open(path, value, Self::FIELDS)?;
        Ok(Self {
            usd: fields.optional("usd", number(1_000_000_000))?,
            tokens: fields.optional("tokens", integer(0, i64::MAX))?,
            usd_per_hour: fields.optional("usd_per_hour", number(1_000_000_000))?,
        })
    }
}
