//! The delegated cgroup that an operator may name: which limits the kernel keeps there.
//!
//! Making, killing and removing an agent's own cgroup is the leash's work: it outlives the host.

use crate::sampler::Ceilings;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
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

#[cfg(test)]
mod tests {
    use super::*;

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
