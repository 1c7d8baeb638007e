//! Responsible for many files at once: each is worked on by one of several threads, and each has an
//! outcome of its own, in the order in which they were given.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Beyond this threads wait for each other more than for the disk.
const MOST: usize = 32;

/// The outcomes of `work` on each of `0..count`, by `threads` threads or as many as are useful.
pub fn each<T: Send>(
    count: usize,
    threads: Option<usize>,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    // More than there are processors: some of them wait for the disk.
    let useful = || std::thread::available_parallelism().map_or(1, usize::from) + 4;
    let threads = threads.unwrap_or_else(useful).min(count).clamp(1, MOST);
    let next = AtomicUsize::new(0);
    let outcomes: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let run = || {
        loop {
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
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_unstable_by_key(|(number, _)| *number);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::each;

    #[test]
    fn outcomes_come_in_order_whoever_made_them() {
        for threads in [None, Some(1), Some(7), Some(1000)] {
            let squares = each(100, threads, |number| number * number);
            assert_eq!(squares, (0..100).map(|n| n * n).collect::<Vec<_>>());
        }
        assert!(each(0, None, |number| number).is_empty());
    }
}
