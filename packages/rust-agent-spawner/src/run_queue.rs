//! How long a thread was ready to run and had no processor (`run_delay` of schedstat).
//!
//! A thread that comes late has waited for somebody: for the machine, which is nobody's fault, or
//! for a lock such as the interpreter's. The kernel tells the two apart.
//! Source: Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".

use crate::descriptor::{Descriptor, making};
use rustix::fs::{Mode, OFlags};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

/// The waiting of one thread at a time: an event loop may run on one after the other.
#[derive(Debug, Default)]
pub struct RunQueue(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whose account is looked at: the kernel tells it to every thread that reads the file.
    file: Option<(ThreadId, Descriptor)>,
    begun: Option<(ThreadId, Duration)>,
}

impl RunQueue {
    /// The calling thread is the one whose waits count.
    pub fn follow(&self) {
        let mut inner = self.inner();
        let thread = std::thread::current().id();
        inner.begun = None;
        if inner.file.as_ref().is_none_or(|(by, _)| *by != thread) {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let _making = making();
            let file = rustix::fs::open(c"/proc/thread-self/schedstat", flags, Mode::empty());
            inner.file = file.ok().map(|file| (thread, file.into()));
        }
    }

    /// From here on the waits of the thread that is followed are counted; any thread may say so.
    pub fn begin(&self) {
        let mut inner = self.inner();
        inner.begun = inner.delay();
    }

    /// Nothing is counted any more.
    pub fn leave(&self) {
        self.inner().begun = None;
    }

    /// How long the calling thread has waited for a processor since that began; zero where it has
    /// not, or where the kernel keeps no such account.
    pub fn waited(&self) -> Duration {
        let mut inner = self.inner();
        let thread = std::thread::current().id();
        let begun = inner.begun.take().filter(|(by, _)| *by == thread);
        begun
            .and_then(|(_, begun)| Some(inner.delay()?.1.saturating_sub(begun)))
            .unwrap_or_default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn delay(&self) -> Option<(ThreadId, Duration)> {
        let (thread, file) = self.file.as_ref()?;
        let mut text = [0_u8; 96];
        let length = rustix::io::pread(file, &mut text, 0).ok()?;
        // Time on a processor, time in line for one, times on one.
        let word = text[..length].split(|byte| *byte == b' ').nth(1)?;
        let nanoseconds = std::str::from_utf8(word).ok()?.parse().ok()?;
        Some((*thread, Duration::from_nanos(nanoseconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_thread_that_sleeps_waits_for_no_processor() {
        let queue = RunQueue::default();
        queue.follow();
        queue.begin();
        std::thread::sleep(Duration::from_millis(50));
        assert!(queue.waited() < Duration::from_millis(40));
        assert_eq!(queue.waited(), Duration::ZERO, "it was asked for already");
    }

    #[test]
    fn a_thread_that_shares_its_processor_waits_for_it() {
        let processor = rustix::thread::sched_getcpu();
        let computes = move || {
            let mut only = rustix::thread::CpuSet::new();
            only.set(processor);
            rustix::thread::sched_setaffinity(None, &only).expect("a processor of ours");
            let until = Instant::now() + Duration::from_millis(300);
            while Instant::now() < until {}
        };
        let other = std::thread::spawn(computes);
        let waits = std::thread::spawn(move || {
            let queue = RunQueue::default();
            queue.follow();
            queue.begin();
            computes();
            queue.waited()
        });
        let waited = waits.join().expect("it does not panic");
        other.join().expect("it does not panic");
        assert!(waited > Duration::from_millis(50), "{waited:?}");
    }

    #[test]
    fn what_one_thread_began_no_other_counts() {
        let queue = RunQueue::default();
        queue.follow();
        queue.begin();
        let other = std::thread::scope(|scope| scope.spawn(|| queue.waited()).join());
        assert_eq!(other.expect("it does not panic"), Duration::ZERO);
    }
}
