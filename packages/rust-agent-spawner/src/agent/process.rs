//! Starts the guardian and asks it for agents: the only way a process comes to be here.
//!
//! The host itself never forks, installs no signal handler and reaps nothing but its guardian.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use rustix::pipe::PipeFlags;
use std::ffi::CString;
use std::io::{self, IoSlice, Write};
use std::sync::{Arc, Mutex, PoisonError};
use vespera_guardian::{HOST_FD, Limits, MAX_INLINE, Spawn, VERSION, read_hello};

/// The guardian program, built by `build.rs`.
static PROGRAM: &[u8] = include_bytes!(env!("VESPERA_GUARDIAN"));

/// Every request and the guardian's first word have this long.
const DEADLINE_MS: i64 = 5000;

/// One agent to start. `program` and `directory` are absolute.
#[derive(Debug)]
pub struct Request<'a> {
    pub program: &'a [u8],
    pub directory: &'a [u8],
    pub argv: &'a [&'a [u8]],
    pub environment: &'a [&'a [u8]],
    pub limits: Limits,
    /// How long an agent may go on after its host's death, in milliseconds.
    pub host_death_grace_ms: u32,
}

/// The host's ends of one agent.
#[derive(Debug)]
pub struct Ends {
    pub leash: OwnedFd,
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Who asks: a guardian keeps the rights of its birth, so a host with others needs a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    pid: u32,
    user: u32,
    group: u32,
}

impl Owner {
    fn now() -> Self {
        Self {
            pid: std::process::id(),
            user: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
        }
    }
}

/// A running guardian.
#[derive(Debug)]
pub struct Guardian {
    socket: OwnedFd,
    pid: libc::pid_t,
    owner: Owner,
}

static CURRENT: Mutex<Option<Arc<Guardian>>> = Mutex::new(None);
static IMAGE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// The guardian of this process, started at first use and again when it has died.
///
/// # Errors
/// What the system said when it could not be started.
pub fn guardian() -> io::Result<Arc<Guardian>> {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = Owner::now();
    if let Some(running) = current.as_ref()
        && running.owner == owner
        && running.is_alive()
    {
        return Ok(Arc::clone(running));
    }
    let started = Arc::new(Guardian::start(owner)?);
    if current
        .as_ref()
        .is_some_and(|last| last.owner.pid == owner.pid)
    {
        crate::metrics::GUARDIAN_RESTARTS.add(1);
    }
    *current = Some(Arc::clone(&started));
    Ok(started)
}

/// What the embedded guardian is, for `build_info()`.
pub fn program_size() -> usize {
    PROGRAM.len()
}

impl Guardian {
    /// Pid of the guardian process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    fn is_alive(&self) -> bool {
        // A forked copy of the host is nobody's parent here, and `owner` has told it apart.
        let mut status = 0;
        // SAFETY: waits for our own child by pid, without blocking, into a live local.
        unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) == 0 }
    }

    fn start(owner: Owner) -> io::Result<Self> {
        let (ours, theirs) = seqpacket_pair()?;
        let pid = run_image(&theirs, owner.pid)?;
        drop(theirs);
        let guardian = Self {
            socket: ours,
            pid,
            owner,
        };
        let mut hello = [0_u8; 16];
        guardian.wait(rustix::event::PollFlags::IN)?;
        let (read, _) = rustix::net::recv(&guardian.socket, &mut hello, RecvFlags::DONTWAIT)?;
        match read_hello(&hello[..read]) {
            Some((VERSION, _)) => Ok(guardian),
            Some((version, _)) => Err(io::Error::other(format!(
                "the guardian speaks version {version}, this engine {VERSION}"
            ))),
            None => Err(io::Error::other(
                "the guardian ended at start; run 'vespera doctor'",
            )),
        }
    }

    /// Starts an agent; how the start went arrives on the leash's socket.
    ///
    /// # Errors
    /// No descriptors left, or a guardian that does not take the request within five seconds.
    pub fn spawn(&self, request: &Request<'_>) -> io::Result<Ends> {
        let umask = current_umask();
        let (header, strings) = Spawn::encode(
            request.host_death_grace_ms,
            umask,
            request.limits,
            request.program,
            request.directory,
            request.argv,
            request.environment,
        );
        // Everything that can fail for want of descriptors is allocated before the spawn.
        let (leash, leash_far) = seqpacket_pair()?;
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
        for fd in [&leash, &stdin, &stdout, &stderr] {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let spill = if strings.len() > MAX_INLINE {
            Some(memfd(c"vespera-request", &strings)?)
        } else {
            None
        };
        let mut fds: Vec<BorrowedFd<'_>> = vec![
            leash_far.as_fd(),
            stdin_far.as_fd(),
            stdout_far.as_fd(),
            stderr_far.as_fd(),
        ];
        fds.extend(spill.as_ref().map(AsFd::as_fd));
        let parts = [
            IoSlice::new(&header),
            IoSlice::new(if spill.is_some() { &[] } else { &strings }),
        ];
        self.send(&parts, &fds)?;
        Ok(Ends {
            leash,
            stdin,
            stdout,
            stderr,
        })
    }

    fn send(&self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        loop {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(fds));
            match rustix::net::sendmsg(
                &self.socket,
                parts,
                &mut control,
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(_) => return Ok(()),
                // Full socket, or too many descriptors in flight: both mean "later".
                Err(Errno::AGAIN) => self.wait(rustix::event::PollFlags::OUT)?,
                Err(Errno::TOOMANYREFS) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self, direction: rustix::event::PollFlags) -> io::Result<()> {
        let mut watch = [rustix::event::PollFd::new(&self.socket, direction)];
        let limit = rustix::time::Timespec {
            tv_sec: DEADLINE_MS / 1000,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut watch, Some(&limit)) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the guardian did not answer within 5 s",
            )),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn memfd(name: &std::ffi::CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// The host's umask, read without changing it: umask(2) could race with another thread.
fn current_umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(line.trim(), 8).ok()
        })
        .unwrap_or(0o022)
}

