//! Responsible for many files at once: each is worked on by one of several threads, and each has an
//! outcome of its own, in the order in which they were given.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use crate::interrupt::{Interrupt, Interrupted, LOOK_UP};

/// Beyond this threads wait for each other more than for the disk.
const MOST: usize = 32;

/// The outcomes of `work` on each of `0..count`, by `threads` threads or as many as are useful. Once
/// interrupted no more is begun.
pub fn each<T: Send>(
    count: usize,
    threads: Option<usize>,
    interrupt: &Interrupt<'_>,
    work: impl Fn(usize) -> T + Sync,
) -> Result<Vec<T>, Interrupted> {
    // More than there are processors: some of them wait for the disk.
    let useful = || std::thread::available_parallelism().map_or(1, usize::from) + 4;
    let threads = threads.unwrap_or_else(useful).min(count).clamp(1, MOST);
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let run = || {
        while interrupt.check().is_ok() {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let outcome = work(number);
            outcomes
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push((number, outcome));
        }
    };
    let others = Others::default();
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let working = others.working();
            let work = || {
                let _working = working;
                run();
            };
            // Where the system gives no more threads, those that there are do as well.
            if Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        run();
        others.wait(interrupt);
    });
    interrupt.check()?;
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_unstable_by_key(|(number, _)| *number);
    Ok(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
}

/// The threads beside the caller's, which asks meanwhile whether it was interrupted.
#[derive(Default)]
struct Others {
    working: Mutex<usize>,
    ended: Condvar,
}

impl Others {
    fn working(&self) -> Working<'_> {
        *self.lock() += 1;
        Working(self)
    }

    fn wait(&self, interrupt: &Interrupt<'_>) {
        let mut working = self.lock();
        while *working > 0 {
            (working, _) = self
                .ended
                .wait_timeout(working, LOOK_UP)
                .unwrap_or_else(PoisonError::into_inner);
            drop(working);
            // They stop by themselves, and are waited for.
            let _ = interrupt.check();
            working = self.lock();
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Working<'a>(&'a Others);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::each;
    use crate::interrupt::{Interrupt, Interrupted, LOOK_UP};

    #[test]
    fn outcomes_come_in_order_whoever_made_them() {
        for threads in [None, Some(1), Some(7), Some(1000)] {
            let squares = each(100, threads, &Interrupt::never(), |number| number * number);
            assert_eq!(squares, Ok((0..100).map(|n| n * n).collect::<Vec<_>>()));
        }
        assert_eq!(each(0, None, &Interrupt::never(), |n| n), Ok(Vec::new()));
    }

    #[test]
    fn nothing_more_is_begun_once_it_is_interrupted() {
        let ask = || true;
        let interrupt = Interrupt::new(&ask);
        let begun = super::AtomicUsize::new(0);
        let outcome = each(1_000_000, Some(2), &interrupt, |_| {
            begun.fetch_add(1, super::Ordering::Relaxed);
            std::thread::sleep(LOOK_UP / 5);
        });
        assert_eq!(outcome, Err(Interrupted));
        assert!(begun.into_inner() < 1000);
    }
}
