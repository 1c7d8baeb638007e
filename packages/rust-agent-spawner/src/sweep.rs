//! The second net: finds an agent's processes by the mark in their environment and ends them.
//!
//! Used when leash and guardian died together, so that nobody is left who owns the tree. The mark
//! proves nothing (a tool may scrub its environment), it only helps. A process is ended through a
//! pidfd that was opened before its environment was read again: a number that was given to a
//! stranger meanwhile is never hit.

use crate::kernel_files::shows_own_processes;
use crate::own_pid::own_pid;
use crate::process_stat::{Stat, is_between_images};
use rustix::fd::{AsFd, OwnedFd};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, pidfd_open, pidfd_send_signal,
    waitid,
};
use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What still lives after this long is a survivor.
const DEADLINE: Duration = Duration::from_secs(5);

/// Nobody was found for so long. A process that shares its parent's memory until it has a program
/// of its own shows its parent's environment: it carries the mark a moment later.
const QUIET: Duration = Duration::from_millis(20);

/// A program's image is exchanged within this; on a machine where somebody always starts one, the
/// sweep must end all the same.
const SETTLES: Duration = Duration::from_millis(250);

/// Who was killed is dead within this, unless the kernel holds it.
pub(crate) const DIES: Duration = Duration::from_secs(1);

/// So many are waited for until they are dead: each takes a descriptor. Of more the dead are reaped.
const HELD: usize = 64;

static SLOT: AtomicU64 = AtomicU64::new(1);

/// The environment entry of one more agent: `VESPERA_<pid>_<start time>=<slot>`.
///
/// The start time (clock ticks since boot, field 22 of proc_pid_stat(5)) tells hosts apart that
/// had one pid after the other.
pub fn mark() -> Vec<u8> {
    static HOST: OnceLock<(u32, u64)> = OnceLock::new();
    let own = own_pid();
    let born = || start_time(own).unwrap_or(0);
    let mut host = *HOST.get_or_init(|| (own, born()));
    if host.0 != own {
        // A forked child is a host of its own.
        host = (own, born());
    }
    let slot = SLOT.fetch_add(1, Ordering::Relaxed);
    format!("VESPERA_{}_{}={slot}", host.0, host.1).into_bytes()
}

/// Clock ticks since boot at which a process began; `None` for one that is not there.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = Stat::read(i32::try_from(pid).ok()?);
    stat.is_there().then(|| stat.start())
}

