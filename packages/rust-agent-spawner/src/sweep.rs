//! The second net: finds an agent's processes by the mark in their environment and ends them.
//!
//! Used when leash and guardian died together, so that nobody is left who owns the tree. The mark
//! proves nothing (a tool may scrub its environment), it only helps. A process is ended through a
//! pidfd that was opened before its environment was read again: a number that was given to a
//! stranger meanwhile is never hit.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What still lives after this long is a survivor.
const DEADLINE: Duration = Duration::from_secs(5);

static SLOT: AtomicU64 = AtomicU64::new(1);

/// The environment entry of one more agent: `VESPERA_<pid>_<start time>=<slot>`.
///
/// The start time (clock ticks since boot, field 22 of proc_pid_stat(5)) tells hosts apart that
/// had one pid after the other.
pub fn mark() -> Vec<u8> {
    static HOST: OnceLock<(u32, u64)> = OnceLock::new();
    let own = std::process::id();
    let mut host = *HOST.get_or_init(|| (own, start_time()));
    if host.0 != own {
        // A forked child is a host of its own.
        host = (own, start_time());
    }
    let slot = SLOT.fetch_add(1, Ordering::Relaxed);
    format!("VESPERA_{}_{}={slot}", host.0, host.1).into_bytes()
}

fn start_time() -> u64 {
    // The name in field 2 may hold spaces and parentheses: count from its last one.
    fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|stat| {
            let (_, rest) = stat.rsplit_once(')')?;
            rest.split_ascii_whitespace().nth(19)?.parse().ok()
        })
        .unwrap_or(0)
}

/// Ends every process that carries `mark`; returns how many were ended and how many survive.
pub fn sweep(mark: &[u8]) -> (u32, u32) {
    let began = Instant::now();
    let mut ended = BTreeSet::new();
    loop {
        let found = marked(mark);
        if found.is_empty() || began.elapsed() >= DEADLINE {
            return (count(ended.len()), count(found.len()));
        }
        for pid in found {
            if let Some(number) = Pid::from_raw(pid)
                && let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty())
                && carries(pid, mark)
                && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
            {
                ended.insert(pid);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn marked(mark: &[u8]) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| carries(*pid, mark))
        .collect()
}

/// A process that has ended has no environment left to read.
fn carries(pid: i32, mark: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn only_who_carries_the_mark_is_ended() {
        let mark = mark();
        let text = String::from_utf8(mark.clone()).expect("ascii");
        let (name, value) = text.split_once('=').expect("an entry");
        let start = |value: &str| {
            Command::new("sleep")
                .arg("20")
                .env(name, value)
                .stdin(Stdio::null())
                .spawn()
                .expect("sleep starts")
        };
        let (mut ours, mut other) = (start(value), start("0"));
        assert_eq!(sweep(&mark), (1, 0));
        assert!(!ours.wait().expect("our child").success());
        assert!(other.try_wait().expect("our child").is_none());
        other.kill().expect("our child");
        other.wait().expect("our child");
    }
}
