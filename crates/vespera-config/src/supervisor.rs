//! Responsible for the configuration of a supervisor: the fleet's own settings and its agents'
//! defaults.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use vespera_error::Result;

use crate::choices::{Backend, OnAuthFailure};
use crate::fields::Fields;
use crate::policies::{Budget, Limits, RetryPolicy, Timeouts};
use crate::rules;
use crate::schema::{DurationInput, SizeInput};

/// A fleet of agents.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(default, deny_unknown_fields)]
pub struct SupervisorConfig {
    /// Agents alive at once; null: from the machine's memory and file descriptors.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_agents: Option<u32>,
    /// Agents that may be starting at once.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_starting: u32,
    /// Least time between two starts.
    #[schemars(with = "DurationInput")]
    pub start_interval: f64,
    /// Memory that must be free per agent before one starts; null: 512 MiB for claude, 0 for raw.
    #[schemars(with = "Option<SizeInput>")]
    pub memory_reserve: Option<u64>,
    /// Processes kept initialised for the next agents.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub warm: u32,
    /// Grace for agents when the host dies; null: 0.25 s for CLIs, 0 for raw.
    #[schemars(with = "Option<DurationInput>")]
    pub host_death_grace: Option<f64>,
    /// What all agents together may spend; null: no limit.
    pub budget: Option<Budget>,
    /// Default for agents.
    pub retry: RetryPolicy,
    /// Default for agents.
    pub timeouts: Timeouts,
    /// Default for agents.
    pub limits: Limits,
    /// What happens to the rest when an agent cannot log in.
    pub on_auth_failure: OnAuthFailure,
    /// An empty cgroup delegated to this user.
    #[schemars(length(min = 1))]
    pub cgroup: Option<String>,
    /// Which implementation runs the agents.
    pub backend: Backend,
    /// Directory for one transcript per agent.
    #[schemars(length(min = 1))]
    pub transcript_dir: Option<String>,
    /// Whether `vespera ps` can see this supervisor.
    pub register: bool,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self::read("", &json!({})).expect("every field of a supervisor has a default")
    }
}

impl SupervisorConfig {
    const FIELDS: &[&str] = &[
        "max_agents",
        "max_starting",
        "start_interval",
        "memory_reserve",
        "warm",
        "host_death_grace",
        "budget",
        "retry",
        "timeouts",
        "limits",
        "on_auth_failure",
        "cgroup",
        "backend",
        "transcript_dir",
        "register",
    ];

    pub(crate) fn read(path: &str, value: &Value) -> Result<Self> {
        let fields = Fields::open(path, value, Self::FIELDS)?;
        Ok(Self {
            max_agents: fields.optional("max_agents", rules::integer(1, 1_000_000))?,
            max_starting: fields.or("max_starting", 4, rules::integer(1, 1_000_000))?,
            start_interval: fields.or("start_interval", 0.0, rules::duration)?,
            memory_reserve: fields.optional("memory_reserve", rules::size(0))?,
            warm: fields.or("warm", 0, rules::integer(0, 1_000_000))?,
            host_death_grace: fields.optional("host_death_grace", rules::duration)?,
            budget: fields.optional("budget", Budget::read)?,
            retry: fields.or("retry", RetryPolicy::default(), RetryPolicy::read)?,
            timeouts: fields.or("timeouts", Timeouts::default(), Timeouts::read)?,
            limits: fields.or("limits", Limits::default(), Limits::read)?,
            on_auth_failure: fields.or("on_auth_failure", OnAuthFailure::Stop, rules::choice)?,
            cgroup: fields.optional("cgroup", rules::text)?,
            backend: fields.or("backend", Backend::Auto, rules::choice)?,
            transcript_dir: fields.optional("transcript_dir", rules::text)?,
            register: fields.or("register", false, rules::boolean)?,
        })
    }
}
