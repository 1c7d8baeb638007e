//! Who the host is at this moment: what a guardian gets at its birth and keeps.
//!
//! A host that drops its privileges must not go on spawning with the old ones, so these are
//! compared before each spawn (credentials(7), namespaces(7)).

use std::fs;
use std::os::unix::fs::MetadataExt;

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

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

/// What a guardian inherits, and of which process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub pid: u32,
    credentials: String,
    /// Device and inode of the root directory, then of each namespace.
    places: Vec<(u64, u64)>,
}

/// The rights of the calling thread, and the umask, which travels with each request.
///
/// The umask is read, not set and reset: umask(2) would race with other threads.
pub fn now() -> (Rights, u32) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mut credentials = String::new();
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
    let place = |path: &str| fs::metadata(path).map_or((0, 0), |found| (found.dev(), found.ino()));
    let places = std::iter::once(place("/"))
        .chain(
            NAMESPACES
                .iter()
                .map(|name| place(&format!("/proc/thread-self/ns/{name}"))),
        )
        .collect();
    let rights = Rights {
        pid: std::process::id(),
        credentials,
        places,
    };
    (rights, umask)
}
