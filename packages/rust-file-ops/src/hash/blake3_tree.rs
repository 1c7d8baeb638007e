//! Responsible for BLAKE3 of a large file by several threads: each takes the next block, which is
//! a subtree of the hash, and the subtrees are joined in the end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

use crate::interrupt::Interrupt;

/// A power of two, as a subtree must be; with what a thread has beside it in its cache.
const BLOCK: usize = 1 << 18;
/// Below this a thread costs more than it hashes.
const PER_THREAD: u64 = 1 << 20;

/// The hash of the first `size` bytes; nothing if the file is too small to share, or ended before:
/// then it is read from its start to its end.
pub(super) fn hash(
    file: &File,
    size: u64,
    threads: usize,
    interrupt: &Interrupt<'_>,
) -> io::Result<Option<String>> {
    let Ok(blocks) = usize::try_from(size.div_ceil(BLOCK as u64)) else {
        return Ok(None);
    };
    let worth = usize::try_from(size / PER_THREAD).unwrap_or(usize::MAX);
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(available).min(worth);
    if threads < 2 || blocks < 2 {
        return Ok(None);
    }
    let work = Work {
        file,
        size,
        interrupt,
        next: AtomicUsize::new(0),
        values: Mutex::new(vec![[0; 32]; blocks]),
    };
    let complete = std::thread::scope(|scope| {
        // Where the system gives no more threads, those that there are do as well.
        let others: Vec<_> = (1..threads)
            .map_while(|_| Builder::new().spawn_scoped(scope, || work.run()).ok())
            .collect();
        let mut outcome = work.run();
        for other in others {
            let theirs = other
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            outcome = outcome.and_then(|complete| Ok(theirs? && complete));
        }
        outcome
    })?;
    if !complete {
        return Ok(None);
    }
    let values = work
        .values
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let (left, right) = values.split_at(left_blocks(blocks));
    let root = merge_subtrees_root(&join(left), &join(right), Mode::Hash);
    Ok(Some(root.to_hex().to_string()))
}

struct Work<'a> {
    file: &'a File,
    size: u64,
    interrupt: &'a Interrupt<'a>,
    next: AtomicUsize,
    values: Mutex<Vec<ChainingValue>>,
}

impl Work<'_> {
    /// Hash blocks until there are none; false if the file is shorter than it was.
    fn run(&self) -> io::Result<bool> {
        let mut block = vec![0; BLOCK];
        loop {
            self.interrupt.check()?;
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let start = number as u64 * BLOCK as u64;
            if start >= self.size {
                return Ok(true);
            }
            let length = usize::try_from(self.size - start)
                .unwrap_or(BLOCK)
                .min(BLOCK);
            match self.file.read_exact_at(&mut block[..length], start) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(error) => return Err(error),
            }
            let value = Hasher::new()
                .set_input_offset(start)
                .update(&block[..length])
                .finalize_non_root();
            self.values
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)[number] = value;
        }
    }
}

/// All but the last block are full, so the tree over the blocks has the shape of that over chunks.
fn left_blocks(blocks: usize) -> usize {
    blocks.next_power_of_two() / 2
}

fn join(values: &[ChainingValue]) -> ChainingValue {
    match values {
        [one] => *one,
        more => {
            let (left, right) = more.split_at(left_blocks(more.len()));
            merge_subtrees_non_root(&join(left), &join(right), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_give_the_same_hash_as_one() {
        let path = std::env::temp_dir().join(format!("vespera-tree-{}", std::process::id()));
        let step = BLOCK as u64;
        for size in [9, 15, 16, 17]
            .map(|blocks| blocks * step)
            .into_iter()
            .flat_map(|size| [size - 1, size, size + 1])
        {
            let content: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
            std::fs::write(&path, &content).expect("written");
            let file = File::open(&path).expect("opened");
            for threads in [2, 3] {
                let found = hash(&file, size, threads, &Interrupt::never()).expect("read");
                if std::thread::available_parallelism().is_ok_and(|there| there.get() > 1) {
                    let wanted = blake3::hash(&content).to_hex().to_string();
                    assert_eq!(found, Some(wanted), "{size} by {threads}");
                }
            }
            assert_eq!(
                hash(&file, size * 2, 2, &Interrupt::never()).expect("read"),
                None,
                "it is shorter"
            );
        }
        std::fs::remove_file(&path).expect("removed");
    }
}
