//! Watches what trees use, for limits that the kernel cannot keep without a cgroup.
//!
//! One thread for the process, alive while somebody is watched: the reactor must not wait for
//! /proc.

use crate::agent::Shared;
use crate::kernel_files::shows_own_processes;
use crate::own_pid::own_pid;
use crate::usage::{self, Size};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two looks. A tree can pass its ceiling for that long.
const PERIOD: Duration = Duration::from_millis(200);

/// What a tree may use at most; `None` is no ceiling.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ceilings {
    /// Resident bytes.
    pub memory: Option<u64>,
    pub processes: Option<u64>,
    pub cpu: Option<Duration>,
}

impl Ceilings {
    /// Whether there is anything to watch.
    pub const fn is_set(self) -> bool {
        self.memory.is_some() || self.processes.is_some() || self.cpu.is_some()
    }

    fn breach(self, used: Size) -> Option<String> {
        let Size {
            rss,
            processes,
            cpu,
        } = used;
        match self {
            Self {
                memory: Some(most), ..
            } if rss > most => Some(format!(
                "limits.memory: the tree used {} of {}",
                vespera_config::format_size(rss),
                vespera_config::format_size(most)
            )),
            Self {
                processes: Some(most),
                ..
            } if processes > most => Some(format!(
                "limits.processes: the tree had {processes} processes of {most}"
            )),
            Self {
                cpu: Some(most), ..
            } if cpu > most => Some(format!(
                "limits.cpu_seconds: the tree used {:.1} s of {} s",
                cpu.as_secs_f64(),
                most.as_secs_f64()
            )),
            _ => None,
        }
    }
}

type Told = Box<dyn FnOnce(String) + Send>;

struct Watched {
    shared: Arc<Shared>,
    ceilings: Ceilings,
    told: Option<Told>,
}

/// The process's watching thread.
#[derive(Debug)]
pub struct Sampler;

/// The pid is of the process whose thread reads the list: a forked child starts without.
static WATCHED: Mutex<(u32, Vec<Watched>)> = Mutex::new((0, Vec::new()));

impl Sampler {
    /// Watches an agent until it is over; a breach is told once.
    pub fn watch(shared: Arc<Shared>, ceilings: Ceilings, told: Told) {
        if !shows_own_processes() {
            // Nobody would keep the promise, so the agent must not run.
            return told(
                "limits: /proc does not show this pid namespace, so nobody can watch the \
                 tree; mount /proc here, or name a cgroup"
                    .into(),
            );
        }
        let own = own_pid();
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.0 != own {
            *watched = (own, Vec::new());
        }
        watched.1.push(Watched {
            shared,
            ceilings,
            told: Some(told),
        });
        if watched.1.len() == 1 {
            let started = std::thread::Builder::new()
                .name("vespera-sampler".into())
                .spawn(run);
            if started.is_err() {
                // Nobody would keep the promise, so the agent must not run.
                if let Some(told) = watched.1.pop().and_then(|last| last.told) {
                    told("limits: no thread left to watch the tree with".into());
                }
            }
        }
    }
}

fn run() {
    loop {
        {
            let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
            let leashes: Vec<i32> = watched
                .1
                .iter()
                .map(|one| one.shared.view().leash)
                .collect();
            let sizes = usage::sizes_of_trees(&leashes);
            for ((one, size), leash) in watched.1.iter_mut().zip(sizes).zip(leashes) {
                if leash > 0 {
                    one.look(size);
                }
            }
            watched
                .1
                .retain(|one| one.told.is_some() && !one.shared.view().state.is_over());
            if watched.1.is_empty() {
                return;
            }
        }
        std::thread::sleep(PERIOD);
    }
}

impl Watched {
    fn look(&mut self, size: Size) {
        if let Some(words) = self.ceilings.breach(size)
            && let Some(told) = self.told.take()
        {
            told(words);
        }
    }
}
