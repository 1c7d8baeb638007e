//! What other threads see of an agent, and how they wait for it.

use super::claude::Verdict;
use super::queue::{Overflow, Queue};
use crate::bridge::Bridge;
use crate::standby::Standby;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vespera_guardian::{EndedBy, Stage};

/// How much of an agent's stderr is kept, in bytes.
const STDERR_KEPT: usize = 64 * 1024;

/// Where a session stands; [`State::may_become`] is the whole of its moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    InTurn,
    /// In a turn that waits until the host has decided about a tool.
    WaitingForPermission,
    Draining,
    Ended,
    SpawnFailed,
}

impl State {
    /// The contract's word.
    pub const fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Ready => "ready",
            State::InTurn => "in_turn",
            State::WaitingForPermission => "waiting_for_permission",
            State::Draining => "draining",
            State::Ended => "ended",
            State::SpawnFailed => "spawn_failed",
        }
    }

    /// True when nothing of the agent is left.
    pub const fn is_over(self) -> bool {
        matches!(self, State::Ended | State::SpawnFailed)
    }

    /// True while a prompt has no result yet.
    pub const fn is_in_turn(self) -> bool {
        matches!(self, State::InTurn | State::WaitingForPermission)
    }

    /// The moves that there are; the Python twin is `backends/python/moves.py`.
    pub const fn may_become(self, next: State) -> bool {
        use State::{Draining, Ended, InTurn, Ready, SpawnFailed, Starting, WaitingForPermission};
        match self {
            Starting => matches!(next, Ready | InTurn | Draining | Ended | SpawnFailed),
            Ready => matches!(next, InTurn | Draining | Ended | SpawnFailed),
            InTurn => matches!(
                next,
                Ready | WaitingForPermission | Draining | Ended | SpawnFailed
            ),
            WaitingForPermission => matches!(next, InTurn | Ready | Draining | Ended | SpawnFailed),
            Draining => matches!(next, Ended | SpawnFailed),
            Ended | SpawnFailed => false,
        }
    }
}

/// The state of one agent. It is read as a [`State`]; only [`Course::go`] changes it, so that no
/// move happens that is not in the table.
#[derive(Debug)]
pub struct Course(State);

impl Course {
    /// Moves, if that move exists; says whether it did.
    pub fn go(&mut self, next: State) -> bool {
        let moves = self.0.may_become(next);
        if moves {
            self.0 = next;
        }
        moves
    }
}

impl Deref for Course {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

/// Why a session never became ready.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// The program did not start.
    Spawn { errno: i32, stage: Stage },
    /// It ended before it answered.
    Exited { code: i32, signal: i32 },
    /// It did not answer within this many seconds.
    Silent { seconds: f64 },
    /// It took none of its input for this many seconds.
    Deaf { seconds: f64 },
    /// Its time was over before it was ready: `timeouts.total`, in seconds.
    Late { seconds: f64 },
    /// It refused `initialize` with these words.
    Refused { message: String },
    /// The guardian is gone.
    GuardianLost,
}

/// What the service answers instead of the model: who is to blame, and in which words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The contract's outcome: `auth_failed`, `rate_limited` or `failed`.
    pub outcome: &'static str,
    pub words: String,
}

/// How a turn ended.
#[derive(Clone, Debug)]
pub enum TurnEnd {
    /// A `result` frame, and the session's cost before it. `refused`: we stopped the turn for
    /// that reason, so the frame only says that it was stopped.
    Result {
        frame: Vec<u8>,
        cost_before: Option<f64>,
        refused: Option<Refused>,
    },
    /// A limit of time passed: which one, after how many seconds; the session lives on if `alive`.
    TimedOut {
        which: &'static str,
        seconds: f64,
        alive: bool,
    },
    /// The process ended first.
    Ended,
}

/// How the process ended and what was left of its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub code: i32,
    pub signal: i32,
    pub by: EndedBy,
    /// What the kernel ended it for, when that is known.
    pub cause: Option<Cause>,
    pub killed: u32,
    pub survivors: u32,
    /// CPU time of the whole tree.
    pub cpu: Option<Duration>,
}

impl Default for Ending {
    /// Of an agent whose process never was.
    fn default() -> Self {
        Self {
            code: -1,
            signal: 0,
            by: EndedBy::Itself,
            cause: None,
            killed: 0,
            survivors: 0,
            cpu: None,
        }
    }
}

/// Why the kernel ended an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The machine, or a cgroup that is not ours, had no memory left.
    OutOfMemory,
    MemoryLimit,
    ProcessLimit,
    CpuLimit,
    FileSizeLimit,
}

