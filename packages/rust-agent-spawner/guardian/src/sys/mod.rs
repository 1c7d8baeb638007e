//! The system calls of the guardian, each behind a function that says what it is for.
//!
//! All of this program's `unsafe` is here or in the first lines of `leader::run`. Here: a process's
//! own state, its signals and its waiting; `message`: packets; `children`: whom it ends and reaps;
//! `birth`: what a leader does to itself before it is the agent.

pub mod birth;
pub mod children;
pub mod message;

use std::cell::UnsafeCell;
use std::mem::{size_of, zeroed};
use std::sync::atomic::{AtomicBool, Ordering};

/// An fd in a poll set.
#[repr(transparent)]
pub struct Watch(libc::pollfd);

impl Watch {
    pub fn read(fd: i32) -> Self {
        Watch(libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
    }

    pub fn ready(&self) -> bool {
        self.0.revents != 0
    }
}

pub fn exit(code: i32) -> ! {
    exit_now(code)
}

/// No handlers, no buffers: also right in a child that shares our memory.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends this process; nothing is left that could observe memory.
    unsafe { libc::_exit(code) }
}

pub fn errno() -> i32 {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() }
}

pub fn pid() -> i32 {
    // SAFETY: cannot fail and touches no memory.
    unsafe { libc::getpid() }
}

pub fn parent() -> i32 {
    // SAFETY: cannot fail and touches no memory.
    unsafe { libc::getppid() }
}

pub fn now_ms() -> u64 {
    // SAFETY: an all-zero timespec is valid.
    let mut time: libc::timespec = unsafe { zeroed() };
    // SAFETY: `time` outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec * 1000 + time.tv_nsec / 1_000_000).unwrap_or(0)
}

/// What a terminal or a closed pipe would end the guardian with. It is born with every other
/// signal at its default, so these are all that a leader has to set back.
pub const IGNORED: [libc::c_int; 5] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGPIPE,
    libc::SIGQUIT,
];

/// Session of its own, nothing to read or write, adopts orphans, deaf to a terminal's signals.
pub fn become_guardian() {
    // SAFETY: plain calls on constants; errors leave the previous state, which is tolerable.
    unsafe {
        libc::setsid();
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_NAME, c"vespera-guard".as_ptr());
        for signal in IGNORED {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    name_senders(vespera_guardian::HOST_FD);
    hear_of_parent();
}

/// A group of its own, so that no signal meant for the guardian's group reaches it.
pub fn become_leash(socket: i32) {
    // SAFETY: plain calls on constants.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_NAME, c"vespera-leash".as_ptr());
    }
    name_senders(socket);
    hear_of_parent();
    give_way();
}

/// Whether this process has another policy than the host, which its children get back.
static GIVES_WAY: AtomicBool = AtomicBool::new(false);

/// From now on whoever wakes this process keeps the processor (sched(7), SCHED_BATCH): a host that is
/// pushed off it holds the interpreter, or the streams of all other agents. Nothing changes where the
/// host has chosen a policy, and where this one is refused.
pub fn give_way() {
    if GIVES_WAY.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: a number; 0 is the calling process.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    let is_normal = policy == libc::c_long::from(libc::SCHED_OTHER);
    GIVES_WAY.store(
        is_normal && set_policy(libc::SCHED_BATCH),
        Ordering::Relaxed,
    );
}

/// It has the processor as soon as others, until it gives way again: whoever ends a tree that forks
/// must not come late.
pub fn hurry() {
    if GIVES_WAY.swap(false, Ordering::Relaxed) {
        set_policy(libc::SCHED_OTHER);
    }
}

/// Of the calling process; its niceness is left as it is. By the call itself: musl's functions of
/// that name refuse.
fn set_policy(policy: libc::c_int) -> bool {
    let priority: libc::c_int = 0;
    // SAFETY: numbers and a live parameter, which is one number to the kernel.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const priority) == 0 }
}

/// Each packet from now on says who sent it.
fn name_senders(socket: i32) {
    let one: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
    // SAFETY: a live local of the given size.
    unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const one).cast(),
            size,
        );
    }
}

/// The signal that a parent's death sends: a lifeline that needs no pidfd.
pub const PARENT_SIGNAL: i32 = libc::SIGUSR1;

/// It also comes when only the thread that started us ends, so the listener compares its parent.
fn hear_of_parent() {
    // SAFETY: plain numbers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, PARENT_SIGNAL) };
}

/// A lifeline on a process; `None` on kernels before 5.3 and under old seccomp filters.
pub fn pidfd_open(pid: i32) -> Option<i32> {
    // SAFETY: pidfd_open(2) takes a pid and flags and returns a new fd or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    i32::try_from(fd).ok().filter(|fd| *fd >= 0)
}

/// SIGCHLD and the parent's signal as a file descriptor.
pub fn watch_signals() -> Option<i32> {
    // SAFETY: `set` is initialised by sigemptyset before use and outlives the calls.
    let fd = unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigaddset(&raw mut set, PARENT_SIGNAL);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    (fd >= 0).then_some(fd)
}

