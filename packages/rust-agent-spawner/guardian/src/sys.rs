//! The system calls of the guardian, each behind a function that says what it is for.
//!
//! All of this program's `unsafe` is here or in the first lines of `leader::run`.

use std::ffi::CStr;
use std::mem::{size_of, zeroed};
use vespera_guardian::Report;

/// File descriptors that came with a packet; what is not taken stays open until exit.
pub struct Fds {
    fds: [i32; 8],
    len: usize,
}

impl Fds {
    pub fn get(&self, place: usize) -> Option<i32> {
        (place < self.len).then(|| self.fds[place])
    }

    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Fds {
    fn drop(&mut self) {
        for fd in &self.fds[..self.len] {
            close(*fd);
        }
    }
}

/// What one receive gave.
pub enum Received {
    Packet {
        len: usize,
        fds: Fds,
        same_user: bool,
    },
    Later,
    Gone,
}

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

    pub fn disable(&mut self) {
        self.0.fd = -1;
    }

    pub fn ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// A child that was reaped.
pub struct Ended {
    pub pid: i32,
    pub clean: bool,
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

/// Session of its own, nothing to read or write, adopts orphans, deaf to a terminal's signals.
pub fn become_guardian() {
    // SAFETY: plain calls on constants; errors leave the previous state, which is tolerable.
    unsafe {
        libc::setsid();
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_NAME, c"vespera-guard".as_ptr());
        for signal in [
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGPIPE,
            libc::SIGQUIT,
        ] {
            libc::signal(signal, libc::SIG_IGN);
        }
        let one: libc::c_int = 1;
        let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(4);
        libc::setsockopt(
            vespera_guardian::HOST_FD,
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const one).cast(),
            size,
        );
    }
}

/// A group of its own, so that no signal meant for the guardian's group reaches it.
pub fn become_leash() {
    // SAFETY: plain calls on constants.
    unsafe {
        libc::setpgid(0, 0);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
        libc::prctl(libc::PR_SET_NAME, c"vespera-leash".as_ptr());
    }
}

pub fn pidfd_open(pid: i32) -> Option<i32> {
    // SAFETY: pidfd_open(2) takes a pid and flags and returns a new fd or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    i32::try_from(fd).ok().filter(|fd| *fd >= 0)
}

/// SIGCHLD as a file descriptor.
pub fn watch_children() -> Option<i32> {
    // SAFETY: `set` is initialised by sigemptyset before use and outlives the calls.
    let fd = unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    (fd >= 0).then_some(fd)
}

pub fn drain_signals(fd: i32) {
    let mut buffer = [0_u8; 128 * 8];
    // SAFETY: the buffer outlives the call and its length is given.
    while unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
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

/// Never blocks: a peer that does not read is not waited for.
pub fn send(fd: i32, bytes: &[u8]) {
    // SAFETY: pointer and length of one live slice.
    unsafe {
        libc::send(
            fd,
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
}

#[repr(C, align(8))]
struct ControlBuffer([u8; 256]);

// The casts' alignment does not matter: what they point to is read unaligned.
#[allow(clippy::cast_ptr_alignment)]
/// One packet with its descriptors and the check that the sender has our user and group.
pub fn receive(fd: i32, buffer: &mut [u8]) -> Received {
    let mut control = ControlBuffer([0; 256]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: every pointer in `message` refers to a live local of the given length.
    let read = unsafe {
        libc::recvmsg(
            fd,
            &raw mut message,
            libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
        )
    };
    let Ok(len) = usize::try_from(read) else {
        return match errno() {
            libc::EAGAIN | libc::EINTR => Received::Later,
            _ => Received::Gone,
        };
    };
    if len == 0 {
        return Received::Gone;
    }
    let mut fds = Fds {
        fds: [-1; 8],
        len: 0,
    };
    let mut same_user = false;
    // SAFETY: the kernel filled the control buffer and set its length; CMSG_* walk stays inside,
    // and the payload of each kind is read unaligned with the size that its header states.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            let data = libc::CMSG_DATA(header);
            #[allow(clippy::unnecessary_cast)]
            let payload = ((*header).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                for place in 0..payload / size_of::<i32>() {
                    let received = data.cast::<i32>().add(place).read_unaligned();
                    if fds.len < fds.fds.len() {
                        fds.fds[fds.len] = received;
                        fds.len += 1;
                    } else {
                        close(received);
                    }
                }
            } else if (*header).cmsg_level == libc::SOL_SOCKET
                && (*header).cmsg_type == libc::SCM_CREDENTIALS
            {
                let sender = data.cast::<libc::ucred>().read_unaligned();
                same_user = sender.uid == libc::geteuid() && sender.gid == libc::getegid();
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    Received::Packet {
        len,
        fds,
        same_user,
    }
}

/// Reads exactly `length` bytes from the start of a file.
pub fn read_exact(fd: i32, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; length];
    let mut done = 0;
    while done < length {
        let rest = &mut bytes[done..];
        let offset = libc::off_t::try_from(done).ok()?;
        // SAFETY: pointer and length of one live slice.
        let read = unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), offset) };
        match usize::try_from(read) {
            Ok(0) => return None,
            Ok(read) => done += read,
            Err(_) if errno() == libc::EINTR => {}
            Err(_) => return None,
        }
    }
    Some(bytes)
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
    const STACK: usize = 64 * 1024;
    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    // SAFETY: the stack is live until the child is gone from our memory (CLONE_VFORK waits for
    // that), aligned by its element type, and grows down from one past its end.
    let pid = unsafe {
        libc::clone(
            child,
            stack.as_mut_ptr().add(stack.len()).cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            std::ptr::from_mut(argument).cast(),
        )
    };
    if pid < 0 { Err(errno()) } else { Ok(pid) }
}

/// Signal state as a program expects it at birth: ignored signals survive exec otherwise.
pub fn reset_signals() {
    // SAFETY: `set` is initialised by sigemptyset; SIG_DFL is valid for every signal, and refusals
    // (SIGKILL, SIGSTOP, the C library's own) change nothing.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut set: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

pub fn new_session() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::setsid() >= 0 }
}

