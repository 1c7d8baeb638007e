//! One agent's descriptors: what is read from them goes to its session, what the session says is
//! written to them. Nothing here waits.

use super::Newcomer;
use crate::agent::process::{Ends, Guardian, Unsent};
use crate::agent::stream::{Framer, Line, READ};
use crate::agent::transcript::Transcript;
use crate::agent::{Action, Session, Shared, State, deliver};
use crate::descriptor::Descriptor;
use crate::diagnostics::{self, Level};
use crate::standby::Standby;
use bytes::Bytes;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::AsFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use std::collections::VecDeque;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use vespera_guardian::{REPORT, Report};

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Leash = 0,
    Stdin = 1,
    Stdout = 2,
    Stderr = 3,
}

/// What was read of the output, or how many bytes and to where.
enum Read {
    InPlace(usize),
    Buffered(usize),
    Owned(Bytes),
}

impl Read {
    fn count(&self) -> usize {
        match self {
            Read::InPlace(count) | Read::Buffered(count) => *count,
            Read::Owned(bytes) => bytes.len(),
        }
    }
}

/// A pipe that was full in so many reads on end is made larger.
const FULL_READS: u8 = 4;

/// Bytes of a larger pipe: a writer, the reactor and an event loop that wake each other for every
/// 64 KiB spend most of their time on that.
const LARGE_PIPE: usize = 4 * READ;

/// An ordinary user has 64 MiB for all of their pipes (pipe(7)), and with those in use the kernel
/// gives every new pipe of theirs 8 KiB: of so many large ones a host keeps far from that.
const MOST_LARGE: usize = 32;

static LARGE: AtomicUsize = AtomicUsize::new(0);

/// A claim to one of the large pipes.
struct Large(());

