//! Responsible for handing what threads find to one consumer: in bounded memory, as soon as it
//! waits, and until it no longer wants it.
//!
//! A full stream makes the threads wait; a dropped one ends and joins them. After a `fork` the
//! child has the stream without its threads, and perhaps a lock that one of them held: there
//! every call is refused at once and nothing is locked or joined.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, getpid};
use vespera_error::{Error, Result};

use super::engine::{Engine, Visitor};

/// So much waits for the consumer before the threads do.
const MAX_WAITING: usize = 4 << 20;
/// So many problems are kept by name; all are counted.
const MAX_PROBLEMS: usize = 1000;
/// So often a waiting consumer looks whether it was interrupted.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Something that could not be read.
#[derive(Debug, Clone)]
pub struct Problem {
    pub path: PathBuf,
    pub errno: i32,
}

/// What a piece of results weighs, in bytes.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

/// The consumer's end. `B` is a batch of results.
pub(crate) struct Stream<B: Weight + Send + 'static> {
    shared: Arc<Shared<B>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// The process that has the threads.
    owner: Pid,
    /// Wakes threads that wait for work; taken when they are told to end.
    wake: Mutex<Option<Wake>>,
}

/// What is there for the consumer.
enum Polled<B> {
    Batch(B),
    Nothing,
    End,
}

type Wake = Box<dyn FnOnce() + Send>;

/// What the threads put their batches into.
pub(crate) struct Shared<B> {
    state: Mutex<State<B>>,
    filled: Condvar,
    room: Condvar,
    stop: Arc<AtomicBool>,
    hungry: AtomicBool,
}

struct State<B> {
    waiting: VecDeque<B>,
    weight: usize,
    working: usize,
    panicked: bool,
    problems: Vec<Problem>,
    problem_count: usize,
}

impl<B: Weight> Shared<B> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                weight: 0,
                working: 0,
                panicked: false,
                problems: Vec::new(),
                problem_count: 0,
            }),
            filled: Condvar::new(),
            room: Condvar::new(),
            stop: Arc::default(),
            hungry: AtomicBool::new(false),
        }
    }

    /// Set when nothing more is wanted.
    pub(crate) fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// Whether the consumer waits: what was found should be sent, little as it may be.
    pub(crate) fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed)
    }

    /// Hand over a batch, and wait while the consumer has enough.
    pub(crate) fn send(&self, batch: B) -> ControlFlow<()> {
        let mut state = self.lock();
        while state.weight > MAX_WAITING && !self.stop.load(Ordering::Relaxed) {
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if self.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        state.weight += batch.weight();
        state.waiting.push_back(batch);
        self.hungry.store(false, Ordering::Relaxed);
        self.filled.notify_one();
        ControlFlow::Continue(())
    }

    pub(crate) fn problem(&self, path: PathBuf, errno: Errno) {
        let mut state = self.lock();
        state.problem_count += 1;
        if state.problems.len() < MAX_PROBLEMS {
            let errno = errno.raw_os_error();
            state.problems.push(Problem { path, errno });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that may send; the last one to end tells the consumer.
struct Working<B: Weight>(Arc<Shared<B>>);

impl<B: Weight> Drop for Working<B> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.working -= 1;
        state.panicked |= std::thread::panicking();
        self.0.filled.notify_all();
    }
}

impl<B: Weight + Send + 'static> Stream<B> {
    /// Start threads that walk; `shared` is what the engine's visitor sends to.
    pub(crate) fn start<V: Visitor>(
        engine: Engine<V>,
        shared: Arc<Shared<B>>,
        threads: usize,
    ) -> Result<Self> {
        let engine = Arc::new(engine);
        let mut started = Vec::new();
        for _ in 0..threads {
            shared.lock().working += 1;
            let working = Working(Arc::clone(&shared));
            let walker = Arc::clone(&engine);
            let work = move || {
                let _working = working;
                walker.work(usize::MAX);
            };
            match std::thread::Builder::new()
                .name("vespera-find".into())
                .spawn(work)
            {
                Ok(thread) => started.push(thread),
                // Fewer do as well, but not none.
                Err(error) if started.is_empty() => {
                    return Err(Error::io("start a thread", None, error));
                }
                Err(_) => break,
            }
        }
        Ok(Self {
            shared,
            threads: Mutex::new(started),
            owner: getpid(),
            // The engine goes with it, and with the engine its open directories.
            wake: Mutex::new(Some(Box::new(move || engine.end()))),
        })
    }

    /// The next batch, `None` at the end. `interrupted` is asked while it waits.
    pub(crate) fn next<E>(
        &self,
        failed: impl Fn(Error) -> E,
        mut interrupted: impl FnMut() -> std::result::Result<(), E>,
    ) -> std::result::Result<Option<B>, E> {
        self.require_owner().map_err(&failed)?;
        loop {
            match self.poll().map_err(&failed)? {
                Polled::Batch(batch) => return Ok(Some(batch)),
                Polled::End => return Ok(None),
                Polled::Nothing => interrupted()?,
            }
        }
    }

    /// What is there within a moment.
    fn poll(&self) -> Result<Polled<B>> {
        let mut state = self.shared.lock();
        if state.waiting.is_empty() && state.working > 0 && !self.is_stopped() {
            self.shared.hungry.store(true, Ordering::Relaxed);
            (state, _) = self
                .shared
                .filled
                .wait_timeout(state, LOOK_UP)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if self.is_stopped() {
            return Ok(Polled::End);
        }
        if let Some(batch) = state.waiting.pop_front() {
            state.weight -= batch.weight();
            if state.weight <= MAX_WAITING {
                self.shared.room.notify_all();
            }
            return Ok(Polled::Batch(batch));
        }
        if state.panicked {
            return Err(Error::internal(
                "a thread of this search failed; please report it with the arguments",
            ));
        }
        Ok(if state.working == 0 {
            Polled::End
        } else {
            Polled::Nothing
        })
    }

    pub(crate) fn problems(&self) -> Result<(Vec<Problem>, usize)> {
        self.require_owner()?;
        let state = self.shared.lock();
        Ok((state.problems.clone(), state.problem_count))
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// End the threads; afterwards there is nothing more.
    pub(crate) fn close(&self) {
        if getpid() != self.owner {
            return;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        {
            let mut state = self.shared.lock();
            state.waiting.clear();
            state.weight = 0;
            self.shared.room.notify_all();
            self.shared.filled.notify_all();
        }
        let wake = self
            .wake
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(wake) = wake {
            wake();
        }
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic was told by `poll`.
            let _ = thread.join();
        }
    }

    fn require_owner(&self) -> Result<()> {
        if getpid() == self.owner {
            return Ok(());
        }
        let message = format!(
            "this search belongs to process {}, which forked; start one in this process",
            self.owner.as_raw_nonzero()
        );
        Err(Error::internal(message))
    }
}

impl<B: Weight + Send + 'static> Drop for Stream<B> {
    fn drop(&mut self) {
        if getpid() == self.owner {
            self.close();
            return;
        }
        // The threads are not in this process: joining them would wait for ever, and what they
        // used may be locked. It stays as it is until the process ends.
        let threads = self
            .threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(threads)
            .into_iter()
            .for_each(std::mem::forget);
        std::mem::forget(Arc::clone(&self.shared));
        let wake = self.wake.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::forget(wake.take());
    }
}
