//! Tells a kill by the kernel's OOM killer from any other SIGKILL: the kernel counts them.
//!
//! The count is of the nearest cgroup that can be read, else of the machine (proc_vmstat(5)), so
//! it is evidence and not proof: another victim in the same moment counts too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Reading the count takes longer than a spawn may: agents that start together share one.
const FRESH: Duration = Duration::from_secs(1);

/// The count at most a second ago.
pub fn recent_kills() -> u64 {
    static LAST: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match *last {
        Some((at, count)) if at.elapsed() < FRESH => count,
        _ => {
            let count = kills();
            *last = Some((Instant::now(), count));
            count
        }
    }
}

/// How many processes the OOM killer has ended so far.
pub fn kills() -> u64 {
    static SOURCE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let source = SOURCE.get_or_init(|| {
        let cgroup = own_cgroup()?;
        cgroup
            .ancestors()
            .map(|directory| directory.join("memory.events"))
            .find(|file| count(file).is_some())
            .or_else(|| Some(PathBuf::from("/proc/vmstat")))
    });
    source
        .as_deref()
        .or(Some(Path::new("/proc/vmstat")))
        .and_then(count)
        .unwrap_or(0)
}

fn count(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == "oom_kill").then(|| value.trim().parse().ok())?
    })
}

/// The directory of this process's cgroup2, where one is mounted.
fn own_cgroup() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right
            .starts_with("cgroup2 ")
            .then(|| left.split(' ').nth(4))?
    })?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_counts_and_never_backwards() {
        let before = recent_kills();
        assert!(kills() >= before);
        let vmstat = Path::new("/proc/vmstat");
        assert!(count(vmstat).is_some(), "kernels since 4.13 have oom_kill");
    }
}