impl Large {
    fn claim() -> Option<Self> {
        let more = |count| (count < MOST_LARGE).then_some(count + 1);
        let claimed = LARGE.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // Not made at all otherwise: its end would give back what it never had.
        claimed.is_ok().then(|| Self(()))
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        LARGE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pipe is read so many times before a limit of time is judged: it holds no more than that
/// unless the agent goes on talking, which no limit should wait for.
const CATCH_UP: usize = 16;

/// One agent and its descriptors.
pub(super) struct Agent {
    pub(super) session: Box<Session>,
    shared: Arc<Shared>,
    pub(super) mark: Vec<u8>,
    pub(super) transcript: Option<Transcript>,
    framer: Framer,
    pub(super) leash: Option<Descriptor>,
    stdin: Option<Descriptor>,
    stdout: Option<Descriptor>,
    stderr: Option<Descriptor>,
    /// Held for its socket too: see [`Ends`].
    pub(super) guardian: Arc<Guardian>,
    cgroup: Vec<u8>,
    grace_ms: u32,
    pub(super) unwritten: VecDeque<u8>,
    waits_to_write: bool,
    paused: bool,
    full_reads: u8,
    large: Option<Large>,
    pub(super) close_after_write: bool,
    /// Where its fleet counts it among those that are starting.
    starts_in: Option<Arc<Standby>>,
    pub(super) timer: Option<Instant>,
}

impl Agent {
    pub(super) fn new(
        session: Box<Session>,
        shared: Arc<Shared>,
        ends: Ends,
        mark: Vec<u8>,
        transcript: Option<Transcript>,
    ) -> Self {
        Self {
            starts_in: shared.standby().cloned(),
            session,
            shared,
            mark,
            transcript,
            framer: Framer::default(),
            leash: ends.leash,
            stdin: Some(ends.stdin),
            stdout: Some(ends.stdout),
            stderr: Some(ends.stderr),
            guardian: ends.guardian,
            cgroup: ends.cgroup,
            grace_ms: ends.grace_ms,
            unwritten: VecDeque::new(),
            waits_to_write: false,
            paused: false,
            full_reads: 0,
            large: None,
            close_after_write: false,
            timer: None,
        }
    }

    /// The leash removes its cgroup; what a killed one left is ours to remove.
    pub(super) fn remove_cgroup(&self) {
        if !self.cgroup.is_empty() {
            let path = std::ffi::OsStr::from_bytes(&self.cgroup);
            crate::cgroup::remove(std::path::Path::new(path));
        }
    }

    /// A leash whose tree is empty may have the next agent: one that stands in line, which then has
    /// the place too, or who comes later.
    pub(super) fn hand_over(&mut self, poller: &Descriptor) -> Option<Newcomer> {
        let pid = self.shared.view().leash;
        if !self.session.left_nothing() {
            return None;
        }
        let leash = self.leash.take()?;
        epoll::delete(poller, &leash).ok()?;
        let standby = self.shared.standby().filter(|_| self.session.went_well());
        let next = standby.and_then(|standby| standby.next(&self.guardian, self.grace_ms));
        let Some(mut next) = next else {
            self.guardian.keep(leash, pid, self.grace_ms);
            return None;
        };
        next.follow((leash, pid), Instant::now());
        Some(next)
    }

    /// Pid of its program, and number of the session that it began; 0 while it has none.
    pub(super) fn leader(&self) -> i32 {
        self.shared.view().pid
    }

    /// While its socket has not ended, the leash is there and its number is its own.
    pub(super) fn signal_leash(&self, number: i32) {
        let leash = self.shared.view().leash;
        if self.leash.is_some() && leash > 1 {
            // SAFETY: plain numbers; whom they mean is argued above.
            unsafe { libc::kill(leash, number) };
        }
    }

    /// Sends the request to the leash. One that has died since it was chosen is let go.
    pub(super) fn request(&mut self, unsent: &Unsent) -> bool {
        let is_sent = self
            .leash
            .as_ref()
            .is_some_and(|leash| unsent.send(leash).is_ok());
        if !is_sent {
            self.leash = None;
            self.shared.view().leash = 0;
        }
        is_sent
    }

    /// Another leash has the request, or none does. An agent that is to end meanwhile, and that
    /// nobody could tell so, ends with its socket.
    pub(super) fn get_leash(
        &mut self,
        leash: Option<Descriptor>,
        poller: &Descriptor,
        id: u64,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let starts = *self.shared.view().state == State::Starting;
        match leash.filter(|_| starts) {
            Some(leash) => {
                add(poller, &leash, id, End::Leash);
                self.leash = Some(leash);
            }
            None => self.session.leash_gone(now, out),
        }
    }

    /// Its fleet counts it no more among those that are starting, if it is not.
    pub(super) fn note_start(&mut self) {
        if self.starts_in.is_some() && *self.shared.view().state != State::Starting {
            self.starts_in.take().inspect(|standby| standby.started());
        }
    }

    /// Begins to listen to the agent; stdin is watched only while something waits to be written.
    pub(super) fn watch(&self, poller: &Descriptor, id: u64) {
        for (fd, end) in [
            (&self.leash, End::Leash),
            (&self.stdout, End::Stdout),
            (&self.stderr, End::Stderr),
        ] {
            if let Some(fd) = fd {
                add(poller, fd, id, end);
            }
        }
    }

    pub(super) fn read_leash(&mut self, now: Instant, out: &mut Vec<Action>) {
        let mut packet = [0_u8; 2 * REPORT];
        let mut reset = false;
        while let Some(leash) = &self.leash {
            match rustix::net::recv(leash, &mut packet, RecvFlags::DONTWAIT) {
                Ok((read, _)) if read > 0 => {
                    let reports = packet[..read].chunks(REPORT).filter_map(Report::decode);
                    for report in reports {
                        self.session.report(report, now, out);
                    }
                    // Should there be another, epoll says so at once; before a limit of time is
                    // judged it is heard first.
                    if !self.session.is_due(now) {
                        return;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                // The leash left orders of ours unread. The kernel says so before it hands out
                // what the leash said last, and says it once.
                Err(Errno::CONNRESET) if !reset => reset = true,
                // End of file and the rest: the leash is gone.
                Ok(_) | Err(_) => {
                    self.leash = None;
                    self.session.leash_gone(now, out);
                }
            }
        }
    }

    /// Reads what there is, at most a [`LARGE_PIPE`].
    pub(super) fn read_stdout(
        &mut self,
        buffer: &mut [u8],
        poller: &Descriptor,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        for _ in 0..LARGE_PIPE / READ {
            let full = self.read_once(buffer, poller, now, out);
            // One that is read without waiting says itself that it is empty.
            if !full || self.paused || (self.large.is_none() && !self.is_readable()) {
                break;
            }
        }
        self.shared.tell_events();
        self.transcribe(|_| ());
    }

    /// One read; whether it gave as much as one can.
    fn read_once(
        &mut self,
        buffer: &mut [u8],
        poller: &Descriptor,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(stdout) = &self.stdout else {
            return false;
        };
        let most = buffer.len();
        let read = match self.framer.long() {
            Some(long) => {
                long.reserve(most);
                rustix::io::read(stdout, rustix::buffer::spare_capacity(long)).map(Read::InPlace)
            }
            // As much again is likely, and is then not copied.
            None if self.full_reads > 0 => {
                let mut own = Vec::with_capacity(most);
                rustix::io::read(stdout, rustix::buffer::spare_capacity(&mut own)).map(|count| {
                    // A small part of a buffer must not keep the whole of it.
                    let is_worth_it = count >= most / 2;
                    Read::Owned(if is_worth_it {
                        own.into()
                    } else {
                        Bytes::copy_from_slice(&own)
                    })
                })
            }
            None => rustix::io::read(stdout, &mut *buffer).map(Read::Buffered),
        };
        let (session, transcript) = (&mut self.session, &mut self.transcript);
        match read {
            Ok(read) if read.count() == 0 => {
                self.framer
                    .finish(|line| deliver(session, transcript.as_mut(), line, now, out));
                self.output_ended(now, out);
                false
            }
            Ok(read) => {
                let count = read.count();
                crate::metrics::EVENT_BYTES.add(count as u64);
                session.received(count >= most);
                let each = |line: Line<'_>| deliver(session, transcript.as_mut(), line, now, out);
                match read {
                    Read::InPlace(count) => self.framer.appended(count, each),
                    Read::Buffered(count) => {
                        self.framer
                            .push(Bytes::copy_from_slice(&buffer[..count]), each);
                    }
                    Read::Owned(bytes) => self.framer.push(bytes, each),
                }
                // The last event may have come when nobody took events any more.
                if self.shared.is_listening() && self.shared.queue().is_full() {
                    self.paused = true;
                    self.session.hear(false, now);
                    let _ = epoll::delete(poller, stdout);
                }
                self.note_fill(count >= most);
                count >= most
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => {
                self.output_ended(now, out);
                false
            }
        }
    }

    fn output_ended(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.stdout = None;
        self.large = None;
        // Whoever hears of an end finds all events, in the transcript too.
        self.transcribe(|_| ());
        self.session.output_ended(now, out);
    }

    fn note_fill(&mut self, full: bool) {
        if !full {
            self.full_reads = 0;
            return;
        }
        self.full_reads = self.full_reads.saturating_add(1);
        if self.full_reads == FULL_READS
            && self.large.is_none()
            && let Some(stdout) = &self.stdout
            && let Some(claim) = Large::claim()
            && rustix::pipe::fcntl_setpipe_size(stdout, LARGE_PIPE).is_ok()
            // The agent's end has flags of its own.
            && rustix::fs::fcntl_setfl(stdout, OFlags::NONBLOCK).is_ok()
        {
            self.large = Some(claim);
        }
    }

    fn is_readable(&self) -> bool {
        !self.paused
            && self.stdout.as_ref().is_some_and(|stdout| {
                rustix::io::ioctl_fionread(stdout).is_ok_and(|waiting| waiting > 0)
            })
    }

    /// Reads what is in the pipe already, so that a limit of time is judged by all that was said.
    pub(super) fn catch_up(
        &mut self,
        buffer: &mut [u8],
        poller: &Descriptor,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        for _ in 0..CATCH_UP {
            if !self.is_readable() {
                return;
            }
            self.read_stdout(buffer, poller, now, out);
        }
    }

    /// Adds to the transcript and writes it out; one that cannot be written is given up.
    pub(super) fn transcribe(&mut self, add: impl FnOnce(&mut Transcript)) {
        if let Some(transcript) = &mut self.transcript {
            add(transcript);
            if let Err(error) = transcript.flush() {
                diagnostics::agent(Level::Warning, &self.shared, || {
                    format!("its transcript ends here: {error}")
                });
                self.shared.view().transcript_lost = Some(error.to_string());
                self.transcript = None;
            }
        }
    }

    pub(super) fn resume(&mut self, poller: &Descriptor, id: u64) {
        if let (true, Some(stdout)) = (self.paused, &self.stdout) {
            self.paused = false;
            self.session.hear(true, Instant::now());
            add(poller, stdout, id, End::Stdout);
        }
    }

    pub(super) fn read_stderr(&mut self, buffer: &mut [u8], out: &mut Vec<Action>) {
        let Some(stderr) = &self.stderr else { return };
        match rustix::io::read(stderr, &mut *buffer) {
            Ok(read) if read > 0 => self.shared.note_stderr(&buffer[..read]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                self.stderr = None;
                self.session.stderr_ended(out);
            }
        }
    }

    /// Writes what the agent takes now; the rest waits for epoll. Never blocks.
    pub(super) fn flush(&mut self, poller: &Descriptor, id: u64) {
        let before = self.unwritten.len();
        self.write_on(poller, id);
        let left = self.unwritten.len();
        if before > 0 {
            self.session.wrote(left > 0, left < before, Instant::now());
        }
    }

    fn write_on(&mut self, poller: &Descriptor, id: u64) {
        let Some(stdin) = &self.stdin else {
            // Its input has ended: what comes later is for nobody.
            self.unwritten.clear();
            return;
        };
        while !self.unwritten.is_empty() {
            let (front, _) = self.unwritten.as_slices();
            match rustix::net::send(stdin, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(written) => drop(self.unwritten.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.waits_to_write {
                        self.waits_to_write = true;
                        let _ = epoll::add(
                            poller,
                            stdin,
                            EventData::new_u64(token(id, End::Stdin)),
                            EventFlags::OUT,
                        );
                    }
                    return;
                }
                // The agent closed its input; its exit or silence tells the rest.
                Err(_) => self.unwritten.clear(),
            }
        }
        if self.waits_to_write {
            self.waits_to_write = false;
            let _ = epoll::delete(poller, stdin.as_fd());
        }
        if self.close_after_write {
            let _ = rustix::net::shutdown(stdin, Shutdown::Write);
            self.stdin = None;
        }
    }
}

/// Begins to listen to one end of an agent.
fn add(poller: &Descriptor, fd: &Descriptor, id: u64, end: End) {
    let data = EventData::new_u64(token(id, end));
    let _ = epoll::add(poller, fd, data, EventFlags::IN);
}

/// What epoll gives back: the agent's number and which of its ends.
fn token(id: u64, end: End) -> u64 {
    id << 2 | end as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pipes_are_large_and_no_more() {
        let mut claims: Vec<Large> = std::iter::from_fn(Large::claim).collect();
        assert_eq!(claims.len(), MOST_LARGE);
        claims.pop();
        claims.extend(Large::claim());
        assert_eq!(claims.len(), MOST_LARGE);
        assert!(Large::claim().is_none());
    }
}
