//! A caller's handle on one session: blocking calls in plain Rust over reactor and guardian.
//!
//! A call waits in short slices so that its caller can stop it (Ctrl-C); it decides nothing itself.

use crate::agent::process::{self, Ends, Request};
use crate::agent::transcript::Transcript;
use crate::agent::{Ending, NOTICE, Plan, Refused, Session, Shared, State, TurnEnd};
use crate::bridge::Bridge;
use crate::cgroup::Kept;
use crate::error::{Subject, not_asked_for, not_ended};
use crate::launch::Launch;
use crate::reactor::{Command, Newcomer, Reactor};
use crate::rights::Asker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use vespera_error::Error;

mod events;

/// Between two looks at whether the caller wants to stop; Ctrl-C is promised within 100 ms.
const SLICE: Duration = Duration::from_millis(50);

/// The tree's end after force: the leash's own deadline and a margin.
const FORCE_PATIENCE: Duration = Duration::from_secs(8);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Why a blocking call ended without an answer.
#[derive(Debug)]
pub enum Stopped {
    /// The caller's `interrupted` said so.
    Interrupted,
    /// The agent failed.
    Failed(Error),
    /// A turn is in flight already.
    Busy { agent_id: String },
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A `result` frame, and the session's cost in dollars before it.
#[derive(Debug)]
pub struct Turn {
    pub frame: Vec<u8>,
    pub cost_before: Option<f64>,
    /// Why we stopped it: what the service answered instead of the model.
    pub refused: Option<Refused>,
}

/// One session.
#[derive(Debug)]
pub struct Handle {
    id: u64,
    program: String,
    directory: String,
    /// It has no turns that somebody waits for: its end is told by its state alone.
    is_run: AtomicBool,
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
}

/// What a loop hears: whether the agent is over, its state, ends of turns that wait, whether answers
/// do.
pub type Heard = (bool, &'static str, usize, bool);

/// How a start asks for its process.
type Asking = fn(&Request<'_>) -> std::io::Result<Ends>;

impl Handle {
    /// Starts a session and waits until the CLI has answered `initialize`.
    ///
    /// # Errors
    /// What kept the agent from starting, with the tail of its stderr.
    pub fn spawn(
        launch: &Launch,
        plan: Plan,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Self, Stopped> {
        let handle = Self::start(launch, plan, None, false)?;
        handle.wait_until_ready(interrupted)?;
        Ok(handle)
    }

    /// Asks for an agent and does not wait: its state tells how the start went. With a bridge
    /// its news are told there, and its events are kept.
    ///
    /// # Errors
    /// A guardian that cannot be reached, or no descriptors left.
    pub fn start(
        launch: &Launch,
        plan: Plan,
        bridge: Option<&Arc<Bridge>>,
        listening: bool,
    ) -> Result<Self, Error> {
        let program = String::from_utf8_lossy(launch.argv.first().map_or(&[][..], Vec::as_slice))
            .into_owned();
        let io = |error: std::io::Error| not_asked_for(&launch.agent_id, &program, &error);
        let transcript = launch
            .transcript
            .as_deref()
            .map(Transcript::open)
            .transpose()
            .map_err(io)?;
        let reactor = Reactor::current().map_err(io)?;
        let argv: Vec<&[u8]> = launch.argv.iter().map(Vec::as_slice).collect();
        let mark = crate::sweep::mark();
        let kept = Kept::by(launch.cgroup.as_deref());
        let cgroup = launch
            .cgroup
            .as_ref()
            .inspect(|parent| crate::cgroup::clear_of_the_dead(parent))
            .map_or_else(Vec::new, |parent| crate::cgroup::of_agent(parent, &mark));
        let ask: Asking = if launch.stands_by {
            process::prepare
        } else {
            process::spawn
        };
        let ends = ask(&Request {
            program: program_bytes(&argv),
            directory: &launch.directory,
            argv: &argv,
            environment: &launch.environment,
            mark: &mark,
            limits: kept.kernel_limits(launch.limits),
            cgroup: &cgroup,
            host_death_grace_ms: launch.host_death_grace_ms,
            moment: launch.moment,
            messenger: reactor.sender().filter(|_| launch.moment != 0),
        })
        .map_err(io)?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(
            Shared::with_events(
                launch.session_id.clone(),
                launch.overflow,
                launch.output_limit,
                bridge.map(|bridge| (Arc::clone(bridge), id)),
            )
            .named(&launch.agent_id)
            .followed_by(launch.standby.clone()),
        );
        shared.listen(listening);
        shared.view().leash = ends.leash_pid.unwrap_or(0);
        let now = Instant::now();
        let adapter = &plan.adapter;
        let is_run = plan.prompt.is_some() || adapter.runs_to_exit() || adapter.is_relayed();
        let session = Box::new(Session::new(
            Arc::clone(&shared),
            launch.timeouts,
            plan,
            now,
        ));
        let directory = String::from_utf8_lossy(&launch.directory).into_owned();
        let handle = Self {
            id,
            program,
            directory,
            is_run: AtomicBool::new(is_run),
            shared,
            reactor,
        };
        let newcomer = Newcomer {
            id,
            session,
            shared: Arc::clone(&handle.shared),
            ends,
            mark,
            ceilings: kept.ceilings(launch.ceilings),
            transcript,
            asker: launch.stands_by.then(Asker::here).flatten(),
            prepared: now,
        };
        handle.hand_in(newcomer, launch, bridge);
        Ok(handle)
    }

    fn hand_in(&self, newcomer: Newcomer, launch: &Launch, bridge: Option<&Arc<Bridge>>) {
        match &launch.standby {
            Some(standby) if launch.stands_by => return standby.join(newcomer),
            Some(standby) => standby.starts(bridge),
            None => {}
        }
        let command = Command::Add(newcomer);
        // On a busy host the reactor sleeps until the end of the moment: whoever is woken may take the
        // processor of this thread, and with it the interpreter. Otherwise agents start at once.
        if launch.moment != 0 && bridge.is_some_and(|bridge| bridge.is_late()) {
            self.reactor.post_quietly(command);
        } else {
            self.reactor.post(command);
        }
    }

    /// A session that waited for an owner gets one, who calls it `agent_id`; with a `prompt`
    /// (text and uuid) it is his run from now on. Its clocks begin now.
    pub fn claim(&self, agent_id: &str, prompt: Option<(String, String)>, listening: bool) {
        self.shared.rename(agent_id);
        self.shared.listen(listening);
        self.shared.view().started = Instant::now();
        // A relayed one stays what it is: its prompts are somebody else's.
        self.is_run.fetch_or(prompt.is_some(), Ordering::AcqRel);
        self.reactor.post(Command::Claim {
            id: self.id,
            prompt,
        });
    }

    /// Whether it stands in line no more, since another run's end has started it.
    pub fn has_begun(&self) -> bool {
        let line = self.shared.standby();
        line.is_none_or(|line| !line.holds(self.id))
    }

    /// Takes it out of the line. False: it has begun.
    pub fn withdraw(&self) -> bool {
        let withdrawn = self
            .shared
            .standby()
            .and_then(|line| line.withdraw(self.id));
        if withdrawn.is_some() {
            self.shared.view().state.go(State::Ended);
        }
        withdrawn.is_some()
    }

    /// The moment in which it was asked for is over: it is started, with all others of it.
    pub fn end_moment(&self) {
        self.reactor.wake();
    }

    /// The agent's number on its bridge.
    pub fn number(&self) -> u64 {
        self.id
    }

    fn wait_until_ready(&self, interrupted: &mut dyn FnMut() -> bool) -> Result<(), Stopped> {
        let state = self.wait(interrupted, |state| state != State::Starting);
        match state {
            Some(State::Ready | State::InTurn | State::Draining) => Ok(()),
            Some(_) => Err(self.start_failure().into()),
            None => {
                self.reactor.post(Command::Kill { id: self.id });
                Err(Stopped::Interrupted)
            }
        }
    }

    /// Why the agent never became ready.
    pub fn start_failure(&self) -> Error {
        let (failure, ending) = {
            let view = self.shared.view();
            (view.failure.clone(), view.ending)
        };
        self.subject(|subject| match (&failure, ending) {
            (Some(failure), _) => subject.failed_to_start(failure),
            (None, Some(end)) => subject.ended("before it was ready", end.code, end.signal),
            (None, None) => subject.ended("before it was ready", -1, 0),
        })
    }

    /// One turn: sends the prompt and waits for its `result`. `uuid` names the prompt.
    ///
    /// # Errors
    /// A turn in flight, a time-out, the agent's end, or the caller's own wish to stop, after
    /// which the turn is interrupted and the session stays usable.
    pub fn execute(
        &self,
        prompt: String,
        uuid: String,
        limit: Option<Duration>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Turn, Stopped> {
        // A turn whose caller was interrupted ends within a few seconds, one way or the other.
        while self
            .shared
            .wait(SLICE, |view| {
                (!view.state.is_in_turn() || !view.abandoned).then_some(())
            })
            .is_none()
        {
            if interrupted() {
                return Err(Stopped::Interrupted);
            }
        }
        let turn = self.begin_turn(prompt, uuid, limit)?;
        loop {
            let end = self.shared.wait(SLICE, |view| {
                let end = if view.turn == turn {
                    view.turn_ends.pop_front()
                } else {
                    None
                };
                match end {
                    None if view.state.is_over() || view.turn != turn => Some(TurnEnd::Ended),
                    end => end,
                }
            });
            match end {
                Some(end) => return self.turn_of(end),
                None if interrupted() => {
                    self.abandon();
                    return Err(Stopped::Interrupted);
                }
                None => {}
            }
        }
    }

    /// Begins a turn and does not wait; returns its number.
    ///
    /// # Errors
    /// A turn in flight, or an agent that has ended.
    pub fn begin_turn(
        &self,
        prompt: String,
        uuid: String,
        limit: Option<Duration>,
    ) -> Result<u64, Stopped> {
        let begun = self.shared.change(|view| match *view.state {
            // Its caller is about to take its end.
            State::Ready if !view.turn_ends.is_empty() && !view.abandoned => Err(true),
            State::Ready => {
                view.state.go(State::InTurn);
                view.turn += 1;
                // Nobody waits for that of an abandoned turn.
                view.turn_ends.clear();
                view.abandoned = false;
                Ok(view.turn)
            }
            State::InTurn | State::WaitingForPermission | State::Starting => Err(true),
            State::Draining | State::Ended | State::SpawnFailed => Err(false),
        });
        let turn = match begun {
            Ok(turn) => turn,
            Err(true) => {
                return Err(Stopped::Busy {
                    agent_id: self.agent_id().to_string(),
                });
            }
            Err(false) => return Err(self.ended_error("before this turn").into()),
        };
        self.reactor.post(Command::Turn {
            id: self.id,
            prompt,
            uuid,
            limit,
        });
        Ok(turn)
    }

    /// The bridge's word was heard: what happens from now on is told again. Nothing when only events
    /// came.
    pub fn heard(&self) -> Option<Heard> {
        if !self.shared.heard() {
            return None;
        }
        let view = self.shared.view();
        let over = view.state.is_over();
        let mut turns = view.turn_ends.len();
        if turns == 0 && over && !self.is_run.load(Ordering::Acquire) {
            turns = 1;
        }
        Some((over, view.state.name(), turns, !view.answers.is_empty()))
    }

    /// The end of the turn in flight, once it has one.
    ///
    /// # Errors
    /// A time-out, or the end of a session.
    pub fn take_turn(&self) -> Result<Option<Turn>, Stopped> {
        let (end, more) = {
            let mut view = self.shared.view();
            let end = match view.turn_ends.pop_front() {
                None if view.state.is_over() && !self.is_run.load(Ordering::Acquire) => {
                    Some(TurnEnd::Ended)
                }
                end => end,
            };
            (end, !view.turn_ends.is_empty())
        };
        if more {
            self.shared.tell_changed();
        }
        end.map(|end| self.turn_of(end)).transpose()
    }

    fn turn_of(&self, end: TurnEnd) -> Result<Turn, Stopped> {
        match end {
            TurnEnd::Result {
                frame,
                cost_before,
                refused,
            } => Ok(Turn {
                frame,
                cost_before,
                refused,
            }),
            TurnEnd::TimedOut {
                which,
                seconds,
                alive,
            } => Err(self
                .subject(|subject| subject.turn_timed_out(which, seconds, alive))
                .into()),
            TurnEnd::Ended => Err(self.ended_error("during a turn").into()),
        }
    }

    /// Answers of the CLI to the host's own requests, and what it said of the service.
    pub fn take_answers(&self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.shared.view().answers)
    }

    /// One of what it said of the service has been acted upon.
    pub fn noted(&self) {
        if let Some(line) = self.shared.standby() {
            line.heard(1);
        }
    }

    /// Answers an ask of the CLI with a whole line.
    pub fn answer(&self, ask: String, line: Vec<u8>) {
        self.reactor.post(Command::Answer {
            id: self.id,
            ask,
            line,
        });
    }

    /// Writes a whole line to the CLI.
    pub fn write(&self, line: Vec<u8>) {
        self.reactor.post(Command::Write { id: self.id, line });
    }

    /// Ends the agent's input, once all of it is written; does not wait.
    pub fn end_input(&self) {
        self.reactor.post(Command::EndInput { id: self.id });
    }

    /// Begins to end the agent and does not wait; see [`Handle::shutdown`].
    pub fn begin_shutdown(&self, grace: Duration) {
        self.reactor.post(Command::Shutdown { id: self.id, grace });
    }

    /// Nobody waits for the turn in flight any more: it is stopped, or the agent ended.
    pub fn abandon(&self) {
        self.shared.change(|view| view.abandoned = true);
        self.reactor.post(Command::Abandon { id: self.id });
    }

    /// Asks the CLI to stop the turn in flight, if there is one; does not wait.
    pub fn interrupt(&self) {
        self.reactor.post(Command::Interrupt { id: self.id });
    }

    /// Ends the agent: end of input, SIGTERM after half of `grace`, force after all of it.
    ///
    /// # Errors
    /// A tree that is still there after force (uninterruptible processes).
    pub fn shutdown(
        &self,
        grace: Duration,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Ending, Stopped> {
        self.begin_shutdown(grace);
        self.wait_until_over(grace + FORCE_PATIENCE, interrupted)
    }

    /// Ends the agent at once; does not wait.
    pub fn kill(&self) {
        self.reactor.post(Command::Kill { id: self.id });
    }

    fn wait_until_over(
        &self,
        patience: Duration,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<Ending, Stopped> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(ending) = self
                .shared
                .wait(SLICE, |view| view.state.is_over().then_some(view.ending))
            {
                return Ok(ending.unwrap_or_default());
            }
            if interrupted() {
                return Err(Stopped::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(not_ended(&self.agent_id(), patience).into());
            }
        }
    }

    fn wait(
        &self,
        interrupted: &mut dyn FnMut() -> bool,
        mut done: impl FnMut(State) -> bool,
    ) -> Option<State> {
        loop {
            if let Some(state) = self
                .shared
                .wait(SLICE, |view| done(*view.state).then_some(*view.state))
            {
                return Some(state);
            }
            if interrupted() {
                return None;
            }
        }
    }

    fn ended_error(&self, doing: &str) -> Error {
        let ending = self.shared.view().ending;
        self.subject(|subject| match ending {
            Some(ending) => subject.ended(doing, ending.code, ending.signal),
            None => subject.ended(doing, -1, 0),
        })
    }

    fn subject<T>(&self, describe: impl FnOnce(&Subject<'_>) -> T) -> T {
        let (pid, stderr, refused, reason) = {
            let view = self.shared.view();
            let stderr = String::from_utf8_lossy(&view.stderr).into_owned();
            (view.pid, stderr, view.refused.clone(), view.reason.clone())
        };
        let agent_id = self.agent_id();
        describe(&Subject {
            agent_id: &agent_id,
            program: &self.program,
            directory: &self.directory,
            pid,
            stderr: &stderr,
            refused: refused.as_ref(),
            reason: reason.as_deref(),
        })
    }

    /// The caller's name of this agent.
    pub fn agent_id(&self) -> Arc<str> {
        self.shared.agent_id()
    }

    /// When the spawn was asked for.
    pub fn started(&self) -> Instant {
        self.shared.view().started
    }

    /// The view that other threads share.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Nobody can reach the agent any more, so it must not live on.
        if !self.reactor.is_ours() {
            return; // a forked copy: its locks may be held by nobody
        }
        self.withdraw();
        for (id, _) in self.take_answers() {
            if id == NOTICE {
                self.noted();
            }
        }
        if !self.shared.view().state.is_over() {
            self.reactor.post(Command::Kill { id: self.id });
        }
    }
}

fn program_bytes<'a>(argv: &[&'a [u8]]) -> &'a [u8] {
    argv.first().copied().unwrap_or_default()
}
