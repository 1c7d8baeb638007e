//! What an agent is started with, as Python gives it: settings and environments that serve many
//! agents, and what is each one's own.

use super::seconds;
use crate::agent::adapter::Told;
use crate::agent::process::Moment;
use crate::agent::{Plan, adapter, claude_argv};
use crate::config::{self, AgentConfig};
use crate::launch::Launch;
use pyo3::prelude::*;
use serde_json::Value;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use vespera_guardian::Environment;

/// What of a configuration the engine decides by, read and checked once for many agents.
#[pyclass(frozen, name = "Settings", module = "vespera_agent_spawner._native")]
pub(super) struct PySettings {
    config: AgentConfig,
}

#[pymethods]
impl PySettings {
    #[new]
    fn new(config_json: &str) -> PyResult<Self> {
        Ok(Self {
            config: config::read(config_json)?,
        })
    }
}

/// An environment, encoded once for many agents.
#[pyclass(frozen, name = "Environment", module = "vespera_agent_spawner._native")]
pub(super) struct PyEnvironment {
    inner: Arc<Environment>,
}

#[pymethods]
impl PyEnvironment {
    #[new]
    fn new(entries: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut environment = Environment::default();
        for (name, value) in entries {
            environment.push(&name, &value);
        }
        Self {
            inner: environment.into(),
        }
    }
}

/// Who the agent is (its id, its session's), its argv and its directory; Python encodes those as it
/// encodes the names of files.
pub(super) type Identity = (String, String, Vec<OsString>, OsString);

/// What the agent's own configuration does not say: seconds that the host's death leaves it, the
/// delegated cgroup in which it gets one of its own, the path of its transcript, and the host's
/// moment.
pub(super) type Around = (f64, Option<OsString>, Option<OsString>, Moment);

/// What the host answers: permission asks; calls of its functions; and its hooks as JSON, which
/// the CLI is told of before its first prompt.
#[derive(FromPyObject)]
pub(super) struct Answers(bool, bool, Option<String>);

impl Answers {
    pub(super) fn enter(self, plan: &mut Plan) -> PyResult<()> {
        let Self(asks, calls, hooks) = self;
        plan.answers_asks = asks;
        plan.answers_calls = calls;
        if let Some(hooks) = hooks {
            plan.told.hooks = Some(vespera_config::parse_json(&hooks)?);
        }
        Ok(())
    }
}

/// What to start, in the terms of the engine.
pub(super) fn launch_of(
    settings: &PySettings,
    environment: &PyEnvironment,
    identity: Identity,
    around: Around,
) -> PyResult<(Launch, Plan)> {
    let config = &settings.config;
    let (agent_id, session_id, argv, directory) = identity;
    let (grace, cgroup, transcript, moment) = around;
    let grace = seconds(grace, "host_death_grace")?.as_millis();
    let launch = Launch {
        agent_id,
        session_id,
        argv: argv.into_iter().map(OsString::into_vec).collect(),
        environment: Arc::clone(&environment.inner),
        directory: directory.into_vec(),
        timeouts: config::timeouts(config),
        limits: config::kernel_limits(config),
        host_death_grace_ms: u32::try_from(grace).unwrap_or(u32::MAX),
        moment,
        cgroup: cgroup.map(OsString::into_vec),
        ceilings: config::ceilings(config),
        overflow: config::overflow(config),
        output_limit: config::output_limit(config),
        transcript: transcript.map(OsString::into_vec),
        standby: None,
        stands_by: false,
    };
    let plan = Plan {
        adapter: adapter::named(config.adapter),
        goes_on: config.adapter == vespera_config::Adapter::Claude
            && claude_argv::goes_on(&launch.argv),
        told: Told {
            agents: config.agents.clone().map(Value::Object),
            hooks: None,
        },
        ..Plan::default()
    };
    Ok((launch, plan))
}