/// Ends every process that carries `mark`; returns how many were ended, and who survives.
pub fn sweep(mark: &[u8]) -> (u32, Vec<i32>) {
    if !shows_own_processes() {
        return (0, Vec::new());
    }
    let began = Instant::now();
    let mut quiet_since = began;
    let mut ended = BTreeMap::new();
    let survivors = loop {
        let looked = Instant::now();
        let (found, unsettled) = marked(mark);
        if !found.is_empty() || unsettled && began.elapsed() < SETTLES {
            quiet_since = Instant::now();
        } else if looked.duration_since(quiet_since) >= QUIET {
            break Vec::new();
        }
        if began.elapsed() >= DEADLINE {
            break found;
        }
        for pid in found {
            if let Some(number) = Pid::from_raw(pid)
                && let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty())
                && carries(pid, mark) == Some(true)
                && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
            {
                let held = (ended.len() < HELD).then_some(pidfd);
                ended.entry(pid).or_insert(held);
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    ended.retain(|pid, _| !survivors.contains(pid));
    let count = u32::try_from(ended.len()).unwrap_or(u32::MAX);
    let (held, others): (Vec<_>, Vec<_>) = ended.into_iter().partition(|(_, held)| held.is_some());
    reap(held.into_iter().filter_map(|(_, held)| held).collect());
    for pid in others.iter().filter_map(|(pid, _)| Pid::from_raw(*pid)) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
    (count, survivors)
}

/// A host that is process 1 or a subreaper has inherited who was ended; of nobody else are they
/// children. One that is dying has no environment any more, and cannot be reaped yet.
fn reap(mut ended: Vec<OwnedFd>) {
    let began = Instant::now();
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        ended.retain(|pidfd| matches!(waitid(WaitId::PidFd(pidfd.as_fd()), options), Ok(None)));
        if ended.is_empty() || began.elapsed() >= DIES {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Who carries `mark`, and whether there is somebody who cannot be told yet.
fn marked(mark: &[u8]) -> (Vec<i32>, bool) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return (Vec::new(), false);
    };
    let (mut found, mut unsettled) = (Vec::new(), false);
    let numbers = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    for pid in numbers {
        match carries(pid, mark) {
            Some(true) => found.push(pid),
            Some(false) => {}
            None => unsettled = true,
        }
    }
    (found, unsettled)
}

/// `None` for a process on its way through `execve`: its old environment is gone, and the new one
/// is not there yet. A process that has ended has none left to read.
fn carries(pid: i32, mark: &[u8]) -> Option<bool> {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
        return Some(false);
    };
    if environ.is_empty() && is_between_images(pid) {
        return None;
    }
    Some(environ.split(|byte| *byte == 0).any(|entry| entry == mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A pair: the name and the value of the mark's entry.
    fn entry(mark: &[u8]) -> (&str, &str) {
        let text = std::str::from_utf8(mark).expect("ascii");
        text.split_once('=').expect("an entry")
    }

    fn sleeper(name: &str, value: &str) -> Child {
        Command::new("sleep")
            .arg("20")
            .env(name, value)
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep starts")
    }

    #[test]
    fn only_who_carries_the_mark_is_ended() {
        let mark = mark();
        let (name, value) = entry(&mark);
        let (mut ours, mut other) = (sleeper(name, value), sleeper(name, "0"));
        assert_eq!(sweep(&mark), (1, vec![]));
        assert!(
            ours.wait().is_err(),
            "its parent, which we are, has reaped it"
        );
        assert!(other.try_wait().expect("our child").is_none());
        other.kill().expect("our child");
        other.wait().expect("our child");
    }

    #[test]
    fn of_more_than_can_be_held_all_are_ended() {
        let mark = mark();
        let (name, value) = entry(&mark);
        let number = HELD + 16;
        let mut ours: Vec<_> = (0..number).map(|_| sleeper(name, value)).collect();
        let ended = u32::try_from(number).expect("few");
        assert_eq!(sweep(&mark), (ended, vec![]));
        // Those that were held are reaped; of the others, who was dead by then.
        let left = ours.iter_mut().filter_map(|child| child.wait().ok());
        assert!(left.count() <= number - HELD);
        assert_eq!(sweep(&mark), (0, vec![]));
    }

    #[test]
    fn who_is_still_dying_is_reaped_when_dead() {
        let mut child = sleeper("NO", "mark");
        let pid = i32::try_from(child.id()).expect("a pid");
        let number = Pid::from_raw(pid).expect("not 0");
        let pidfd = pidfd_open(number, PidfdFlags::empty()).expect("it lives");
        std::thread::scope(|scope| {
            scope.spawn(|| reap(vec![pidfd]));
            std::thread::sleep(Duration::from_millis(100));
            // SAFETY: kill(2) touches no memory, and nobody but us reaps our child.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        });
        assert!(child.wait().is_err(), "reaped");
    }

    #[test]
    fn who_is_just_exchanging_its_image_is_waited_for() {
        // `spawn` returns when the child leaves our memory, which is before its new image has an
        // environment; one try in hundreds meets it.
        for _ in 0..150 {
            let mark = mark();
            let (name, value) = entry(&mark);
            let mut ours = sleeper(name, value);
            assert_eq!(sweep(&mark), (1, vec![]));
            assert!(ours.wait().is_err(), "reaped");
        }
    }

    #[test]
    fn an_empty_environment_is_no_image_on_its_way() {
        let mut bare = Command::new("sleep")
            .arg("20")
            .env_clear()
            .stdin(Stdio::null())
            .spawn()
            .expect("sleep starts");
        let pid = i32::try_from(bare.id()).expect("a pid");
        while carries(pid, b"X=1").is_none() {}
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).expect("ours"), b"");
        assert_eq!(carries(pid, b"X=1"), Some(false));
        bare.kill().expect("our child");
        // The dead, before anybody asked for their end.
        while !fs::read_to_string(format!("/proc/{pid}/stat"))
            .expect("not reaped")
            .contains(") Z ")
        {}
        assert_eq!(carries(pid, b"X=1"), Some(false));
        bare.wait().expect("our child");
        // A thread of the kernel.
        assert_eq!(carries(2, b"X=1"), Some(false));
    }
}