pub fn place_fd(fd: i32, place: i32) -> bool {
    // SAFETY: dup2 on two numbers; received fds are above 3, so none is overwritten.
    unsafe { libc::dup2(fd, place) >= 0 }
}

pub fn limit(resource: libc::__rlimit_resource_t, value: u64) -> bool {
    // SAFETY: an all-zero rlimit is valid; both calls get a live pointer.
    unsafe {
        let mut limit: libc::rlimit = zeroed();
        if libc::getrlimit(resource, &raw mut limit) != 0 {
            return false;
        }
        limit.rlim_cur = value.min(limit.rlim_max);
        limit.rlim_max = limit.rlim_cur;
        libc::setrlimit(resource, &raw const limit) == 0
    }
}

/// `shifted` is niceness + 20.
pub fn renice(shifted: u64) -> bool {
    let nice = i32::try_from(shifted).unwrap_or(39).clamp(0, 39) - 20;
    // SAFETY: plain numbers; 0 names the calling process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

pub fn set_umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

pub fn die_with_parent() {
    // SAFETY: plain numbers. This program has one thread, so the trap of PDEATHSIG (it fires when
    // the forking thread ends) cannot spring.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

pub fn change_directory(path: *const libc::c_char) -> bool {
    // SAFETY: the caller's C string is live.
    unsafe { libc::chdir(path) == 0 }
}

/// Best effort, for files of /proc.
pub fn write_file(path: &CStr, bytes: &[u8]) {
    // SAFETY: a live C string, and pointer and length of one live slice.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, bytes.as_ptr().cast(), bytes.len());
            libc::close(fd);
        }
    }
}

/// Returns only on failure.
pub fn execute(
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
) {
    // SAFETY: the caller's NUL-terminated lists of live C strings.
    unsafe { libc::execve(program, argv, envp) };
}

pub fn kill(pid: i32, signal: i32) {
    // SAFETY: plain numbers; who may be hit is argued at each call.
    unsafe { libc::kill(pid, signal) };
}

/// Calls `visit` with the pid of each direct child that /proc shows at this moment.
pub fn for_each_child(mut visit: impl FnMut(i32)) {
    let path = format!("/proc/self/task/{}/children", pid());
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    for child in text
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
    {
        visit(child);
    }
}

fn wait_peek(kind: libc::idtype_t, id: i32) -> Option<(libc::siginfo_t, libc::rusage)> {
    // SAFETY: all-zero siginfo and rusage are valid, and both outlive the call. The raw call is
    // used because the C library's waitid gives no rusage.
    unsafe {
        let mut info: libc::siginfo_t = zeroed();
        let mut usage: libc::rusage = zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        let done = libc::syscall(
            libc::SYS_waitid,
            kind,
            id,
            &raw mut info,
            flags,
            &raw mut usage,
        );
        (done == 0 && info.si_pid() != 0).then_some((info, usage))
    }
}

/// Some ended child, left as it is.
pub fn peek_ended() -> Option<i32> {
    // SAFETY: a child's siginfo carries its pid.
    wait_peek(libc::P_ALL, 0).map(|(info, _)| unsafe { info.si_pid() })
}

pub fn has_ended(pid: i32) -> bool {
    wait_peek(libc::P_PID, pid).is_some()
}

/// How an ended, unreaped child ended and what it used.
pub fn peek_status(pid: i32) -> Option<Report> {
    let (info, usage) = wait_peek(libc::P_PID, pid)?;
    // SAFETY: a child's siginfo carries its status.
    let status = unsafe { info.si_status() };
    let exited = info.si_code == libc::CLD_EXITED;
    let micros =
        |time: libc::timeval| u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0);
    Some(Report::Exited {
        code: if exited { status } else { -1 },
        signal: if exited { 0 } else { status },
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    })
}

fn wait(pid: i32, flags: i32) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let ended = unsafe { libc::waitpid(pid, &raw mut status, flags | libc::__WALL) };
    (ended > 0).then(|| Ended {
        pid: ended,
        clean: libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
    })
}

/// Reaps a child known to have ended or to be about to.
pub fn reap(pid: i32) {
    wait(pid, 0);
}

pub fn reap_if_ended(pid: i32) {
    wait(pid, libc::WNOHANG);
}

pub fn reap_any() -> Option<Ended> {
    wait(-1, libc::WNOHANG)
}

/// True when no child is left, not even an unreaped one.
pub fn childless() -> bool {
    // SAFETY: an all-zero siginfo is valid and outlives the call.
    let done = unsafe {
        let mut info: libc::siginfo_t = zeroed();
        libc::waitid(
            libc::P_ALL,
            0,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL,
        )
    };
    done != 0 && errno() == libc::ECHILD
}
