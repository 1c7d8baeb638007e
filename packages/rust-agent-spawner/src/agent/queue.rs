//! The events of one agent that its consumer has not taken yet: in order, bounded in memory.
//!
//! Over the bound the overflow mode decides: `Spill` writes on to an unlinked private file,
//! `DropOldest` forgets and counts, `Block` tells the reactor to stop reading.

use super::claude::Kind;
use super::details::Spans;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

/// Bytes of undelivered events that one agent keeps in memory.
pub const IN_MEMORY: usize = 4 * 1024 * 1024;

/// What happens to events over [`IN_MEMORY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    Spill,
    DropOldest,
    Block,
}

/// One line of output as it was read, without its newline.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub kind: Kind,
    /// Often a slice of what one read gave: who keeps it long copies it.
    pub raw: Bytes,
    /// Length of the line in bytes: more than `raw` for an oversize one.
    pub length: u64,
    pub received_at: SystemTime,
    /// Where the frame's fields stand in `raw`.
    pub spans: Spans,
}

/// Where an event on disk has its bytes; its `raw` is empty meanwhile.
#[derive(Clone, Copy, Debug)]
struct Spilled {
    at: u64,
    length: usize,
}

#[derive(Debug)]
struct Entry {
    event: Event,
    spilled: Option<Spilled>,
}

/// What a push did beyond keeping the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Kept,
    /// More on disk than `limits.output` allows, or a disk that takes no more.
    OverLimit,
}

/// Undelivered events.
#[derive(Debug)]
pub struct Queue {
    entries: VecDeque<Entry>,
    overflow: Overflow,
    limit: u64,
    in_memory: usize,
    file: Option<File>,
    written: u64,
    /// Events forgotten by `DropOldest`.
    pub dropped: u64,
    /// Bytes written to disk.
    pub spilled: u64,
}

impl Queue {
    /// An empty queue that may hold `limit` bytes on disk.
    pub fn new(overflow: Overflow, limit: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            overflow,
            limit,
            in_memory: 0,
            file: None,
            written: 0,
            dropped: 0,
            spilled: 0,
        }
    }

    /// True when the reactor must stop reading.
    pub fn is_full(&self) -> bool {
        self.overflow == Overflow::Block && self.in_memory >= IN_MEMORY
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps an event.
    pub fn push(&mut self, mut event: Event) -> Pushed {
        let over = self.in_memory + event.raw.len() > IN_MEMORY;
        let mut spilled = None;
        if over && self.overflow == Overflow::Spill {
            match self.spill(&event.raw) {
                Ok(Some(place)) => spilled = Some(place),
                Ok(None) | Err(_) => return Pushed::OverLimit,
            }
            event.raw = Bytes::new();
        } else {
            if over && self.overflow == Overflow::DropOldest {
                self.forget(event.raw.len());
            }
            self.in_memory += event.raw.len();
        }
        self.entries.push_back(Entry { event, spilled });
        Pushed::Kept
    }

    fn forget(&mut self, wanted: usize) {
        while self.in_memory + wanted > IN_MEMORY
            && let Some(oldest) = self.entries.pop_front()
        {
            self.in_memory -= oldest.event.raw.len();
            self.dropped += 1;
            crate::metrics::DROPPED.add(1);
        }
    }

    fn spill(&mut self, raw: &[u8]) -> io::Result<Option<Spilled>> {
        if self.written + raw.len() as u64 > self.limit {
            return Ok(None);
        }
        if self.file.is_none() {
            self.file = Some(private_file()?);
        }
        let at = self.written;
        if let Some(file) = &self.file {
            file.write_all_at(raw, at)?;
        }
        self.written += raw.len() as u64;
        self.spilled += raw.len() as u64;
        crate::metrics::SPILLED.add(raw.len() as u64);
        Ok(Some(Spilled {
            at,
            length: raw.len(),
        }))
    }

    /// Takes up to `limit` events, oldest first.
    ///
    /// # Errors
    /// A disk that does not give back what it took.
    pub fn take(&mut self, limit: usize) -> io::Result<Vec<Event>> {
        let count = limit.min(self.entries.len());
        let mut events = Vec::with_capacity(count);
        for Entry { mut event, spilled } in self.entries.drain(..count) {
            if let Some(Spilled { at, length }) = spilled {
                let mut bytes = vec![0; length];
                if let Some(file) = &self.file {
                    file.read_exact_at(&mut bytes, at)?;
                }
                event.raw = bytes.into();
            } else {
                self.in_memory -= event.raw.len();
            }
            events.push(event);
        }
        if self.entries.is_empty() {
            // An emptied file gives its blocks back, and the next burst starts from zero.
            self.file = None;
            self.written = 0;
            self.entries.shrink_to(64);
        }
        Ok(events)
    }

    /// Forgets everything: nobody will ask.
    pub fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.in_memory = 0;
        self.file = None;
        self.written = 0;
    }
}

/// A file without a name, so that no crash leaves it behind, readable by its owner alone.
fn private_file() -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let directory = std::env::temp_dir();
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(&directory, flags | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
        return Ok(fd.into());
    }
    // NFS and some overlays have no O_TMPFILE.
    let name = directory.join(format!(
        "vespera-spill-{}-{:?}",
        std::process::id(),
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    ));
    let fd = rustix::fs::open(
        &name,
        flags | OFlags::CREATE | OFlags::EXCL,
        Mode::RUSR | Mode::WUSR,
    )?;
    std::fs::remove_file(&name)?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(first: u8, size: usize) -> Event {
        Event {
            kind: Kind::Other,
            raw: vec![first; size].into(),
            length: size as u64,
            received_at: SystemTime::UNIX_EPOCH,
            spans: Spans::default(),
        }
    }

    fn taken(queue: &mut Queue) -> Vec<u8> {
        let events = queue.take(usize::MAX).expect("a working disk");
        events.iter().map(|event| event.raw[0]).collect()
    }

    #[test]
    fn events_over_the_bound_wait_on_disk_in_order() {
        let mut queue = Queue::new(Overflow::Spill, 1 << 30);
        for number in 0..12_u8 {
            assert_eq!(queue.push(event(number, 1 << 20)), Pushed::Kept);
        }
        assert_eq!(queue.spilled, 8 << 20);
        assert_eq!(taken(&mut queue), (0..12).collect::<Vec<u8>>());
        assert!(queue.is_empty() && queue.file.is_none());
    }

    #[test]
    fn more_than_the_limit_on_disk_is_refused() {
        let mut queue = Queue::new(Overflow::Spill, 1 << 20);
        for _ in 0..5 {
            assert_eq!(queue.push(event(0, 1 << 20)), Pushed::Kept);
        }
        assert_eq!(queue.push(event(0, 1 << 20)), Pushed::OverLimit);
    }

    #[test]
    fn the_oldest_are_dropped_and_counted() {
        let mut queue = Queue::new(Overflow::DropOldest, 0);
        for number in 0..6_u8 {
            queue.push(event(number, 1 << 20));
        }
        assert_eq!(queue.dropped, 2);
        assert_eq!(taken(&mut queue), [2, 3, 4, 5]);
    }

    #[test]
    fn block_says_when_it_is_full_and_loses_nothing() {
        let mut queue = Queue::new(Overflow::Block, 0);
        for number in 0..5_u8 {
            queue.push(event(number, 1 << 20));
        }
        assert!(queue.is_full());
        assert_eq!(taken(&mut queue), [0, 1, 2, 3, 4]);
        assert!(!queue.is_full());
    }
}
