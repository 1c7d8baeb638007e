//! Responsible for ending long work early: the thread that the caller waits in asks now and then
//! whether the call was interrupted, and every thread that works for it stops at its next piece.
//!
//! Only that thread asks, as Python handles signals in its main thread alone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// So often it is asked, in milliseconds: asking takes the interpreter from another thread.
const LOOK_UP_MS: u64 = 50;
pub(crate) const LOOK_UP: Duration = Duration::from_millis(LOOK_UP_MS);

/// Whether a call is to go on.
pub struct Interrupt<'a> {
    ask: &'a (dyn Fn() -> bool + Sync),
    asking: ThreadId,
    began: Instant,
    /// Milliseconds from then to when it was asked last.
    asked: AtomicU64,
    stopped: AtomicBool,
}

/// The call was interrupted. Whoever asked knows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupted;

impl<'a> Interrupt<'a> {
    /// For a call of this thread; `ask` tells whether it was interrupted.
    pub fn new(ask: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self {
            ask,
            asking: std::thread::current().id(),
            began: Instant::now(),
            asked: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        }
    }

    /// For a call that nothing interrupts.
    pub fn never() -> Interrupt<'static> {
        Interrupt::new(&|| false)
    }

    /// To be called between pieces of work.
    pub fn check(&self) -> Result<(), Interrupted> {
        if !self.stopped.load(Ordering::Relaxed) && self.is_due() && (self.ask)() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        if self.stopped.load(Ordering::Relaxed) {
            return Err(Interrupted);
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        if std::thread::current().id() != self.asking {
            return false;
        }
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let due = now >= self.asked.load(Ordering::Relaxed) + LOOK_UP_MS;
        if due {
            self.asked.store(now, Ordering::Relaxed);
        }
        due
    }
}

impl From<Interrupted> for std::io::Error {
    fn from(_: Interrupted) -> Self {
        Errno::CANCELED.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Interrupt, Interrupted, LOOK_UP};

    #[test]
    fn only_the_thread_that_waits_asks_and_all_are_told() {
        let ask = || true;
        let interrupt = Interrupt::new(&ask);
        let elsewhere = || std::thread::scope(|scope| scope.spawn(|| interrupt.check()).join());
        std::thread::sleep(LOOK_UP);
        assert_eq!(elsewhere().expect("no panic"), Ok(()));
        assert_eq!(interrupt.check(), Err(Interrupted));
        assert_eq!(elsewhere().expect("no panic"), Err(Interrupted));
        assert_eq!(Interrupt::never().check(), Ok(()));
    }
}
