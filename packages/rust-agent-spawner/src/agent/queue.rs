//! The events of one agent that its consumer has not taken yet: in order, bounded in memory.
//!
//! Over the bound the overflow mode decides: `Spill` writes on to an unlinked private file,
//! `DropOldest` forgets and counts, `Block` tells the reactor to stop reading. What was spilled
//! comes back in stretches ([`Queue::stretch`]), read by whoever takes events, without the lock.

use super::claude::Kind;
use super::details::Spans;
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes of undelivered events that one agent keeps in memory.
pub const IN_MEMORY: usize = 4 * 1024 * 1024;

/// Bytes that come back from the disk in one read.
const STRETCH: usize = 1024 * 1024;

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

/// Where an event that is spilled has its bytes among all that was spilled; its `raw` is empty
/// meanwhile.
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

/// Bytes that go to the disk in one write.
const BUFFER: usize = 64 * 1024;

/// A file in which so much, and more than half, was read is written on in another: it gives
/// nothing back before its end, and a reader that keeps up never comes to one.
const RENEWED: u64 = 16 * 1024 * 1024;

/// One file of what was spilled.
#[derive(Debug)]
struct Spool {
    file: Arc<File>,
    /// The place of its first byte.
    from: u64,
}

/// A piece of a file, of the oldest events that wait.
#[derive(Debug)]
pub struct Stretch {
    file: Arc<File>,
    at: u64,
    length: usize,
    events: usize,
}

impl Stretch {
    /// Its bytes; the only thing here that waits for a disk.
    ///
    /// # Errors
    /// A disk that does not give back what it took.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut bytes = vec![0; self.length];
        self.file.read_exact_at(&mut bytes, self.at)?;
        Ok(bytes.into())
    }
}

/// Undelivered events.
#[derive(Debug)]
pub struct Queue {
    entries: VecDeque<Entry>,
    overflow: Overflow,
    limit: u64,
    in_memory: usize,
    /// At most two: the older one is read to its end.
    files: VecDeque<Spool>,
    /// The place behind what is in a file.
    written: u64,
    /// What comes after that, and is not written yet.
    unwritten: Vec<u8>,
    /// Bytes that are spilled and not taken.
    waiting: u64,
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
            files: VecDeque::new(),
            written: 0,
            unwritten: Vec::new(),
            waiting: 0,
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

