//! Who the host is at this moment: what a guardian gets at its birth and keeps.
//!
//! A host that drops its privileges must not go on spawning with the old ones, so these are
//! compared before each spawn (credentials(7), namespaces(7)).

use crate::descriptor::{Descriptor, making};
use crate::own_pid::own_pid;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// A thread's own files of the kernel, open: finding them costs more than reading them. Another
/// thread that reads them sees that thread's rights, not its own.
#[derive(Debug)]
pub struct Asker {
    pid: u32,
    status: Descriptor,
    /// None where nobody may look.
    namespaces: Option<Descriptor>,
}

/// So many threads keep theirs: a host of hundreds needs its descriptors for agents.
const KEEPERS: usize = 8;

static KEEPING: AtomicUsize = AtomicUsize::new(0);

/// What a thread keeps until it ends.
struct Kept(Arc<Asker>);

impl Kept {
    fn by(own: Arc<Asker>) -> Result<Self, Arc<Asker>> {
        if KEEPING.fetch_add(1, Ordering::Relaxed) < KEEPERS {
            return Ok(Self(own));
        }
        KEEPING.fetch_sub(1, Ordering::Relaxed);
        Err(own)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEEPING.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    static OWN: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

impl Asker {
    /// The calling thread; `None` where it keeps no files open.
    pub fn here() -> Option<Arc<Self>> {
        let kept = |kept: &RefCell<Option<Kept>>| Some(Arc::clone(&kept.borrow().as_ref()?.0));
        OWN.try_with(kept).ok().flatten()
    }

    /// Its rights now, and the umask; `None` once it has ended, or in a forked child.
    pub fn now(&self) -> Option<(Rights, u32)> {
        (self.pid == own_pid()).then(|| look(self)).flatten()
    }

    fn open() -> Option<Arc<Self>> {
        let _making = making();
        let open = |path: &CStr, flags| rustix::fs::open(path, flags, Mode::empty()).ok();
        Some(Arc::new(Self {
            pid: own_pid(),
            status: open(
                c"/proc/thread-self/status",
                OFlags::RDONLY | OFlags::CLOEXEC,
            )?
            .into(),
            namespaces: open(c"/proc/thread-self/ns", OFlags::PATH | OFlags::CLOEXEC)
                .map(Descriptor::from),
        }))
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
    let own = own_pid();
    // A thread that is ending has no place to keep them.
    OWN.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        // In a forked child they are closed, and would be the parent's.
        if kept.as_ref().is_some_and(|kept| kept.0.pid != own) {
            *kept = None;
        }
        if kept.is_none() {
            match Kept::by(Asker::open()?) {
                Ok(new) => *kept = Some(new),
                Err(own) => return look(&own),
            }
        }
        kept.as_ref().and_then(|kept| look(&kept.0))
    })
    .unwrap_or_else(|_| Asker::open().and_then(|own| look(&own)))
    .unwrap_or_else(without_proc)
}

fn look(own: &Asker) -> Option<(Rights, u32)> {
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
        return None;
    }
    let namespaces = own.namespaces.as_ref().map(AsFd::as_fd).map(namespaces);
    Some((rights(credentials, namespaces.unwrap_or_default()), umask))
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
        pid: own_pid(),
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
