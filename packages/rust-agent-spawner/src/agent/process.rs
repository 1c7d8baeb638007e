//! Starts the guardian and asks it for agents: the only way a process comes to be here.
//!
//! The host itself never forks, installs no signal handler and reaps nothing but its guardian.

use super::image;
use super::mourning::{let_go, mourn, wait_for};
use crate::descriptor::{Descriptor, making};
use crate::own_pid::own_pid;
use crate::rights::{Asker, Rights};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use rustix::pipe::PipeFlags;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use vespera_guardian::{Environment, Hello, INHERIT, Limits, MAX_INLINE, Spawn, VERSION};

mod current;

pub use current::{Asked, guardian, is_ready};

/// Every request and the guardian's first word have this long.
const DEADLINE_MS: u64 = 5000;

/// The kernel counts the descriptors in flight of all of a user's processes; ours are taken within
/// this, others' may never be, and the event loop waits meanwhile.
const IN_FLIGHT: Duration = Duration::from_millis(250);

/// A guardian that was stopped gets this long after SIGCONT; then it counts as dead.
const LAST_DEADLINE_MS: u64 = 1000;

/// So many guardians may die under one request.
const ATTEMPTS: u32 = 3;

/// So many leashes wait without an agent: about as many as a busy host starts before others end.
const MOST_FREE: usize = 16;

/// One agent to start. `program` and `directory` are absolute.
#[derive(Debug)]
pub struct Request<'a> {
    pub program: &'a [u8],
    pub directory: &'a [u8],
    pub argv: &'a [&'a [u8]],
    pub environment: &'a Environment,
    /// One more entry of it, which tells this agent's processes.
    pub mark: &'a [u8],
    pub limits: Limits,
    /// The cgroup2 directory to make for it; empty for none.
    pub cgroup: &'a [u8],
    /// How long an agent may go on after its host's death, in milliseconds.
    pub host_death_grace_ms: u32,
    pub moment: Moment,
    /// Who sends to a leash that waits for an agent, in the caller's place and only if a leash cannot
    /// tell the two apart: [`Ends::unsent`] is what to send.
    pub messenger: Option<Sender>,
}

/// Requests of one moment of the host: between them no code runs but the engine's own, so its
/// rights are looked at once. Zero is a moment of its own for each request.
pub type Moment = u64;

/// The host's ends of one agent.
#[derive(Debug)]
pub struct Ends {
    /// None while none is chosen.
    pub leash: Option<Descriptor>,
    /// The leash's pid, if it is known before it says so: it had an agent before this one.
    pub leash_pid: Option<i32>,
    pub grace_ms: u32,
    pub stdin: Descriptor,
    pub stdout: Descriptor,
    pub stderr: Descriptor,
    /// Kept as long as the agent: a guardian whose socket ends takes its agents along.
    pub guardian: Arc<Guardian>,
    /// The agent's own cgroup; empty for none.
    pub cgroup: Vec<u8>,
    /// The request, if the leash does not have it yet.
    pub unsent: Option<Box<Unsent>>,
    /// Whether a leash may have it that had another agent before.
    pub takes_used: bool,
}

/// A request on its way to a leash that waits for an agent.
///
/// A leash that is woken may take the processor of who wakes it. On the host's own thread, which
/// holds the interpreter, that keeps everybody waiting: the reactor sends it.
#[derive(Debug)]
pub struct Unsent {
    header: Vec<u8>,
    strings: Vec<u8>,
    /// The agent's ends, and the strings if they are too long for a packet.
    fds: Vec<Descriptor>,
    is_inline: bool,
    asked: Asked,
}

impl Unsent {
    /// Sends it to a leash; never waits.
    ///
    /// # Errors
    /// One that has died, or that does not read; a thread that it would not hear.
    pub fn send(&self, leash: &Descriptor) -> Result<(), Errno> {
        if Sender::here() != self.asked.by {
            return Err(Errno::PERM);
        }
        send(leash, &self.parts(), &self.borrowed())
    }

