//! The Python bindings: converts, releases the interpreter, calls `handle`, converts back.

use crate::config;
use crate::handle::{Handle, Heard, Stopped};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use vespera_error::{Error, ErrorCode};

mod events;
mod launch;
mod standby;
mod told;

use events::{PyBridge, PyEvent};
use launch::{Answers, Around, Identity, PyEnvironment, PySettings, launch_of};
use standby::PyStandby;
use told::{Ended, Info, Summary, Told, Used, cpu_seconds, ended, told, tuple_of};

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
        other => self::raised(other),
    })
}

fn raised(stopped: Stopped) -> PyErr {
    match stopped {
        Stopped::Interrupted => PyKeyboardInterrupt::new_err(()),
        Stopped::Failed(error) => error.into(),
        Stopped::Busy { agent_id } => Error::new(
            ErrorCode::AgentBusy,
            format!("agent '{agent_id}' is in a turn: wait for its answer or interrupt it"),
        )
        .with("agent_id", agent_id)
        .into(),
    }
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

/// Whether the host counts what its messages cost, whether it has no owner for it yet, its fleet's
/// line, and whether it stands there.
type Manner<'py> = (bool, bool, Option<Bound<'py, PyStandby>>, bool);

/// One agent in a persistent session.
#[pyclass(frozen, name = "Session", module = "vespera_agent_spawner._native")]
struct PySession {
    handle: Handle,
}

#[pymethods]
impl PySession {
    /// Starts a session and waits until the CLI has answered `initialize`.
    #[staticmethod]
    fn spawn(
        py: Python<'_>,
        settings: &PySettings,
        environment: &PyEnvironment,
        identity: Identity,
        around: Around,
    ) -> PyResult<Self> {
        let (launch, plan) = launch_of(settings, environment, identity, around)?;
        let handle = detached(py, |interrupted| Handle::spawn(&launch, plan, interrupted))?;
        Ok(Self { handle })
    }