impl Cause {
    /// The limit's name in the configuration; `memory` of the machine is no limit of ours.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::OutOfMemory => "oom",
            Cause::MemoryLimit => "memory",
            Cause::ProcessLimit => "processes",
            Cause::CpuLimit => "cpu_seconds",
            Cause::FileSizeLimit => "file_size",
        }
    }
}

/// A snapshot under the lock.
#[derive(Debug)]
pub struct View {
    pub state: Course,
    /// When it was asked for, or got its owner.
    pub started: Instant,
    pub pid: i32,
    pub leash: i32,
    pub session_id: String,
    pub failure: Option<Failure>,
    pub turn: u64,
    /// Ends of turns that nobody has taken: more than one when a run's background task answers.
    pub turn_ends: VecDeque<TurnEnd>,
    /// What the service answered last, while it has not answered otherwise.
    pub refused: Option<Refused>,
    /// The caller of the turn in flight was interrupted: nobody waits for its result.
    pub abandoned: bool,
    pub outcome: Option<&'static str>,
    pub turns: u64,
    /// Of the session, as the CLI told it last: what its earlier processes cost is in it.
    pub total_cost_usd: Option<f64>,
    /// Tokens in and out, as results tell.
    pub tokens: [u64; 2],
    /// What the session had cost before this process.
    pub restored_usd: f64,
    pub ending: Option<Ending>,
    /// The last rung of the ladder that was stepped on, in the contract's words.
    pub rung: Option<&'static str>,
    pub reason: Option<Cow<'static, str>>,
    /// Processes that outlived force, each described.
    pub survivors: Vec<String>,
    pub stderr: Vec<u8>,
    /// Seconds from the start to the first frame of the model.
    pub first_output: Option<Instant>,
    /// The last line that was not empty, of a program that says nothing but lines.
    pub last_line: Vec<u8>,
    /// Why the transcript is not whole.
    pub transcript_lost: Option<String>,
    /// Asks of the CLI that the host answers, as whole frames.
    pub asks: Vec<Vec<u8>>,
    /// Answers of the CLI to the host's own requests, id and frame; under the id [`NOTICE`] what
    /// it says of the service unasked.
    pub answers: Vec<(String, Vec<u8>)>,
}

impl View {
    /// What this process has cost.
    pub fn cost_usd(&self) -> Option<f64> {
        self.total_cost_usd
            .map(|total| (total - self.restored_usd).max(0.0))
    }

    /// The same, and tokens in and out.
    pub fn spent(&self) -> (f64, u64, u64) {
        let [taken, given] = self.tokens;
        (self.cost_usd().unwrap_or(0.0), taken, given)
    }

    /// A `result` counts, whoever began its turn and however that is called.
    pub fn account(&mut self, verdict: &Verdict) {
        self.turns += 1;
        self.total_cost_usd = verdict.total_cost_usd.or(self.total_cost_usd);
        for (sum, more) in self.tokens.iter_mut().zip(verdict.tokens) {
            *sum = sum.saturating_add(more);
        }
    }
}

/// News for the event loop: the view changed; events came.
const CHANGED: u8 = 1;
const EVENTS: u8 = 2;
/// The id of an answer that nobody asked for.
pub const NOTICE: &str = "";

/// The view and the bell that rings whenever it changed.
#[derive(Debug)]
pub struct Shared {
    agent_id: Mutex<Arc<str>>,
    view: Mutex<View>,
    changed: Condvar,
    /// Threads in `wait`: a wake-up that nobody waits for costs a system call all the same.
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    /// Whether anybody takes events; without a listener none is kept.
    listening: AtomicBool,
    /// The event loop that is told of news, and the agent's number there.
    bridge: Option<(Arc<Bridge>, u64)>,
    /// News that the loop has not come for yet, as bits: it is told once.
    told: AtomicU8,
    /// Who may have its place next.
    standby: Option<Arc<Standby>>,
}

impl Shared {
    /// A session that is about to start.
    pub fn new(session_id: String) -> Self {
        Self::with_events(session_id, Overflow::Spill, 0, None)
    }