    /// Has the guardian make a leash for it instead.
    ///
    /// # Errors
    /// As [`spawn`]; no other guardian is tried, as the caller may have other rights than the host.
    pub fn send_elsewhere(&self, guardian: &Guardian) -> io::Result<Descriptor> {
        guardian.ask_for_leash(&self.parts(), &self.borrowed())
    }

    /// Whether the calling thread is the user who asked, and the host's umask is what it was.
    pub fn is_asked_by(&self, by: Sender, umask: u32) -> bool {
        self.asked == Asked { by, umask }
    }

    fn parts(&self) -> [IoSlice<'_>; 2] {
        let strings: &[u8] = if self.is_inline { &self.strings } else { &[] };
        [IoSlice::new(&self.header), IoSlice::new(strings)]
    }

    fn borrowed(&self) -> Vec<BorrowedFd<'_>> {
        self.fds.iter().map(AsFd::as_fd).collect()
    }
}

/// The user and the group by which a leash knows its host: the kernel adds those of the thread that
/// sends to each packet, and a host's threads need not have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender(u32, u32);

impl Sender {
    /// Those of the calling thread.
    pub fn here() -> Self {
        Self(
            rustix::process::getuid().as_raw(),
            rustix::process::getgid().as_raw(),
        )
    }
}

/// A running guardian.
#[derive(Debug)]
pub struct Guardian {
    socket: Descriptor,
    pid: libc::pid_t,
    rights: Rights,
    /// Its socket said so before the kernel had reaped it for us.
    gone: AtomicBool,
    checked: Mutex<current::Checked>,
    /// Leashes that it made and whose tree is empty, and their pids.
    free: Mutex<Vec<(Descriptor, i32)>>,
    /// Another has taken its place.
    retired: AtomicBool,
    /// The longest grace that it has heard of: it waits so long for its leashes.
    longest_grace_ms: AtomicU32,
    /// Whether it finds what its agents leave behind: /proc is its own.
    sees_processes: bool,
    /// Somebody reaps what it leaves behind.
    mourned: AtomicBool,
}

/// Starts an agent; how the start went arrives on the leash's socket.
///
/// # Errors
/// No guardian, no descriptors left, or a guardian that does not take the request in time.
pub fn spawn(request: &Request<'_>) -> io::Result<Ends> {
    let mut attempts = ATTEMPTS;
    loop {
        let (guardian, asked) = guardian(request.moment)?;
        match Arc::clone(&guardian).spawn(request, asked) {
            // It died before it took the request: nothing has begun, so another may have it.
            Err(error) if is_hangup(&error) && attempts > 1 => {
                guardian.gone.store(true, Ordering::Release);
                attempts -= 1;
            }
            outcome => return outcome,
        }
    }
}

/// Prepares an agent for a leash that is chosen later; see [`Ends::unsent`].
///
/// # Errors
/// No guardian, or no descriptors left.
pub fn prepare(request: &Request<'_>) -> io::Result<Ends> {
    let (guardian, asked) = guardian(request.moment)?;
    guardian.prepare(request, asked)
}

