//! The guardian's program: embedded in this library, and run from memory.

use crate::descriptor::{Descriptor, making};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use std::ffi::CString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vespera_guardian::HOST_FD;

/// Built by `build.rs`.
static PROGRAM: &[u8] = include_bytes!(env!("VESPERA_GUARDIAN"));

static IMAGE: Mutex<Option<Descriptor>> = Mutex::new(None);

/// What the embedded guardian is, for `build_info()`.
pub fn program_size() -> usize {
    PROGRAM.len()
}

/// A file of memory that holds `bytes`.
pub(super) fn memfd(name: &std::ffi::CStr, bytes: &[u8], flags: MemfdFlags) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | flags)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// Runs the guardian from one memfd that is kept, so that an upgraded wheel cannot break a
/// running host; where that is refused, from a private file that is gone once it runs.
pub(super) fn run(socket: &Descriptor, host: u32) -> io::Result<libc::pid_t> {
    let from_memory = image().and_then(|path| posix_spawn(&path, socket, host));
    let Err(refused) = from_memory else {
        return from_memory;
    };
    // No other place would help.
    if refused.raw_os_error() == Some(libc::EMFILE) {
        return Err(refused);
    }
    let mut tried = vec![format!("from memory: {refused}")];
    for place in private_places() {
        match run_file(&place, socket, host) {
            Ok(pid) => return Ok(pid),
            // Mounted noexec, read-only, full: the next may do.
            Err(error) => tried.push(format!("in {}: {error}", place.display())),
        }
    }
    Err(io::Error::new(
        refused.kind(),
        format!(
            "the guardian could not be run ({}); give TMPDIR a directory that allows programs",
            tried.join("; ")
        ),
    ))
}

fn image() -> io::Result<PathBuf> {
    let mut image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if image.is_none() {
        let _making = making();
        // Kernels before 6.3 do not know the flag, and need none: vm.memfd_noexec came with it.
        let fd = memfd(c"vespera-guardian", PROGRAM, MemfdFlags::EXEC)
            .or_else(|_| memfd(c"vespera-guardian", PROGRAM, MemfdFlags::empty()))?;
        // Above the numbers that the new process uses, so that none of its dup2 hits it.
        *image = Some(above_standard(&fd)?.into());
    }
    let number = image.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    Ok(PathBuf::from(format!("/proc/self/fd/{number}")))
}

/// A copy of a descriptor with a number that the new process does not use itself.
fn above_standard(fd: impl AsFd) -> io::Result<OwnedFd> {
    match rustix::io::fcntl_dupfd_cloexec(fd, HOST_FD + 1) {
        // The limit is below that number.
        Err(Errno::INVAL) => Err(Errno::MFILE.into()),
        outcome => Ok(outcome?),
    }
}

fn private_places() -> Vec<PathBuf> {
    let mut places = vec![std::env::temp_dir()];
    places.extend(
        ["XDG_RUNTIME_DIR", "HOME"]
            .iter()
            .filter_map(std::env::var_os)
            .map(PathBuf::from),
    );
    places.extend(["/dev/shm", "/var/tmp"].map(PathBuf::from));
    places
}

fn run_file(place: &Path, socket: &Descriptor, host: u32) -> io::Result<libc::pid_t> {
    let template = CString::new(place.join("vespera-XXXXXX").as_os_str().as_bytes())?;
    let mut template = template.into_bytes_with_nul();
    // SAFETY: a writable NUL-terminated buffer that ends in XXXXXX; a directory of mode 0700 with
    // a name that nobody can foresee.
    let made = unsafe { libc::mkdtemp(template.as_mut_ptr().cast()) };
    if made.is_null() {
        return Err(io::Error::last_os_error());
    }
    template.pop();
    let directory = PathBuf::from(std::ffi::OsStr::from_bytes(&template));
    let file = directory.join("guardian");
    let done = rustix::fs::open(
        &file,
        OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::RWXU,
    )
    .map_err(io::Error::from)
    .and_then(|opened| std::fs::File::from(opened).write_all(PROGRAM))
    .and_then(|()| posix_spawn(&file, socket, host));
    let _ = std::fs::remove_dir_all(&directory);
    done
}

fn posix_spawn(path: &Path, socket: &Descriptor, host: u32) -> io::Result<libc::pid_t> {
    // dup2 onto the same number would leave close-on-exec set.
    let socket = above_standard(socket)?;
    debug_assert!(
        rustix::io::fcntl_getfd(&socket).is_ok_and(|flags| flags.contains(FdFlags::CLOEXEC))
    );
    let path = CString::new(path.as_os_str().as_bytes())?;
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
