//! The delegated cgroup that an operator may name: which limits the kernel keeps there.
//!
//! Making, killing and removing an agent's own cgroup is the leash's work: it outlives the host. What
//! a killed leash left is removed here, by its host or by the next one.

use crate::kernel_files::shows_own_processes;
use crate::own_pid::own_pid;
use crate::sampler::Ceilings;
use crate::sweep::start_time;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vespera_guardian::{INHERIT, Limits};

/// Which limits of an agent its cgroup keeps; the others are kept by looking at the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    memory: bool,
    processes: bool,
}

impl Kept {
    /// What the cgroup `parent` hands on to its children: the controllers that are switched on.
    pub fn by(parent: Option<&[u8]>) -> Self {
        let Some(parent) = parent else {
            return Self::default();
        };
        let file = Path::new(OsStr::from_bytes(parent)).join("cgroup.subtree_control");
        let text = fs::read_to_string(file).unwrap_or_default();
        let has = |controller| text.split_ascii_whitespace().any(|word| word == controller);
        Self {
            memory: has("memory"),
            processes: has("pids"),
        }
    }

    /// The limits for the cgroup.
    pub fn kernel_limits(self, limits: Limits) -> Limits {
        Limits {
            memory: if self.memory { limits.memory } else { INHERIT },
            processes: if self.processes {
                limits.processes
            } else {
                INHERIT
            },
            ..limits
        }
    }

    /// The limits that remain to be watched.
    pub fn ceilings(self, ceilings: Ceilings) -> Ceilings {
        Ceilings {
            memory: ceilings.memory.filter(|_| !self.memory),
            processes: ceilings.processes.filter(|_| !self.processes),
            cpu: ceilings.cpu,
        }
    }
}

/// The agent's own directory in the delegated cgroup `parent`, named after its mark.
pub fn of_agent(parent: &[u8], mark: &[u8]) -> Vec<u8> {
    let name: Vec<u8> = mark
        .to_ascii_lowercase()
        .iter()
        .map(|byte| if *byte == b'=' { b'_' } else { *byte })
        .collect();
    [parent, b"/", &name].concat()
}

/// Removes a cgroup without processes, and those that were made in it, the innermost first.
pub fn remove(group: &Path) {
    for inner in groups_in(group) {
        remove(&inner);
    }
    let _ = fs::remove_dir(group);
}

fn groups_in(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten();
    entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes from the delegated cgroup `parent` what hosts left there that are no more; once for each.
pub fn clear_of_the_dead(parent: &[u8]) {
    static CLEARED: Mutex<Option<HashSet<Vec<u8>>>> = Mutex::new(None);
    let mut cleared = CLEARED.lock().unwrap_or_else(PoisonError::into_inner);
    if !cleared.get_or_insert_default().insert(parent.to_vec()) || !shows_own_processes() {
        return;
    }
    for group in groups_in(Path::new(OsStr::from_bytes(parent))) {
        let owner = group.file_name().and_then(OsStr::to_str).and_then(owner);
        if owner.is_some_and(|(pid, born)| pid != own_pid() && start_time(pid) != Some(born)) {
            remove(&group);
        }
    }
}

/// Pid and start time of the host that made an agent's group: see [`of_agent`].
fn owner(name: &str) -> Option<(u32, u64)> {
    let mut parts = name.strip_prefix("vespera_")?.split('_');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dead_hosts_left_is_removed_and_nothing_else() {
        let parent = std::env::temp_dir().join(format!("vespera-groups-{}", own_pid()));
        let born = start_time(1).expect("the first process lives");
        let (dead, living) = ("vespera_1_1_7", format!("vespera_1_{born}_7"));
        for name in [dead, &living, "vespera_1_1_7/inner/most", "another"] {
            fs::create_dir_all(parent.join(name)).expect("a directory");
        }
        clear_of_the_dead(parent.as_os_str().as_bytes());
        assert!(!parent.join(dead).exists());
        assert!(parent.join(living).exists() && parent.join("another").exists());
        fs::remove_dir_all(parent).expect("ours");
    }

    #[test]
    fn a_limit_is_kept_once() {
        let limits = Limits {
            memory: 1,
            processes: 2,
            ..Limits::default()
        };
        let ceilings = Ceilings {
            memory: Some(1),
            processes: Some(2),
            cpu: None,
        };
        let kept = Kept {
            memory: true,
            processes: false,
        };
        assert_eq!(kept.kernel_limits(limits).memory, 1);
        assert_eq!(kept.kernel_limits(limits).processes, INHERIT);
        assert_eq!(kept.ceilings(ceilings).memory, None);
        assert_eq!(kept.ceilings(ceilings).processes, Some(2));
        assert_eq!(Kept::by(Some(b"/nowhere")), Kept::default());
    }
}