fn is_hangup(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl Drop for Guardian {
    fn drop(&mut self) {
        let_go(self.rights.pid, self.pid);
    }
}

impl Guardian {
    /// Pid of the guardian process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it finds what its agents leave behind.
    pub fn sees_processes(&self) -> bool {
        self.sees_processes
    }

    /// It did not answer a request for so long that it counts as dead: the next gets another. Its
    /// other agents keep it, should it go on.
    pub fn give_up(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// Reaps what it left to us, if it has died; once.
    pub fn mourn_if_dead(&self) {
        if self.rights.pid == own_pid()
            && wait_for(self.pid) != 0
            && !self.mourned.swap(true, Ordering::Relaxed)
        {
            mourn(self.rights.pid, self.pid);
        }
    }

    fn is_alive(&self) -> bool {
        // A forked copy of the host is nobody's parent here, and `rights` has told it apart.
        !self.gone.load(Ordering::Acquire) && wait_for(self.pid) == 0
    }

    fn start(rights: Rights) -> io::Result<Self> {
        let (ours, theirs) = {
            let _making = making();
            let (ours, theirs) = seqpacket_pair()?;
            (Descriptor::from(ours), Descriptor::from(theirs))
        };
        let pid = image::run(&theirs, rights.pid)?;
        drop(theirs);
        let mut guardian = Self {
            socket: ours,
            pid,
            rights,
            gone: AtomicBool::new(false),
            checked: Mutex::default(),
            free: Mutex::default(),
            retired: AtomicBool::new(false),
            longest_grace_ms: AtomicU32::new(0),
            sees_processes: false,
            mourned: AtomicBool::new(false),
        };
        let mut hello = [0_u8; Hello::LENGTH + 1];
        guardian.wait(rustix::event::PollFlags::IN)?;
        let (read, _) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&guardian.socket, &mut hello, RecvFlags::DONTWAIT)
        })?;
        match Hello::decode(&hello[..read]) {
            Some(Hello {
                version: VERSION,
                sees_processes,
                ..
            }) => {
                guardian.sees_processes = sees_processes;
                Ok(guardian)
            }
            Some(Hello { version, .. }) => Err(io::Error::other(format!(
                "the guardian speaks version {version}, this engine {VERSION}"
            ))),
            None => Err(io::Error::other(
                "the guardian ended at start; run 'vespera doctor'",
            )),
        }
    }

    fn spawn(self: Arc<Self>, request: &Request<'_>, asked: Asked) -> io::Result<Ends> {
        let mut ends = Arc::clone(&self).prepare(request, asked)?;
        if let Some(unsent) = ends.unsent.take() {
            let (leash, pid, unsent) = self.ask(request, unsent)?;
            (ends.leash, ends.leash_pid, ends.unsent) = (Some(leash), pid, unsent);
        }
        Ok(ends)
    }

    /// All but a leash.
    fn prepare(self: Arc<Self>, request: &Request<'_>, asked: Asked) -> io::Result<Ends> {
        let (header, strings) = Spawn {
            grace_ms: request.host_death_grace_ms,
            umask: asked.umask,
            limits: request.limits,
            program: request.program,
            directory: request.directory,
            cgroup: request.cgroup,
            argc: 0,
            envc: 0,
            strings: &[],
        }
        .encode(request.argv, request.environment, request.mark);
        let making = making();
        // Everything that can fail for want of descriptors is allocated before the spawn.
        // A socket, not a pipe: a forked worker of the host that inherits our end cannot keep the
        // agent waiting, because shutdown(2) ends it for all.
        let (stdin, stdin_far) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let (stdout, stdout_far) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, stderr_far) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // The sockets are used with MSG_DONTWAIT; the far ends must wait.
        for fd in [&stdout, &stderr] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(Descriptor::from);
        let mut fds = Vec::from([stdin_far, stdout_far, stderr_far].map(Descriptor::from));
        drop(making);
        let is_inline = strings.len() <= MAX_INLINE;
        if !is_inline {
            let name = c"vespera-request";
            fds.push(image::memfd(name, &strings, MemfdFlags::empty())?.into());
        }
        let unsent = Unsent {
            header,
            strings,
            fds,
            is_inline,
            asked,
        };
        Ok(Ends {
            leash: None,
            leash_pid: None,
            grace_ms: request.host_death_grace_ms,
            stdin,
            stdout,
            stderr,
            guardian: self,
            cgroup: request.cgroup.to_vec(),
            unsent: Some(Box::new(unsent)),
            // A limit of the tree's CPU time counts what the leash has reaped in all its life.
            takes_used: request.limits.cpu_seconds == INHERIT,
        })
    }

    /// Finds a leash for the request, its pid if it is known, and what is to be sent to it later.
    fn ask(
        &self,
        request: &Request<'_>,
        unsent: Box<Unsent>,
    ) -> io::Result<(Descriptor, Option<i32>, Option<Box<Unsent>>)> {
        // The guardian hears of no request but its own, and a limit of the tree's CPU time counts
        // what the leash has reaped in all its life.
        let may_be_used = request.host_death_grace_ms
            <= self.longest_grace_ms.load(Ordering::Relaxed)
            && request.limits.cpu_seconds == INHERIT;
        while may_be_used && let Some((leash, pid)) = self.free().pop() {
            if request.messenger == Some(unsent.asked.by) {
                return Ok((leash, Some(pid), Some(unsent)));
            }
            // One that has died is dropped, and so is one that does not read.
            if unsent.send(&leash).is_ok() {
                return Ok((leash, Some(pid), None));
            }
        }
        Ok((unsent.send_elsewhere(self)?, None, None))
    }

    /// Has the guardian make a leash for the request.
    fn ask_for_leash(
        &self,
        parts: &[IoSlice<'_>],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<Descriptor> {
        let (ours, theirs) = {
            let _making = making();
            let (ours, theirs) = seqpacket_pair()?;
            (Descriptor::from(ours), Descriptor::from(theirs))
        };
        let mut all = vec![theirs.as_fd()];
        all.extend(fds);
        let began = Instant::now();
        loop {
            match send(&self.socket, parts, &all) {
                Ok(()) => break,
                // Full socket, or too many descriptors in flight: both mean "later".
                Err(Errno::AGAIN) => self.wait(rustix::event::PollFlags::OUT)?,
                Err(Errno::TOOMANYREFS) if began.elapsed() < IN_FLIGHT => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(Errno::TOOMANYREFS) => {
                    return Err(io::Error::from(Errno::TOOMANYREFS));
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(ours)
    }

    /// A leash has said that its tree is empty, and waits; one too many is let go, and ends. By its
    /// being there the guardian has heard of its agent's grace.
    pub fn keep(&self, leash: Descriptor, pid: i32, grace_ms: u32) {
        self.longest_grace_ms.fetch_max(grace_ms, Ordering::Relaxed);
        let mut free = self.free();
        // Looked at under the lock: whoever retires it empties the list afterwards.
        if free.len() < MOST_FREE && !self.retired.load(Ordering::Acquire) {
            free.push((leash, pid));
        }
    }

    /// Whether its leashes may have no other agents.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// The umask of a host whose rights are those of this guardian still, as that thread of it
    /// has them; `None` of any other host.
    pub fn umask_of(&self, asker: &Asker) -> Option<u32> {
        let (rights, umask) = asker.now()?;
        (rights == self.rights).then_some(umask)
    }

    /// Its leashes have the rights of its birth: none is used again.
    fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.free().clear();
    }

    fn free(&self) -> MutexGuard<'_, Vec<(Descriptor, i32)>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the guardian; one that was stopped is continued once, and then given up.
    fn wait(&self, direction: rustix::event::PollFlags) -> io::Result<()> {
        if self.poll(direction, DEADLINE_MS)? {
            return Ok(());
        }
        self.signal(libc::SIGCONT);
        if self.poll(direction, LAST_DEADLINE_MS)? {
            return Ok(());
        }
        // Its leashes notice and end their agents; the next request gets another guardian.
        self.signal(libc::SIGKILL);
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the guardian did not answer within 5 s and was ended, with all its agents; try again",
        ))
    }

    /// Sends a signal to the guardian, if it lives.
    pub fn signal(&self, number: libc::c_int) {
        if self.is_alive() {
            // SAFETY: plain numbers; our own child that nobody has reaped.
            unsafe { libc::kill(self.pid, number) };
        }
    }

    fn poll(&self, direction: rustix::event::PollFlags, limit_ms: u64) -> io::Result<bool> {
        let until = Instant::now() + Duration::from_millis(limit_ms);
        loop {
            let mut watch = [rustix::event::PollFd::new(&self.socket, direction)];
            let left = until.saturating_duration_since(Instant::now());
            let left = rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match rustix::event::poll(&mut watch, Some(&left)) {
                Ok(0) => return Ok(false),
                Ok(_) => return Ok(true),
                // A signal of the host's own: a profiler, a watchdog.
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// One packet with descriptors, to a guardian or a leash; never waits.
fn send(socket: &Descriptor, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, parts, &mut control, flags).map(drop)
}

fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}
