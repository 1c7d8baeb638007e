//! Who the host is at this moment: what a guardian gets at its birth and keeps.
//!
//! A host that drops its privileges must not go on spawning with the old ones, so these are
//! compared before each spawn (credentials(7), namespaces(7)).

use crate::descriptor::{Descriptor, making};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use std::cell::RefCell;
use std::ffi::CStr;

/// Lines of proc_pid_status(5) that an agent inherits by way of the guardian.
const INHERITED: [&str; 11] = [
    "Uid:",
    "Gid:",
    "Groups:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "NoNewPrivs:",
    "Seccomp:",
    "Seccomp_filters:",
];

const NAMESPACES: [&CStr; 7] = [c"cgroup", c"ipc", c"mnt", c"net", c"pid", c"user", c"uts"];

/// A thread's own files of the kernel, open: finding them costs more than reading them.
struct Own {
    pid: u32,
    status: Descriptor,
    namespaces: Descriptor,
}

thread_local! {
    static OWN: RefCell<Option<Own>> = const { RefCell::new(None) };
}

impl Own {
    fn open() -> Option<Self> {
        let _making = making();
        let open = |path: &CStr, flags| rustix::fs::open(path, flags, Mode::empty()).ok();
        Some(Self {
            pid: std::process::id(),
            status: open(
                c"/proc/thread-self/status",
                OFlags::RDONLY | OFlags::CLOEXEC,
            )?
            .into(),
            namespaces: open(c"/proc/thread-self/ns", OFlags::PATH | OFlags::CLOEXEC)?.into(),
        })
    }
}

/// What a guardian inherits, and of which process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub pid: u32,
    credentials: String,
    /// Device, inode and mount of the root directory.
    root: (u64, u64, u64),
    /// What proc_pid_ns(5) calls the namespaces, one after the other.
    namespaces: Vec<u8>,
}

/// The rights of the calling thread, and the umask, which travels with each request.
///
/// The umask is read, not set and reset: umask(2) would race with other threads.
pub fn now() -> (Rights, u32) {
    // A thread that is ending has no place to keep them.
    let kept = OWN.try_with(|own| {
        let mut own = own.borrow_mut();
        // In a forked child they are closed, and would be the parent's.
        if own.as_ref().is_none_or(|own| own.pid != std::process::id()) {
            *own = Own::open();
        }
        own.as_ref().map(look)
    });
    match kept {
        Ok(Some(found)) => found,
        _ => Own::open().map_or_else(without_proc, |own| look(&own)),
    }
}

fn look(own: &Own) -> (Rights, u32) {
    let mut page = [0_u8; 8192];
    let read = rustix::io::pread(&own.status, &mut page, 0).unwrap_or(0);
    let status = std::str::from_utf8(&page[..read]).unwrap_or_default();
    let mut credentials = String::with_capacity(512);
    let mut umask = 0o022;
    for line in status.lines() {
        if let Some(mask) = line.strip_prefix("Umask:") {
            umask = u32::from_str_radix(mask.trim(), 8).unwrap_or(umask);
        } else if INHERITED.iter().any(|name| line.starts_with(name)) {
            credentials.push_str(line);
            credentials.push('\n');
        }
    }
    if status.is_empty() {
        return without_proc();
    }
    let namespaces = namespaces(own.namespaces.as_fd());
    (rights(credentials, namespaces), umask)
}

/// At least what system calls tell.
fn without_proc() -> (Rights, u32) {
    let credentials = format!(
        "{:?} {:?}",
        rustix::process::geteuid(),
        rustix::process::getegid()
    );
    (rights(credentials, Vec::new()), 0o022)
}

fn rights(credentials: String, namespaces: Vec<u8>) -> Rights {
    Rights {
        pid: std::process::id(),
        credentials,
        root: root(),
        namespaces,
    }
}

fn root() -> (u64, u64, u64) {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    match rustix::fs::statx(CWD, "/", AtFlags::empty(), wanted) {
        Ok(found) => (
            u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor),
            found.stx_ino,
            found.stx_mnt_id,
        ),
        // Kernels before 4.11 and old filters.
        Err(_) => rustix::fs::stat("/").map_or((0, 0, 0), |found| (found.st_dev, found.st_ino, 0)),
    }
}

/// Reading the links' text costs half of what looking behind them does.
fn namespaces(directory: BorrowedFd<'_>) -> Vec<u8> {
    let mut names = Vec::with_capacity(256);
    for name in NAMESPACES {
        let mut link = [0_u8; 64];
        let length = rustix::fs::readlinkat_raw(directory, name, &mut link).unwrap_or(0);
        names.extend_from_slice(&link[..length]);
        names.push(b'\n');
    }
    names
}
