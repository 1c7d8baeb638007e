//! What other threads see of an agent, and how they wait for it.

use super::claude::Retry;
use super::queue::{Overflow, Queue};
use crate::bridge::Bridge;
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vespera_guardian::{EndedBy, Stage};

/// How much of an agent's stderr is kept, in bytes.
const STDERR_KEPT: usize = 64 * 1024;

/// Where a session stands; it only moves downwards, but for `Ready` ⇄ `InTurn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Starting,
    Ready,
    InTurn,
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
            State::Draining => "draining",
            State::Ended => "ended",
            State::SpawnFailed => "spawn_failed",
        }
    }

    /// True when nothing of the agent is left.
    pub const fn is_over(self) -> bool {
        matches!(self, State::Ended | State::SpawnFailed)
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
    /// Its time was over before it was ready: `timeouts.total`, in seconds.
    Late { seconds: f64 },
    /// It refused `initialize` with these words.
    Refused { message: String },
    /// The guardian is gone.
    GuardianLost,
}

/// How a turn ended.
#[derive(Clone, Debug)]
pub enum TurnEnd {
    /// A `result` frame, and the session's cost before it.
    Result {
        frame: Vec<u8>,
        cost_before: Option<f64>,
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
    pub state: State,
    pub pid: i32,
    pub leash: i32,
    pub session_id: String,
    pub failure: Option<Failure>,
    pub turn: u64,
    pub turn_end: Option<TurnEnd>,
    /// The caller of the turn in flight was interrupted: nobody waits for its result.
    pub abandoned: bool,
    pub outcome: Option<&'static str>,
    /// What the CLI tries again, since its last result.
    pub retrying: Option<Retry>,
    pub turns: u64,
    pub total_cost_usd: Option<f64>,
    pub ending: Option<Ending>,
    /// The last rung of the ladder that was stepped on, in the contract's words.
    pub rung: Option<&'static str>,
    pub reason: Option<Cow<'static, str>>,
    /// Processes that outlived force, each described.
    pub survivors: Vec<String>,
    pub stderr: Vec<u8>,
    pub events: u64,
    pub output_bytes: u64,
    /// Seconds from the start to the first frame of the model.
    pub first_output: Option<Instant>,
    /// The last line that was not empty, of a program that says nothing but lines.
    pub last_line: Vec<u8>,
    /// Why the transcript is not whole.
    pub transcript_lost: Option<String>,
    /// Asks of the CLI that the host answers, as whole frames.
    pub asks: Vec<Vec<u8>>,
    /// Answers of the CLI to the host's own requests: id and frame.
    pub answers: Vec<(String, Vec<u8>)>,
}

/// The view and the bell that rings whenever it changed.
#[derive(Debug)]
pub struct Shared {
    view: Mutex<View>,
    changed: Condvar,
    queue: Mutex<Queue>,
    /// Whether anybody takes events; without a listener none is kept.
    listening: AtomicBool,
    /// The event loop that is told of news, and the agent's number there.
    bridge: Option<(Arc<Bridge>, u64)>,
    /// News that the loop has not come for yet: it is told once.
    told: AtomicBool,
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
            queue: Mutex::new(Queue::new(overflow, limit)),
            listening: AtomicBool::new(false),
            bridge,
            told: AtomicBool::new(false),
            view: Mutex::new(View {
                state: State::Starting,
                pid: 0,
                leash: 0,
                session_id,
                failure: None,
                turn: 0,
                turn_end: None,
                abandoned: false,
                outcome: None,
                retrying: None,
                turns: 0,
                total_cost_usd: None,
                ending: None,
                rung: None,
                reason: None,
                survivors: Vec::new(),
                stderr: Vec::new(),
                events: 0,
                output_bytes: 0,
                first_output: None,
                last_line: Vec::new(),
                transcript_lost: None,
                asks: Vec::new(),
                answers: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// The view, locked: hold it for a few lines only, the reactor waits for it.
    pub fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the view and wakes whoever waits for it.
    pub fn change<T>(&self, change: impl FnOnce(&mut View) -> T) -> T {
        let value = change(&mut self.view());
        self.changed.notify_all();
        self.tell();
        value
    }

    /// Tells the event loop that there is news.
    pub fn tell(&self) {
        if let Some((bridge, number)) = &self.bridge
            && !self.told.swap(true, Ordering::AcqRel)
        {
            bridge.note(*number);
        }
    }

    /// The event loop came for the news; what happens from now on is told again.
    pub fn heard(&self) {
        self.told.store(false, Ordering::Release);
    }

    /// Begins or ends to keep events.
    pub fn listen(&self, listening: bool) {
        self.listening.store(listening, Ordering::Release);
        if !listening {
            self.queue().clear();
        }
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
        let (_guard, _) = self
            .changed
            .wait_timeout_while(self.view(), limit, |view| {
                value = ready(view);
                value.is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
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