    /// Asks for an agent and does not wait: its news are told on the bridge. With a `prompt` (text
    /// and uuid) it is a run, without one a session; a `spare` one waits for its owner (`claim`).
    #[staticmethod]
    #[allow(
        clippy::too_many_arguments,
        reason = "called once, by name, from one place"
    )]
    fn start(
        py: Python<'_>,
        settings: &PySettings,
        environment: &PyEnvironment,
        identity: Identity,
        around: Around,
        bridge: &PyBridge,
        prompt: Option<(String, String)>,
        answers: Answers,
        manner: Manner<'_>,
        listening: bool,
    ) -> PyResult<Self> {
        let (mut launch, mut plan) = launch_of(settings, environment, identity, around)?;
        plan.prompt = prompt;
        answers.enter(&mut plan)?;
        let (counts_usage, spare, standby, stands_by) = manner;
        (plan.counts_usage, plan.spare) = (counts_usage, spare);
        launch.standby = standby.map(|standby| Arc::clone(&standby.get().inner));
        launch.stands_by = stands_by;
        let bridge = Arc::clone(&bridge.inner);
        let start = || Handle::start(&launch, plan, Some(&bridge), listening);
        // One packet, 0.2 ms: beside a thread that computes, giving the interpreter away and
        // getting it back would take 5 ms.
        let handle = if crate::agent::process::is_ready(launch.moment) {
            start()?
        } else {
            py.detach(start)?
        };
        Ok(Self { handle })
    }

    /// A spare session gets its owner; with a `prompt` (text and uuid) it is a run from now on.
    fn claim(&self, agent_id: &str, prompt: Option<(String, String)>, listening: bool) {
        self.handle.claim(agent_id, prompt, listening);
    }

    /// What it said of the service has been acted upon.
    fn noted(&self) {
        self.handle.noted();
    }

    /// Whether it stands in its fleet's line no more, since another run's end has started it.
    fn has_begun(&self) -> bool {
        self.handle.has_begun()
    }

    /// Takes it out of the line: it never starts. False: it has begun.
    fn withdraw(&self) -> bool {
        self.handle.withdraw()
    }

    /// The agent's number on its bridge.
    #[getter]
    fn number(&self) -> u64 {
        self.handle.number()
    }

    /// The moment of the host is over in which it was asked for, and others maybe: they start.
    fn end_moment(&self) {
        self.handle.end_moment();
    }

    /// The bridge's word was heard: what happens from now on is told again; see [`Heard`].
    fn heard(&self) -> Option<Heard> {
        self.handle.heard()
    }

    /// Begins or ends to keep events.
    fn listen(&self, listening: bool) {
        self.handle.listen(listening);
    }

    /// Up to `limit` undelivered events, oldest first.
    fn take_events(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<PyEvent>> {
        // Only a disk is worth giving the interpreter away for: beside a thread that computes,
        // getting it back takes 5 ms.
        self.handle
            .bring_events(|stretch| py.detach(|| stretch.read()))?;
        let events = self.handle.take_events(limit);
        Ok(events
            .into_iter()
            .map(|event| PyEvent::new(py, event))
            .collect())
    }

    /// Events that wait, that were dropped, and bytes that went to disk.
    fn backlog(&self) -> (usize, u64, u64) {
        let queue = self.handle.shared().queue();
        (queue.len(), queue.dropped, queue.spilled)
    }

    /// Of which kinds the events are that wait.
    fn kinds(&self) -> BTreeSet<&'static str> {
        self.handle.shared().queue().kinds()
    }

    /// Permission asks that the host is to answer, as frames.
    fn take_asks<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let asks = std::mem::take(&mut self.handle.shared().view().asks);
        asks.iter().map(|frame| PyBytes::new(py, frame)).collect()
    }

    /// Answers of the CLI to our own requests: id and frame.
    fn take_answers<'py>(&self, py: Python<'py>) -> Vec<(String, Bound<'py, PyBytes>)> {
        self.handle
            .take_answers()
            .into_iter()
            .map(|(id, frame)| (id, PyBytes::new(py, &frame)))
            .collect()
    }

    /// Answers an ask with a whole line; nothing happens when it was withdrawn.
    fn answer(&self, ask: String, line: Vec<u8>) {
        self.handle.answer(ask, line);
    }

    /// Writes a whole line to the CLI.
    fn write(&self, line: Vec<u8>) {
        self.handle.write(line);
    }

    /// Ends the agent's input, once all of it is written; does not wait.
    fn end_input(&self) {
        self.handle.end_input();
    }

    /// Begins a turn and does not wait.
    fn begin_turn(&self, prompt: String, uuid: String, timeout: Option<f64>) -> PyResult<()> {
        let limit = timeout.map(|value| seconds(value, "timeout")).transpose()?;
        let begun = self.handle.begin_turn(prompt, uuid, limit);
        begun.map(drop).map_err(raised)
    }

    /// The end of the turn in flight, once it has one; see [`Told`].
    fn take_turn<'py>(&self, py: Python<'py>) -> PyResult<Option<Told<'py>>> {
        let turn = self.handle.take_turn().map_err(raised)?;
        Ok(turn.map(|turn| told(py, turn)))
    }

    /// What the service answered last instead of the model: outcome and words.
    fn refused(&self) -> Option<(&'static str, String)> {
        let refused = self.handle.shared().view().refused.clone();
        refused.map(|refused| (refused.outcome, refused.words))
    }

    /// Raises why the agent never became ready.
    fn raise_start_failure(&self) -> PyResult<()> {
        Err(self.handle.start_failure().into())
    }

    /// Nobody waits for the turn in flight any more: it is stopped, or the agent ended.
    fn abandon(&self) {
        self.handle.abandon();
    }

    /// Begins to end the agent and does not wait.
    fn begin_shutdown(&self, grace: f64) -> PyResult<()> {
        self.handle.begin_shutdown(seconds(grace, "grace")?);
        Ok(())
    }

    #[getter]
    fn agent_id(&self) -> String {
        self.handle.agent_id().to_string()
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

    /// One consistent look; see [`Info`].
    fn info(&self) -> Info {
        let view = self.handle.shared().view();
        (
            view.session_id.clone(),
            view.pid,
            view.state.name(),
            view.turns,
            view.cost_usd(),
            view.outcome,
            view.total_cost_usd,
        )
    }

    /// Dollars, and tokens in and out, so far.
    fn spent(&self) -> (f64, u64, u64) {
        self.handle.shared().view().spent()
    }

    /// What a result takes of it, at once; see [`Summary`].
    fn summary(&self) -> Summary {
        let view = self.handle.shared().view();
        (
            view.state.name(),
            view.session_id.clone(),
            view.turns,
            view.cost_usd(),
            view.total_cost_usd,
            view.first_output
                .map(|first| first.duration_since(view.started).as_secs_f64()),
            String::from_utf8_lossy(&view.stderr).into_owned(),
            view.ending.map_or(0, |ending| ending.killed),
            view.ending.map_or(0.0, cpu_seconds),
        )
    }

    /// One turn; see [`Told`].
    fn execute<'py>(
        &self,
        py: Python<'py>,
        prompt: String,
        uuid: String,
        timeout: Option<f64>,
    ) -> PyResult<Told<'py>> {
        let limit = timeout.map(|value| seconds(value, "timeout")).transpose()?;
        let turn = detached(py, |interrupted| {
            self.handle.execute(prompt, uuid, limit, interrupted)
        })?;
        Ok(told(py, turn))
    }

    fn interrupt(&self) {
        self.handle.interrupt();
    }

    /// How the agent ended, as `shutdown` tells it; None while it lives.
    fn ending(&self) -> Option<Ended> {
        let view = self.handle.shared().view();
        let ending = view
            .state
            .is_over()
            .then(|| view.ending.unwrap_or_default())?;
        Some(ended(ending, &view))
    }

    /// Seconds since the start was asked for.
    fn age(&self) -> f64 {
        self.handle.started().elapsed().as_secs_f64()
    }

    /// Ends the agent; returns code, signal, the last rung of our ladder (or whose death ended
    /// it), the reason, if it was one of ours, the limit or "oom" that the kernel ended it for,
    /// and what outlived force.
    fn shutdown(&self, py: Python<'_>, grace: f64) -> PyResult<Ended> {
        let grace = seconds(grace, "grace_seconds")?;
        let ending = detached(py, |interrupted| self.handle.shutdown(grace, interrupted))?;
        Ok(ended(ending, &self.handle.shared().view()))
    }

    /// Ends the agent by force; does not wait.
    fn kill(&self) {
        self.handle.kill();
    }

    /// Resident bytes, CPU seconds, processes and open files of the whole tree; after its end
    /// only the CPU time of all that was reaped is left.
    fn usage(&self, py: Python<'_>) -> (u64, f64, u64, u64) {
        let leash = {
            let view = self.handle.shared().view();
            match view.ending {
                // At once: a walk would give the interpreter away.
                Some(ending) => return (0, cpu_seconds(ending), 0, 0),
                None => view.leash,
            }
        };
        let used = py.detach(|| crate::usage::of_tree(leash));
        // Asked again: the leash of an agent that has ended meanwhile may have another.
        match self.handle.shared().view().ending {
            Some(ending) => (0, cpu_seconds(ending), 0, 0),
            None => tuple_of(used),
        }
    }

    /// Pid of the leash, under which the whole tree is; 0 before it is known and after the end.
    #[getter]
    fn leash(&self) -> i32 {
        let view = self.handle.shared().view();
        if view.state.is_over() { 0 } else { view.leash }
    }

    /// The last line that was not empty, of a program that says nothing but lines.
    fn last_line(&self) -> String {
        String::from_utf8_lossy(&self.handle.shared().view().last_line).into_owned()
    }

    /// Why the transcript is not whole.
    fn transcript_lost(&self) -> Option<String> {
        self.handle.shared().view().transcript_lost.clone()
    }

    fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.handle.shared().view().stderr).into_owned()
    }
}

