//! Who the host is at this moment: what a guardian gets at its birth and keeps.
//!
//! A host that drops its privileges must not go on spawning with the old ones, so these are
//! compared before each spawn (credentials(7), namespaces(7)).

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
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

const NAMESPACES: [&CStr; 7] = [
    c"/proc/thread-self/ns/cgroup",
    c"/proc/thread-self/ns/ipc",
    c"/proc/thread-self/ns/mnt",
    c"/proc/thread-self/ns/net",
    c"/proc/thread-self/ns/pid",
    c"/proc/thread-self/ns/user",
    c"/proc/thread-self/ns/uts",
];

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
    let mut page = [0_u8; 8192];
    let status = read("/proc/thread-self/status", &mut page);
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
        // No /proc: at least what system calls tell.
        credentials = format!(
            "{:?} {:?}",
            rustix::process::geteuid(),
            rustix::process::getegid()
        );
    }
    let rights = Rights {
        pid: std::process::id(),
        credentials,
        root: root(),
        namespaces: namespaces(),
    };
    (rights, umask)
}

/// The start of a file of the kernel's own, by one read: each further one would cost as much.
fn read<'a>(path: &str, page: &'a mut [u8]) -> &'a str {
    let read = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(file, &mut *page))
        .unwrap_or(0);
    std::str::from_utf8(&page[..read]).unwrap_or_default()
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
fn namespaces() -> Vec<u8> {
    let mut names = Vec::with_capacity(256);
    for path in NAMESPACES {
        let mut link = [0_u8; 64];
        let length = rustix::fs::readlinkat_raw(CWD, path, &mut link).unwrap_or(0);
        names.extend_from_slice(&link[..length]);
        names.push(b'\n');
    }
    names
}
