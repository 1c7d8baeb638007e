//! What a leader does to itself between its birth and its exec: signals, session, limits, place.

use std::ffi::CStr;
use std::mem::zeroed;
use std::sync::atomic::Ordering;
use vespera_guardian::Spawn;

/// C libraries differ in the sign of what names a limit.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Signal state as a program expects it at birth: ignored signals survive exec otherwise.
pub fn reset_signals() {
    // SAFETY: `set` is initialised by sigemptyset; SIG_DFL is valid for every signal.
    unsafe {
        for signal in super::IGNORED {
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

/// What a process is killed at; it hears of it at `value`.
pub fn limit(resource: Resource, value: u64, slack: u64) -> bool {
    // SAFETY: an all-zero rlimit is valid; both calls get a live pointer.
    unsafe {
        let mut limit: libc::rlimit = zeroed();
        if libc::getrlimit(resource, &raw mut limit) != 0 {
            return false;
        }
        limit.rlim_cur = value.min(limit.rlim_max);
        limit.rlim_max = value.saturating_add(slack).min(limit.rlim_max);
        libc::setrlimit(resource, &raw const limit) == 0
    }
}

/// `shifted` is niceness + 20.
pub fn renice(shifted: u64) -> bool {
    let nice = i32::try_from(shifted).unwrap_or(39).clamp(0, 39) - 20;
    // SAFETY: plain numbers; 0 names the calling process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

/// The policy that a leash had before it began to give way, which a child inherits. Whoever may take
/// the other one may take this.
pub fn give_way_no_more() {
    if super::GIVES_WAY.load(Ordering::Relaxed) {
        super::set_policy(libc::SCHED_OTHER);
    }
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

/// Writes a file of the kernel's own; the error number when it is refused.
pub fn write_file(path: &CStr, bytes: &[u8]) -> Result<(), i32> {
    // SAFETY: a live C string, and pointer and length of one live slice.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd < 0 {
            return Err(super::errno());
        }
        let written = libc::write(fd, bytes.as_ptr().cast(), bytes.len());
        let outcome = if written < 0 {
            Err(super::errno())
        } else {
            Ok(())
        };
        libc::close(fd);
        outcome
    }
}

/// As high as a process that uses half of the memory.
const PREFERRED: i32 = 500;
const PREFERRED_TEXT: &[u8] = b"500";

/// What the kernel's OOM killer adds to a process's own size (proc_pid_oom_score_adj(5)). A child
/// is born with its parent's: that costs less than a look into /proc by each child.
pub struct OomScore {
    fd: i32,
    own: [u8; 8],
    len: usize,
}

impl OomScore {
    /// Without /proc nothing is ever changed.
    pub fn open() -> Self {
        let mut own = [0; 8];
        // SAFETY: a live C string, then pointer and length of one live array.
        unsafe {
            let flags = libc::O_RDWR | libc::O_CLOEXEC;
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), flags);
            let len = libc::pread(fd, own.as_mut_ptr().cast(), own.len(), 0);
            let len = usize::try_from(len).unwrap_or(0);
            let value = std::str::from_utf8(&own[..len]).ok();
            let value = value.and_then(|text| text.trim().parse::<i32>().ok());
            // A host that is to go sooner than that has agents that go with it.
            let len = if value.is_some_and(|value| value < PREFERRED) {
                len
            } else {
                0
            };
            Self { fd, own, len }
        }
    }

    /// A child that `work` makes is preferred by the OOM killer to guardian and host; raising needs
    /// no privilege.
    pub fn raised<T>(&self, work: impl FnOnce() -> T) -> T {
        self.set(PREFERRED_TEXT);
        let done = work();
        self.set(&self.own[..self.len]);
        done
    }

    fn set(&self, value: &[u8]) {
        if self.len > 0 {
            // SAFETY: pointer and length of one live slice.
            unsafe { libc::pwrite(self.fd, value.as_ptr().cast(), value.len(), 0) };
        }
    }
}

/// argv and the environment as execve(2) takes them, one after the other, and where the second
/// begins: room for both is asked for once, since a leash does this for each of its agents.
pub fn lists_of(request: &Spawn<'_>) -> (Vec<*const libc::c_char>, usize) {
    let (argc, envc) = (request.argc as usize, request.envc as usize);
    let mut pointers = Vec::with_capacity(argc + envc + 2);
    let ends = memchr::memchr_iter(0, request.strings);
    let mut begin = 0;
    for (place, end) in ends.enumerate() {
        if place == argc {
            pointers.push(std::ptr::null());
        }
        pointers.push(request.strings[begin..].as_ptr().cast());
        begin = end + 1;
    }
    if envc == 0 {
        pointers.push(std::ptr::null());
    }
    pointers.push(std::ptr::null());
    (pointers, argc + 1)
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