/// The Rust engine of `vespera_agent_spawner`.
#[pymodule(gil_used = false)]
mod _native {
    use super::{Bound, Error, PyModule, PyResult, Value, config};
    use crate::agent::claude_argv::argv;
    use crate::error::no_guardian;
    use pyo3::prelude::*;
    use std::borrow::Cow;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    #[pymodule_export]
    use super::events::{PyBridge, PyEvent};
    #[pymodule_export]
    use super::{PyEnvironment, PySession, PySettings, PyStandby};

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
                format!("embedded, {} bytes", crate::agent::program_size()),
            ),
        ])
    }

    /// The containment tier and why it is not a better one. Starts the guardian.
    #[pyfunction]
    fn containment(py: Python<'_>) -> PyResult<(&'static str, &'static str)> {
        let (guardian, _) = py
            .detach(|| crate::agent::process::guardian(0))
            .map_err(|error| no_guardian("the guardian", "vespera-guardian", &error))?;
        if !guardian.sees_processes() {
            return Ok((
                "pgroup",
                "/proc is missing or another pid namespace's, so whoever leaves an agent's process \
                 group is not found; mount one (unshare --mount-proc)",
            ));
        }
        Ok((
            "subreaper",
            "no cgroup is named (SupervisorConfig.cgroup); trees are owned by a subreaper each",
        ))
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

    /// What the trees under these leashes use, in their order; one look at /proc for all.
    #[pyfunction]
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands it over")]
    fn usage_of(py: Python<'_>, leashes: Vec<i32>) -> Vec<super::Used> {
        py.detach(|| crate::usage::of_trees(&leashes))
            .into_iter()
            .map(super::tuple_of)
            .collect()
    }

    /// Keep records for the log from this level on; 255 keeps none.
    #[pyfunction]
    fn want_diagnostics(level: u8) {
        crate::diagnostics::want(level);
    }

    /// Waits without the interpreter for records (level, part, agent, words) and takes them all;
    /// none after `close_diagnostics`.
    #[pyfunction]
    fn wait_for_diagnostics(py: Python<'_>) -> Vec<(u8, &'static str, String, String)> {
        py.detach(crate::diagnostics::wait)
            .into_iter()
            .map(|record| {
                (
                    record.level as u8,
                    record.part,
                    record.agent_id,
                    record.words,
                )
            })
            .collect()
    }

    /// Lets whoever waits for records go.
    #[pyfunction]
    fn close_diagnostics() {
        crate::diagnostics::close();
    }

    /// A small file of the kernel's own, read without giving the interpreter away.
    #[pyfunction]
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands it over")]
    fn read_kernel_file(path: PathBuf) -> Option<Cow<'static, [u8]>> {
        crate::kernel_files::read(&path).map(Cow::Owned)
    }

    /// How many entries a folder of the kernel's own has, likewise.
    #[pyfunction]
    #[allow(clippy::needless_pass_by_value, reason = "pyo3 hands it over")]
    fn count_kernel_entries(path: PathBuf) -> Option<usize> {
        crate::kernel_files::count_entries(&path)
    }

    /// Counters of the engine by metric name.
    #[pyfunction]
    fn metrics() -> BTreeMap<String, f64> {
        crate::metrics::snapshot()
    }
}