/// Runs the guardian from one memfd that is kept, so that an upgraded wheel cannot break a
/// running host; where that is refused, from a private file that is gone once it runs.
fn run_image(socket: &OwnedFd, host: u32) -> io::Result<libc::pid_t> {
    let mut image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if image.is_none() {
        let fd = memfd(c"vespera-guardian", PROGRAM)?;
        // Above the numbers that the new process uses, so that none of its dup2 hits it.
        *image = Some(rustix::io::fcntl_dupfd_cloexec(&fd, 100)?);
    }
    let path = image
        .as_ref()
        .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()))
        .unwrap_or_default();
    posix_spawn(&path, socket, host).or_else(|_| {
        let directory = std::env::temp_dir().join(format!("vespera-{host}-{VERSION}"));
        std::fs::DirBuilder::new().create(&directory)?;
        rustix::fs::chmod(&directory, Mode::RWXU)?;
        let file = directory.join("guardian");
        let opened = rustix::fs::open(
            &file,
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RWXU,
        )?;
        let mut opened = std::fs::File::from(opened);
        let done = opened.write_all(PROGRAM).and_then(|()| {
            drop(opened);
            posix_spawn(&file.to_string_lossy(), socket, host)
        });
        let _ = std::fs::remove_dir_all(&directory);
        done
    })
}

fn posix_spawn(path: &str, socket: &OwnedFd, host: u32) -> io::Result<libc::pid_t> {
    // dup2 onto the same number would leave close-on-exec set.
    let socket = rustix::io::fcntl_dupfd_cloexec(socket, 100)?;
    debug_assert!(
        rustix::io::fcntl_getfd(&socket).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC))
    );
    let path = CString::new(path)?;
    let host = CString::new(host.to_string())?;
    let name = c"vespera-guardian";
    let argv = [
        name.as_ptr().cast_mut(),
        host.as_ptr().cast_mut(),
        std::ptr::null_mut(),
    ];
    let environment = [std::ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: actions and attributes are initialised before use and destroyed after; every C
    // string and list outlives the call and is NUL-terminated.
    let result = unsafe {
        let mut actions = std::mem::zeroed();
        let mut attributes = std::mem::zeroed();
        libc::posix_spawn_file_actions_init(&raw mut actions);
        libc::posix_spawnattr_init(&raw mut attributes);
        for fd in 0..3 {
            libc::posix_spawn_file_actions_addopen(
                &raw mut actions,
                fd,
                c"/dev/null".as_ptr(),
                libc::O_RDWR,
                0,
            );
        }
        libc::posix_spawn_file_actions_adddup2(&raw mut actions, socket.as_raw_fd(), HOST_FD);
        // The spawning thread's blocked and ignored signals are not the guardian's.
        let mut signals = std::mem::zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::posix_spawnattr_setsigmask(&raw mut attributes, &raw const signals);
        libc::sigfillset(&raw mut signals);
        libc::posix_spawnattr_setsigdefault(&raw mut attributes, &raw const signals);
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
        libc::posix_spawnattr_setflags(
            &raw mut attributes,
            libc::c_short::try_from(flags).unwrap_or(0),
        );
        let result = libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            &raw const actions,
            &raw const attributes,
            argv.as_ptr(),
            environment.as_ptr(),
        );
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        libc::posix_spawnattr_destroy(&raw mut attributes);
        result
    };
    if result == 0 {
        Ok(pid)
    } else {
        Err(io::Error::from_raw_os_error(result))
    }
}
