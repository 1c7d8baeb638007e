//! Reaps guardians, and what a dead one left to a host that inherits it.

use crate::own_pid::own_pid;
use crate::process_stat::Stat;
use crate::sweep::DIES;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Guardians that were let go and have not been reaped; theirs is the host's pid beside it.
static FORMER: Mutex<Vec<(u32, libc::pid_t)>> = Mutex::new(Vec::new());

/// When to look for what a dead guardian had not reaped: its leashes end their agents first.
const LOOKS: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
];

/// Reaps guardians that have ended since they were let go.
pub(super) fn reap_former() {
    let own = own_pid();
    let mut former = FORMER.lock().unwrap_or_else(PoisonError::into_inner);
    // 0 is a child that lives; a forked child of the host has none of these.
    former.retain(|(owner, pid)| *owner == own && wait_for(*pid) == 0);
}

/// A host that is process 1 of its container, or a subreaper, inherits the leashes that a dead
/// guardian had not reaped. They are told by the guardian's session, so that nobody else's child
/// is taken.
pub(super) fn mourn(own: u32, guardian: libc::pid_t) {
    let work = move || {
        for wait in LOOKS {
            std::thread::sleep(wait);
            // Nobody else is in that session, and a forked copy has no children of ours.
            for (pid, session) in children() {
                if session == guardian && own_pid() == own {
                    wait_for(pid);
                }
            }
        }
    };
    // Without a thread they wait for the container's end, as they would without us.
    let _ = std::thread::Builder::new()
        .name("vespera-mourner".into())
        .spawn(work);
}

/// Reaps those children of ours that are in the session of an agent, of which nobody else is: they
/// die with their leash, before anybody could look for them, and may not be dead yet.
pub(crate) fn reap_session(leader: libc::pid_t) {
    let began = Instant::now();
    loop {
        let mut dying = false;
        for (pid, session) in children() {
            dying |= session == leader && wait_for(pid) == 0;
        }
        if !dying || began.elapsed() >= DIES {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Our children and their sessions.
fn children() -> Vec<(libc::pid_t, libc::pid_t)> {
    let tasks = std::fs::read_dir("/proc/self/task");
    let pids = tasks.into_iter().flatten().flatten().filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("children")).ok()?;
        let pids = text.split_ascii_whitespace().map(str::parse);
        Some(pids.filter_map(Result::ok).collect::<Vec<libc::pid_t>>())
    });
    pids.flatten()
        .filter_map(|pid| {
            let stat = Stat::read(pid);
            stat.is_there().then_some((pid, stat.session))
        })
        .collect()
}

/// As waitpid(2) with WNOHANG: 0 while it lives, its pid once, then -1.
pub(super) fn wait_for(pid: libc::pid_t) -> libc::pid_t {
    let mut status = 0;
    // SAFETY: waits for our own child by pid, without blocking, into a live local.
    unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) }
}

/// A guardian of the process `host` is let go, and reaped when it has ended.
pub(super) fn let_go(host: u32, guardian: libc::pid_t) {
    FORMER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((host, guardian));
}
