//! The Python bindings: converts, releases the interpreter, calls `handle`, converts back.

use crate::config;
use crate::handle::{Handle, Launch, Stopped};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use serde_json::Value;
use std::time::{Duration, Instant};
use vespera_error::{Error, ErrorCode};
use vespera_guardian::EndedBy;

/// How long a host's death leaves its agents, until a supervisor's configuration says otherwise.
const HOST_DEATH_GRACE_MS: u32 = 250;

/// Runs `call` without the interpreter; it may ask whether Python has a signal to deliver.
fn detached<T: Send>(
    py: Python<'_>,
    call: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T, Stopped> + Send,
) -> PyResult<T> {
    let mut raised: Option<PyErr> = None;
    let result = py.detach(|| {
        call(&mut || {
            #[allow(
                clippy::redundant_closure_for_method_calls,
                reason = "its lifetime is not general enough"
            )]
            Python::attach(|py| py.check_signals())
                .map_err(|error| raised = Some(error))
                .is_err()
        })
    });
    result.map_err(|stopped| match stopped {
        Stopped::Interrupted => raised.unwrap_or_else(|| PyKeyboardInterrupt::new_err(())),
        Stopped::Failed(error) => error.into(),
        Stopped::Busy { agent_id } => Error::new(
            ErrorCode::AgentBusy,
            format!("agent '{agent_id}' is in a turn: wait for its answer or interrupt it"),
        )
        .with("agent_id", agent_id)
        .into(),
    })
}

fn seconds(value: f64, field: &str) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        Error::config(
            field,
            value.into(),
            "give a number of seconds that is not negative",
        )
        .into()
    })
}

/// Code, signal, who ended it, why.
type Ended = (
    Option<i32>,
    Option<i32>,
    Option<&'static str>,
    Option<&'static str>,
);

/// One agent in a persistent session.
#[pyclass(frozen, name = "Session", module = "vespera_agent_spawner._native")]
struct PySession {
    handle: Handle,
}

#[pymethods]
impl PySession {
    #[staticmethod]
    fn spawn(
        py: Python<'_>,
        config_json: &str,
        argv: Vec<Vec<u8>>,
        environment: Vec<(Vec<u8>, Vec<u8>)>,
        working_directory: Vec<u8>,
        session_id: String,
        startup_timeout: f64,
    ) -> PyResult<Self> {
        let config = config::read(config_json)?;
        let launch = Launch {
            agent_id: config
                .agent_id
                .clone()
                .unwrap_or_else(|| session_id.clone()),
            session_id,
            argv,
            environment,
            directory: working_directory,
            startup: seconds(startup_timeout, "timeouts.startup")?,
            limits: config::kernel_limits(&config),
            host_death_grace_ms: HOST_DEATH_GRACE_MS,
            agents: config.agents.map(Value::Object),
        };
        let handle = detached(py, |interrupted| Handle::spawn(&launch, interrupted))?;
        Ok(Self { handle })
    }

    #[getter]
    fn agent_id(&self) -> &str {
        self.handle.agent_id()
    }

    #[getter]
    fn session_id(&self) -> String {
        self.handle.shared().view().session_id.clone()
    }

    #[getter]
    fn pid(&self) -> i32 {
        self.handle.shared().view().pid
    }