    /// A session whose news and events an event loop takes; `limit` bounds the events on disk.
    pub fn with_events(
        session_id: String,
        overflow: Overflow,
        limit: u64,
        bridge: Option<(Arc<Bridge>, u64)>,
    ) -> Self {
        Self {
            agent_id: Mutex::new("".into()),
            queue: Mutex::new(Queue::new(overflow, limit)),
            listening: AtomicBool::new(false),
            bridge,
            told: AtomicU8::new(0),
            standby: None,
            view: Mutex::new(View {
                state: Course(State::Starting),
                started: Instant::now(),
                pid: 0,
                leash: 0,
                session_id,
                failure: None,
                turn: 0,
                turn_ends: VecDeque::new(),
                refused: None,
                abandoned: false,
                outcome: None,
                turns: 0,
                total_cost_usd: None,
                tokens: [0; 2],
                restored_usd: 0.0,
                ending: None,
                rung: None,
                reason: None,
                survivors: Vec::new(),
                stderr: Vec::new(),
                first_output: None,
                last_line: Vec::new(),
                transcript_lost: None,
                asks: Vec::new(),
                answers: Vec::new(),
            }),
            changed: Condvar::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The same, with the caller's name of the agent.
    #[must_use]
    pub fn named(self, agent_id: &str) -> Self {
        Self {
            agent_id: Mutex::new(agent_id.into()),
            ..self
        }
    }

    /// The same, in a fleet whose runs follow each other.
    #[must_use]
    pub fn followed_by(self, standby: Option<Arc<Standby>>) -> Self {
        Self { standby, ..self }
    }

    /// Who may have its place next.
    pub fn standby(&self) -> Option<&Arc<Standby>> {
        self.standby.as_ref()
    }

    /// The caller's name of the agent.
    pub fn agent_id(&self) -> Arc<str> {
        Arc::clone(&self.agent_id.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A waiting process gets an owner, who calls it so.
    pub fn rename(&self, agent_id: &str) {
        *self.agent_id.lock().unwrap_or_else(PoisonError::into_inner) = agent_id.into();
    }

    /// The view, locked: hold it for a few lines only, the reactor waits for it.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view and wakes whoever waits for it.
    pub fn change<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        let value = change(&mut self.view());
        // Whoever waits counted itself under the lock that was just held.
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.changed.notify_all();
        }
        self.tell_changed();
        value
    }

    /// Changes what nobody on an event loop waits for: it is found when it is asked for.
    pub fn change_silently(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view());
        if self.waiting.load(Ordering::Acquire) > 0 {
            self.changed.notify_all();
        }
    }

    /// Tells the event loop that there are events. Of a flood it is told after several reads: it
    /// would come for each event of 64 KiB.
    pub fn tell_events(&self) {
        if self.is_listening() {
            self.tell(EVENTS);
        }
    }

    /// Tells the event loop that there is more than events.
    pub fn tell_changed(&self) {
        self.tell(CHANGED);
    }

    fn tell(&self, what: u8) {
        if let Some((bridge, number)) = &self.bridge
            && self.told.fetch_or(what, Ordering::AcqRel) == 0
        {
            bridge.note(*number);
        }
    }

    /// Whether an event loop takes the agent's news.
    pub fn is_bridged(&self) -> bool {
        self.bridge.is_some()
    }

    /// The event loop came for the news; what happens from now on is told again. True when more
    /// than events changed.
    pub fn heard(&self) -> bool {
        self.told.swap(0, Ordering::AcqRel) & CHANGED != 0
    }

    /// Begins or ends to keep events. True when the agent may have waited for their reader.
    pub fn listen(&self, listening: bool) -> bool {
        self.listening.store(listening, Ordering::Release);
        if listening {
            return false;
        }
        let mut queue = self.queue();
        let was_full = queue.is_full();
        queue.clear();
        was_full
    }

    /// Whether events are kept.
    pub fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Acquire)
    }

    /// The undelivered events, locked.
    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits at most `limit` until `ready` gives a value.
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut ready: impl FnMut(&mut View) -> Option<T>,
    ) -> Option<T> {
        let mut value = None;
        let view = self.view();
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let (_guard, _) = self
            .changed
            .wait_timeout_while(view, limit, |view| {
                value = ready(view);
                value.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        value
    }

    /// Keeps the last bytes of stderr.
    pub fn note_stderr(&self, bytes: &[u8]) {
        let kept = &mut self.view().stderr;
        kept.extend_from_slice(bytes);
        let surplus = kept.len().saturating_sub(STDERR_KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_leads_back_from_the_end() {
        use State::{Draining, Ended, InTurn, Ready, SpawnFailed, Starting, WaitingForPermission};
        let all = [
            Starting,
            Ready,
            InTurn,
            WaitingForPermission,
            Draining,
            Ended,
            SpawnFailed,
        ];
        for state in all {
            assert!(!state.may_become(Starting) && !state.may_become(state));
            assert_eq!(
                all.iter().any(|next| state.may_become(*next)),
                !state.is_over()
            );
        }
        let mut course = Course(Draining);
        assert!(!course.go(Ready) && course.go(Ended) && !course.go(SpawnFailed));
        assert_eq!(*course, Ended);
    }
}