/// Empties a signal descriptor; true when `from` itself sent the parent's signal.
pub fn take_signals(fd: i32, from: i32) -> bool {
    // Both signals at once, as there are no more: one call empties it.
    // SAFETY: all-zero entries are valid; the call fills whole ones, at most as many as fit.
    let (entries, read) = unsafe {
        let mut entries: [libc::signalfd_siginfo; 2] = zeroed();
        let read = libc::read(fd, entries.as_mut_ptr().cast(), size_of_val(&entries));
        (entries, read)
    };
    let filled = usize::try_from(read).unwrap_or(0) / size_of_val(&entries[0]);
    entries[..filled].iter().any(|entry| {
        i32::try_from(entry.ssi_signo) == Ok(PARENT_SIGNAL)
            && i32::try_from(entry.ssi_pid) == Ok(from)
    })
}

pub fn poll(watches: &mut [Watch], timeout_ms: Option<i32>) {
    let length = libc::nfds_t::try_from(watches.len()).unwrap_or(0);
    // SAFETY: `Watch` is a transparent pollfd; pointer and length belong together.
    let ready = unsafe {
        libc::poll(
            watches.as_mut_ptr().cast(),
            length,
            timeout_ms.unwrap_or(-1),
        )
    };
    if ready < 0 {
        for watch in watches {
            watch.0.revents = 0;
        }
    }
}

/// What one process waits for again and again: the kernel is told once, not at each wait.
pub struct Watched(i32);

impl Watched {
    /// At most so many.
    const MOST: usize = 4;

    /// These descriptors, by their places; one that is negative is never ready.
    pub fn all<const N: usize>(fds: [i32; N]) -> Option<Self> {
        const { assert!(N <= Self::MOST) };
        // SAFETY: epoll_create1(2) takes flags and returns a new fd or -1.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return None;
        }
        for (place, fd) in (0..).zip(fds) {
            let mut event = libc::epoll_event {
                events: libc::EPOLLIN as u32,
                u64: place,
            };
            // SAFETY: two descriptors and a live event.
            let added = unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
            if fd >= 0 && added != 0 {
                return None;
            }
        }
        Some(Self(epoll))
    }

    /// It is not waited for any more.
    pub fn forget(&self, fd: i32) {
        // SAFETY: two descriptors; no event is read. Failure means that it was not waited for.
        unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Which are ready, by their places; none when the time is over or a signal came.
    pub fn wait<const N: usize>(&self, timeout_ms: Option<i32>) -> [bool; N] {
        let mut ready = [false; N];
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; Self::MOST];
        let most = libc::c_int::try_from(events.len()).unwrap_or(1);
        // SAFETY: as many live events as are announced.
        let count = unsafe {
            libc::epoll_wait(self.0, events.as_mut_ptr(), most, timeout_ms.unwrap_or(-1))
        };
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            let place = event.u64;
            if let Some(place) = usize::try_from(place).ok().and_then(|at| ready.get_mut(at)) {
                *place = true;
            }
        }
        ready
    }
}

pub fn close(fd: i32) {
    // SAFETY: the callers own the fd; closing a stale one is an ignored EBADF.
    unsafe { libc::close(fd) };
}

pub fn close_from(first: i32) {
    // SAFETY: close_range(2) takes two bounds and flags.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, i32::MAX, 0) };
    if done == 0 {
        return;
    }
    // Kernels before 5.9 and some seccomp filters refuse it.
    // SAFETY: an all-zero rlimit is valid, and the call fills it.
    let highest = unsafe {
        let mut limit: libc::rlimit = zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        i32::try_from(limit.rlim_cur).unwrap_or(65_536).min(65_536)
    };
    (first..highest).for_each(close);
}

pub fn fork() -> Result<i32, i32> {
    // SAFETY: this program has one thread, so the child may do whatever the parent may.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(errno()) } else { Ok(pid) }
}

/// Runs `child(argument)` in a new process that shares our memory, and returns once it has exec'd
/// or exited: the cost does not depend on our size.
pub fn vfork_into<T>(
    child: extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: &mut T,
) -> Result<i32, i32> {
    // SAFETY: nobody but the child uses the stack, and it is gone from our memory when this returns
    // (CLONE_VFORK waits for that); it is aligned and grows down from one past its end.
    let pid = unsafe {
        libc::clone(
            child,
            CHILD_STACK.0.get().add(1).cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::from_mut(argument).cast(),
        )
    };
    if pid < 0 { Err(errno()) } else { Ok(pid) }
}

/// Of a child that makes system calls, a few functions deep, and handles no signal. Part of the
/// program: mapping one for each start costs a leash more than the start's other calls, and of this
/// one only the upper page is touched.
#[repr(C, align(4096))]
struct ChildStack(UnsafeCell<[u8; 16 * 1024]>);

// SAFETY: this program has one thread, which waits while a child uses the stack.
unsafe impl Sync for ChildStack {}

static CHILD_STACK: ChildStack = ChildStack(UnsafeCell::new([0; 16 * 1024]));