    /// Of which kinds those are that wait.
    pub fn kinds(&self) -> BTreeSet<&'static str> {
        let kinds = self.entries.iter().map(|entry| entry.event.kind.name());
        kinds.map(Option::unwrap_or_default).collect()
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keeps an event.
    ///
    /// # Errors
    /// More on disk than `limits.output` allows, or a disk that takes no more, in words.
    pub fn push(&mut self, mut event: Event) -> Result<(), String> {
        let over = self.in_memory + event.raw.len() > IN_MEMORY;
        let mut spilled = None;
        if over && self.overflow == Overflow::Spill {
            spilled = Some(self.spill(&event.raw)?);
            event.raw = Bytes::new();
        } else {
            if over && self.overflow == Overflow::DropOldest {
                self.forget(event.raw.len());
            }
            self.in_memory += event.raw.len();
        }
        self.entries.push_back(Entry { event, spilled });
        Ok(())
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

    fn spill(&mut self, raw: &[u8]) -> Result<Spilled, String> {
        let waiting = self.waiting + raw.len() as u64;
        if waiting > self.limit {
            return Err(format!(
                "limits.output: {} of undelivered events on disk, of {}",
                vespera_config::format_size(waiting),
                vespera_config::format_size(self.limit)
            ));
        }
        let at = self.write(raw).map_err(|error| {
            format!("limits.output: the disk takes no more of its undelivered events: {error}")
        })?;
        self.waiting = waiting;
        self.spilled += raw.len() as u64;
        crate::metrics::SPILLED.add(raw.len() as u64);
        Ok(Spilled {
            at,
            length: raw.len(),
        })
    }

    /// Writes behind what was spilled before; gives the place.
    fn write(&mut self, raw: &[u8]) -> io::Result<u64> {
        if self.wants_file() {
            match private_file() {
                Ok(file) => self.files.push_back(Spool {
                    file: Arc::new(file),
                    from: self.written,
                }),
                Err(error) if self.files.is_empty() => return Err(error),
                // The old one goes on growing.
                Err(_) => {}
            }
        }
        if let Some(Spool { file, from }) = self.files.back()
            && self.unwritten.len() + raw.len() > BUFFER
        {
            file.write_all_at(&self.unwritten, self.written - from)?;
            self.written += self.unwritten.len() as u64;
            self.unwritten.clear();
        }
        let at = self.end();
        if let Some(Spool { file, from }) = self.files.back()
            && raw.len() > BUFFER
        {
            file.write_all_at(raw, at - from)?;
            self.written += raw.len() as u64;
        } else {
            self.unwritten.extend_from_slice(raw);
        }
        Ok(at)
    }

    fn wants_file(&self) -> bool {
        match (self.files.front(), self.files.len()) {
            (Some(only), 1) => {
                let read = self.end() - only.from - self.waiting;
                read >= RENEWED.max(self.waiting)
            }
            (None, _) => true,
            _ => false,
        }
    }

    fn end(&self) -> u64 {
        self.written + self.unwritten.len() as u64
    }

    /// What is to be read from the disk before the oldest event can be taken; give it back with
    /// [`Queue::restore`].
    pub fn stretch(&mut self) -> Option<Stretch> {
        let first = self.entries.front()?.spilled?;
        if first.at >= self.written {
            self.unspill();
            return None;
        }
        if self
            .files
            .get(1)
            .is_some_and(|newer| first.at >= newer.from)
        {
            self.files.pop_front();
        }
        let end = self.files.get(1).map_or(self.written, |newer| newer.from);
        let spool = self.files.front()?;
        let (mut length, mut events) = (first.length, 1);
        for Spilled { at, length: more } in self.entries.iter().skip(1).map_while(|one| one.spilled)
        {
            if at >= end || at != first.at + length as u64 || length + more > STRETCH {
                break;
            }
            length += more;
            events += 1;
        }
        Some(Stretch {
            file: Arc::clone(&spool.file),
            at: first.at - spool.from,
            length,
            events,
        })
    }

    /// The bytes of a stretch are in memory again; one that was forgotten meanwhile changes nothing.
    pub fn restore(&mut self, stretch: &Stretch, bytes: Bytes) {
        let spool = self.files.front();
        let same = spool.filter(|spool| Arc::ptr_eq(&spool.file, &stretch.file));
        let first = self.entries.front().and_then(|one| one.spilled);
        if let (Some(spool), Some(first)) = (same, first)
            && first.at == spool.from + stretch.at
        {
            self.give_back(bytes, stretch.events);
        }
    }

    /// What never reached the file needs not be read from it.
    fn unspill(&mut self) {
        let bytes = std::mem::take(&mut self.unwritten);
        // Nothing is in a file after them, and nothing will be: they count as written there.
        self.written += bytes.len() as u64;
        self.give_back(bytes.into(), usize::MAX);
    }

    /// The first events that are spilled get their bytes.
    fn give_back(&mut self, mut bytes: Bytes, events: usize) {
        self.in_memory += bytes.len();
        self.waiting -= bytes.len() as u64;
        for entry in self.entries.iter_mut().take(events) {
            if let Some(Spilled { length, .. }) = entry.spilled.take() {
                entry.event.raw = bytes.split_to(length);
            }
        }
    }

    /// Takes up to `limit` events, oldest first, as far as they are in memory.
    pub fn take(&mut self, limit: usize) -> Vec<Event> {
        let ready = self.entries.iter().take(limit);
        let count = ready.take_while(|entry| entry.spilled.is_none()).count();
        let entries = self.entries.drain(..count);
        let events: Vec<Event> = entries.map(|entry| entry.event).collect();
        self.in_memory -= events.iter().map(|event| event.raw.len()).sum::<usize>();
        if self.entries.is_empty() {
            // An emptied file gives its blocks back, and the next burst starts from zero.
            self.forget_files();
            self.entries.shrink_to(64);
        }
        events
    }

    /// Forgets everything: nobody will ask.
    pub fn clear(&mut self) {
        self.entries = VecDeque::new();
        self.in_memory = 0;
        self.forget_files();
    }

    fn forget_files(&mut self) {
        self.files.clear();
        self.written = 0;
        self.unwritten = Vec::new();
        self.waiting = 0;
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

    fn keep(queue: &mut Queue, event: Event) {
        assert_eq!(queue.push(event), Ok(()));
    }

    fn taken(queue: &mut Queue) -> Vec<u8> {
        let mut first_bytes = Vec::new();
        while !queue.is_empty() {
            if let Some(stretch) = queue.stretch() {
                let bytes = stretch.read().expect("a working disk");
                queue.restore(&stretch, bytes);
            }
            let events = queue.take(usize::MAX);
            first_bytes.extend(events.iter().map(|event| event.raw[0]));
        }
        first_bytes
    }

    #[test]
    fn events_over_the_bound_wait_on_disk_in_order() {
        let mut queue = Queue::new(Overflow::Spill, 1 << 30);
        for number in 0..12_u8 {
            assert_eq!(queue.push(event(number, 1 << 20)), Ok(()));
        }
        assert_eq!(queue.spilled, 8 << 20);
        assert_eq!(taken(&mut queue), (0..12).collect::<Vec<u8>>());
        assert!(queue.is_empty() && queue.files.is_empty());
    }

    #[test]
    fn small_events_are_written_and_read_together() {
        const SMALL: usize = BUFFER / 32;
        let mut queue = Queue::new(Overflow::Spill, 1 << 30);
        keep(&mut queue, event(0, IN_MEMORY - 10));
        for number in 1..200_u8 {
            keep(&mut queue, event(number, SMALL));
        }
        assert!(queue.stretch().is_none(), "the oldest is in memory");
        assert_eq!(queue.take(10).len(), 1);
        keep(&mut queue, event(200, 11));
        let stretch = queue.stretch().expect("the oldest is on disk");
        assert_eq!((stretch.at, stretch.length), (0, 192 * SMALL));
        let bytes = stretch.read().expect("a working disk");
        queue.restore(&stretch, bytes);
        assert_eq!(queue.in_memory, 192 * SMALL + 11);
        assert_eq!(queue.take(500).len(), 192);
        // Six are in no file yet, and what is spilled meanwhile comes after them.
        keep(&mut queue, event(201, IN_MEMORY - 11));
        keep(&mut queue, event(202, SMALL));
        assert_eq!(taken(&mut queue), (193..=202).collect::<Vec<u8>>());
        assert_eq!(queue.in_memory, 0);
    }

    #[test]
    fn what_is_spilled_again_is_not_mixed_with_what_was_given_back() {
        let mut queue = Queue::new(Overflow::Spill, 1 << 30);
        keep(&mut queue, event(0, IN_MEMORY));
        keep(&mut queue, event(1, 100));
        assert_eq!(queue.take(1).len(), 1);
        keep(&mut queue, event(2, IN_MEMORY));
        assert!(queue.stretch().is_none(), "it was in no file yet");
        keep(&mut queue, event(3, 200));
        keep(&mut queue, event(4, BUFFER + 1));
        assert_eq!(taken(&mut queue), [1, 2, 3, 4]);
    }

    #[test]
    fn an_empty_line_is_spilled_too() {
        let mut queue = Queue::new(Overflow::Spill, 1 << 30);
        keep(&mut queue, event(0, IN_MEMORY));
        keep(&mut queue, event(1, BUFFER + 1));
        queue.take(1);
        keep(&mut queue, event(2, IN_MEMORY));
        let stretch = queue.stretch().expect("the oldest is on disk");
        queue.restore(&stretch, stretch.read().expect("a working disk"));
        keep(&mut queue, event(3, 0));
        assert!(queue.entries[2].spilled.is_some());
        assert_eq!(queue.take(3).len(), 2);
        assert!(queue.stretch().is_none());
        assert_eq!(queue.take(3).len(), 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_stretch_that_was_forgotten_meanwhile_changes_nothing() {
        let mut queue = Queue::new(Overflow::Spill, 1 << 30);
        let fill = |queue: &mut Queue, first: u8| {
            for number in 0..6 {
                keep(queue, event(first + number, 1 << 20));
            }
            queue.take(4);
        };
        fill(&mut queue, 0);
        let old = queue.stretch().expect("the oldest is on disk");
        let bytes = old.read().expect("a working disk");
        queue.clear();
        fill(&mut queue, 10);
        queue.restore(&old, bytes);
        assert_eq!(taken(&mut queue), [14, 15]);
    }

    #[test]
    fn a_reader_that_keeps_up_needs_little_room() {
        const SIZE: usize = 100_000;
        let mut queue = Queue::new(Overflow::Spill, 8 << 20);
        let (mut seen, mut next) = (Vec::new(), 0_u8);
        let on_disk = |queue: &Queue| {
            let size = |spool: &Spool| spool.file.metadata().map_or(0, |file| file.len());
            queue.files.iter().map(size).sum::<u64>()
        };
        let mut most = 0;
        // Never more than ten megabytes wait, of a hundred.
        for _ in 0..1_000 {
            keep(&mut queue, event(next, SIZE));
            next = next.wrapping_add(1);
            while queue.len() > 100 {
                if let Some(stretch) = queue.stretch() {
                    let bytes = stretch.read().expect("a working disk");
                    queue.restore(&stretch, bytes);
                }
                seen.extend(queue.take(1).iter().map(|event| event.raw[0]));
            }
            most = most.max(on_disk(&queue));
        }
        seen.extend(taken(&mut queue));
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(1_000).collect();
        assert_eq!(seen, sent);
        assert!(queue.spilled > 50 << 20);
        assert!(most < 40 << 20, "{most} bytes in files");
        assert_eq!(queue.waiting, 0);
    }

    #[test]
    fn more_than_the_limit_on_disk_is_refused() {
        let mut queue = Queue::new(Overflow::Spill, 2 << 20);
        for _ in 0..5 {
            assert_eq!(queue.push(event(0, 1 << 20)), Ok(()));
        }
        assert_eq!(
            queue.push(event(0, 3 << 19)),
            Err("limits.output: 2.5 MiB of undelivered events on disk, of 2.0 MiB".into())
        );
    }

    #[test]
    fn the_oldest_are_dropped_and_counted() {
        let mut queue = Queue::new(Overflow::DropOldest, 0);
        for number in 0..6_u8 {
            keep(&mut queue, event(number, 1 << 20));
        }
        assert_eq!(queue.dropped, 2);
        assert_eq!(taken(&mut queue), [2, 3, 4, 5]);
    }

    #[test]
    fn block_says_when_it_is_full_and_loses_nothing() {
        let mut queue = Queue::new(Overflow::Block, 0);
        for number in 0..5_u8 {
            keep(&mut queue, event(number, 1 << 20));
        }
        assert!(queue.is_full());
        assert_eq!(taken(&mut queue), [0, 1, 2, 3, 4]);
        assert!(!queue.is_full());
    }
}
