//! Memory for long lines, used again and again: fresh memory of this size costs the kernel a page
//! fault for every 4 KiB of a stream, more than reading it does.

use super::stream::READ;
use bytes::Bytes;
use std::sync::Mutex;

/// Bytes of a block: the rest of a read, and another whole one.
pub const BLOCK: usize = 2 * READ;

/// So many wait at most, of the whole process.
const MOST_FREE: usize = 16;

static FREE: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// An empty block.
pub fn take() -> Vec<u8> {
    // Nobody waits for the lock: a forked child may have a copy that nobody ever opens.
    let free = FREE.try_lock().ok().and_then(|mut free| free.pop());
    free.unwrap_or_else(|| Vec::with_capacity(BLOCK))
}

/// Takes back a block that nobody uses; anything else is just dropped.
pub fn give_back(mut block: Vec<u8>) {
    if block.capacity() == BLOCK
        && let Ok(mut free) = FREE.try_lock()
        && free.len() < MOST_FREE
    {
        block.clear();
        free.push(block);
    }
}

/// Nobody is left who would need one.
pub fn clear() {
    if let Ok(mut free) = FREE.try_lock() {
        *free = Vec::new();
    }
}

/// What is in a block, to be read by many; it comes back when the last of them is gone.
pub fn freeze(block: Vec<u8>) -> Bytes {
    struct Frozen(Vec<u8>);

    impl AsRef<[u8]> for Frozen {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Frozen {
        fn drop(&mut self) {
            give_back(std::mem::take(&mut self.0));
        }
    }

    if block.capacity() == BLOCK {
        Bytes::from_owner(Frozen(block))
    } else {
        block.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a block is among the free ones when its last reader is gone.
    fn comes_back() -> bool {
        let mut block = take();
        block.extend_from_slice(b"long");
        let place = block.as_ptr();
        let bytes = freeze(block);
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_eq!(part, b"on".as_slice());
        let other = take();
        assert_ne!(other.as_ptr(), place, "somebody reads it");
        drop(part);
        let free: Vec<Vec<u8>> = std::iter::repeat_with(take).take(MOST_FREE + 1).collect();
        assert!(
            free.iter()
                .all(|block| block.is_empty() && block.capacity() == BLOCK)
        );
        free.iter().any(|block| block.as_ptr() == place)
    }

    #[test]
    fn a_block_is_used_again_when_its_last_reader_is_gone() {
        // Other tests share the free ones, and may have the lock or take this one: not each time.
        assert!((0..100).any(|_| comes_back()));
    }

    #[test]
    fn other_memory_is_not_kept() {
        let bytes = freeze(b"short".to_vec());
        assert_eq!(bytes, b"short".as_slice());
        give_back(Vec::with_capacity(BLOCK + 1));
        assert_eq!(take().capacity(), BLOCK);
    }
}
