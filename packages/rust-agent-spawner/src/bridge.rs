//! Tells an event loop which agents have news: one eventfd per loop, rung once per batch.
//!
//! The reactor never attaches to an interpreter: it notes the agent's number here, and the loop's
//! own thread comes and takes all numbers at once.

use crate::descriptor::Descriptor;
use crate::run_queue::RunQueue;
use rustix::event::EventfdFlags;
use rustix::fd::AsRawFd;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The news of one event loop.
#[derive(Debug)]
pub struct Bridge {
    bell: Descriptor,
    news: Mutex<News>,
    is_late: AtomicBool,
    run_queue: RunQueue,
}

#[derive(Debug, Default)]
struct News {
    numbers: Vec<u64>,
    /// When the first of them came.
    since: Option<Instant>,
    /// When the loop had done with the last ones.
    rested: Option<Instant>,
    /// When the loop was last found to be late.
    late: Option<Instant>,
    /// When somebody last asked whether it is.
    asked: Option<Instant>,
    /// Whether its thread's waits for a processor are counted.
    is_watched: bool,
}

/// A loop that had nothing to do, and comes so long after its bell rang, shares its interpreter with
/// a thread that computes: that costs the switch interval, 5 ms unless somebody has changed it.
///
/// What it waited for a processor is not counted: nobody is faster where there is none.
const LATE: Duration = Duration::from_millis(3);

/// A loop that was late is taken to be late again: it is found so only when it had nothing to do.
const STAYS_LATE: Duration = Duration::from_millis(200);

/// So late is a loop that waited for the interpreter; other work of the machine makes it less late.
const VERY_LATE: Duration = Duration::from_micros(4500);

impl Bridge {
    /// A bridge without news.
    ///
    /// # Errors
    /// No descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            bell: rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?.into(),
            news: Mutex::default(),
            is_late: AtomicBool::new(false),
            run_queue: RunQueue::default(),
        })
    }

    /// What the loop is to watch for reading.
    pub fn descriptor(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    /// Notes that an agent has news.
    pub fn note(&self, number: u64) {
        let (first, is_watched) = {
            let mut news = self.news();
            news.numbers.push(number);
            let first = news.since.is_none();
            news.since.get_or_insert_with(Instant::now);
            (first, news.is_watched)
        };
        if first {
            // From the news on: what the loop waited for before has made nobody late.
            if is_watched {
                self.run_queue.begin();
            }
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Takes the numbers of all agents with news.
    pub fn take(&self) -> Vec<u64> {
        let mut count = [0_u8; 8];
        // Silenced before the list is taken: a note that comes between rings again.
        let _ = rustix::io::read(&self.bell, &mut count);
        let mut news = self.news();
        let idle_since = news
            .since
            .take()
            .filter(|since| news.rested.is_some_and(|rested| rested <= *since));
        let mut lateness = idle_since.map_or(Duration::ZERO, |since| since.elapsed());
        if lateness >= LATE {
            lateness = lateness.saturating_sub(self.run_queue.waited());
        }
        self.is_late.store(lateness >= LATE, Ordering::Relaxed);
        if lateness >= VERY_LATE {
            news.late = Some(Instant::now());
        }
        std::mem::take(&mut news.numbers)
    }

    /// The loop has done with what it took.
    pub fn rest(&self) {
        let mut news = self.news();
        let now = Instant::now();
        news.rested = Some(now);
        // System calls, which only who asks has a use for.
        news.is_watched = news.asked.is_some_and(|asked| now - asked < STAYS_LATE);
        if news.is_watched {
            self.run_queue.follow();
        } else {
            self.run_queue.leave();
        }
    }

    /// Whether the loop came late for the news that it took last.
    pub fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// Whether the loop was late a short time ago.
    pub fn was_late(&self) -> bool {
        let mut news = self.news();
        let now = Instant::now();
        news.asked = Some(now);
        news.late.is_some_and(|late| now - late < STAYS_LATE)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn a_loop_that_had_nothing_to_do_and_comes_late_is_late() {
        let bridge = Bridge::new().expect("a descriptor");
        bridge.note(1);
        assert_eq!(bridge.take(), [1]);
        assert!(!bridge.is_late(), "it came at once");
        bridge.rest();
        bridge.note(2);
        bridge.note(3);
        sleep(VERY_LATE);
        assert_eq!(bridge.take(), [2, 3]);
        assert!(bridge.is_late() && bridge.was_late());
        bridge.rest();
        assert!(bridge.take().is_empty());
        assert!(!bridge.is_late(), "nobody had rung");
        assert!(bridge.was_late(), "a moment ago");
        sleep(STAYS_LATE);
        assert!(!bridge.was_late());
    }

    #[test]
    fn a_loop_that_waits_for_the_interpreter_is_late_also_when_it_is_watched() {
        let bridge = Bridge::new().expect("a descriptor");
        assert!(!bridge.was_late());
        bridge.rest();
        bridge.note(1);
        // As a wait for the interpreter: asleep, not in line for a processor.
        sleep(2 * VERY_LATE);
        assert_eq!(bridge.take(), [1]);
        assert!(bridge.is_late() && bridge.was_late());
    }

    #[test]
    fn what_a_loop_waited_for_before_the_bell_rang_excuses_nothing() {
        let bridge = Bridge::new().expect("a descriptor");
        assert!(!bridge.was_late());
        bridge.rest();
        let processor = rustix::thread::sched_getcpu();
        let computes = move || {
            let mut only = rustix::thread::CpuSet::new();
            only.set(processor);
            rustix::thread::sched_setaffinity(None, &only).expect("a processor of ours");
            let until = Instant::now() + Duration::from_millis(200);
            while Instant::now() < until {}
        };
        let other = std::thread::spawn(computes);
        let everywhere = rustix::thread::sched_getaffinity(None).expect("our own");
        computes();
        rustix::thread::sched_setaffinity(None, &everywhere).expect("as before");
        other.join().expect("it does not panic");
        bridge.note(1);
        sleep(2 * VERY_LATE);
        assert_eq!(bridge.take(), [1]);
        assert!(bridge.is_late() && bridge.was_late());
    }

    #[test]
    fn a_loop_that_was_at_work_when_the_bell_rang_is_not_late() {
        let bridge = Bridge::new().expect("a descriptor");
        bridge.note(1);
        assert_eq!(bridge.take(), [1]);
        bridge.note(2);
        sleep(LATE);
        bridge.rest();
        assert_eq!(bridge.take(), [2]);
        assert!(!bridge.is_late());
    }
}