    /// The state of the contract, as a string.
    fn state(&self) -> &'static str {
        self.handle.shared().view().state.name()
    }

    /// State, counters and identity in one consistent look.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        let view = self.handle.shared().view();
        dict.set_item("state", view.state.name())?;
        dict.set_item("pid", view.pid)?;
        dict.set_item("session_id", &view.session_id)?;
        dict.set_item("turns", view.turns)?;
        dict.set_item("cost_usd", view.total_cost_usd)?;
        dict.set_item("outcome", view.outcome)?;
        dict.set_item("events", view.events)?;
        dict.set_item("output_bytes", view.output_bytes)?;
        dict.set_item(
            "age_seconds",
            Instant::now()
                .duration_since(self.handle.started())
                .as_secs_f64(),
        )?;
        Ok(dict)
    }

    /// One turn: its `result` frame and the session's cost in dollars before it.
    fn execute<'py>(
        &self,
        py: Python<'py>,
        prompt: String,
        uuid: String,
        timeout: Option<f64>,
    ) -> PyResult<(Bound<'py, PyBytes>, Option<f64>)> {
        let limit = timeout.map(|value| seconds(value, "timeout")).transpose()?;
        let turn = detached(py, |interrupted| {
            self.handle.execute(prompt, uuid, limit, interrupted)
        })?;
        Ok((PyBytes::new(py, &turn.frame), turn.cost_before))
    }

    fn interrupt(&self) {
        self.handle.interrupt();
    }

    /// Ends the agent; returns code, signal, the last rung of our ladder (or whose death ended
    /// it) and the reason, if it was one of ours.
    fn shutdown(&self, py: Python<'_>, grace: f64) -> PyResult<Ended> {
        let grace = seconds(grace, "grace_seconds")?;
        let ending = detached(py, |interrupted| self.handle.shutdown(grace, interrupted))?;
        let (rung, reason) = {
            let view = self.handle.shared().view();
            (view.rung, view.reason)
        };
        let by = match ending.by {
            EndedBy::GuardianDeath => Some("guardian"),
            EndedBy::Itself | EndedBy::Host | EndedBy::HostDeath => rung,
        };
        let signalled = ending.signal != 0;
        Ok((
            (!signalled).then_some(ending.code),
            signalled.then_some(ending.signal),
            by,
            reason,
        ))
    }

    /// Ends the agent by force; does not wait.
    fn kill(&self) {
        self.handle.kill();
    }

    /// Resident bytes, CPU seconds, processes and open files of the whole tree.
    fn usage(&self, py: Python<'_>) -> (u64, f64, u64, u64) {
        let leash = self.handle.shared().view().leash;
        let usage = py.detach(|| crate::usage::of_tree(leash));
        (
            usage.rss,
            usage.cpu_seconds,
            usage.processes,
            usage.open_files,
        )
    }

    fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.handle.shared().view().stderr).into_owned()
    }

    /// Processes that were still there when the leader had ended, and were swept.
    fn orphans_reaped(&self) -> u32 {
        self.handle
            .shared()
            .view()
            .ending
            .map_or(0, |ending| ending.killed)
    }
}

/// The Rust engine of `vespera_agent_spawner`.
#[pymodule(gil_used = false)]
mod _native {
    use super::{Bound, Error, PyModule, PyResult, Value, config};
    use crate::agent::claude_argv::argv;
    use pyo3::prelude::*;
    use std::collections::BTreeMap;

    #[pymodule_export]
    use super::PySession;

    #[pymodule_init]
    #[allow(clippy::unnecessary_wraps, reason = "pyo3 asks for a result")]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        vespera_error::python::register("vespera_agent_spawner.errors");
        Ok(())
    }

    /// Version, build profile and the embedded guardian.
    #[pyfunction]
    fn build_info() -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("profile", env!("VESPERA_PROFILE").to_owned()),
            (
                "guardian",
                format!("embedded, {} bytes", crate::agent::process::program_size()),
            ),
        ])
    }

    /// The containment tier and why it is not a better one. Starts the guardian.
    #[pyfunction]
    fn containment(py: Python<'_>) -> PyResult<(&'static str, &'static str)> {
        py.detach(crate::agent::process::guardian)
            .map_err(|error| {
                Error::spawn(
                    format!("the guardian did not start: {error}"),
                    error.raw_os_error(),
                    "vespera-guardian",
                    "guardian",
                    "",
                )
            })?;
        Ok(("subreaper", "the cgroup tier is not built yet"))
    }

    /// The JSON Schema of the configuration, as text.
    #[pyfunction]
    fn config_schema() -> String {
        config::schema()
    }

    /// Checks a configuration and fills in its defaults; JSON in and out.
    #[pyfunction]
    fn validate_agent_config(json: &str) -> PyResult<String> {
        Ok(config::normalise(json)?)
    }

    /// The argv of the Claude CLI for a configuration as JSON.
    #[pyfunction]
    fn claude_argv(config_json: &str, program: &str, session_id: &str) -> PyResult<Vec<String>> {
        match vespera_config::parse_json(config_json)? {
            Value::Object(fields) => Ok(argv(&fields, program, session_id)?),
            other => Err(Error::config("", other, "give an object").into()),
        }
    }

    /// Counters of the engine by metric name.
    #[pyfunction]
    fn metrics() -> BTreeMap<&'static str, f64> {
        crate::metrics::snapshot()
    }
}
