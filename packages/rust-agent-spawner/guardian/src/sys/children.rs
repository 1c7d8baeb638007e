//! Whom a process ends and reaps: its direct children only.

use super::{errno, pid};
use std::mem::zeroed;
use std::sync::atomic::{AtomicBool, Ordering};
use vespera_guardian::Report;

/// A child that was reaped.
pub struct Ended {
    pub pid: i32,
    pub clean: bool,
}

pub fn kill(pid: i32, signal: i32) {
    // SAFETY: plain numbers; who may be hit is argued at each call.
    unsafe { libc::kill(pid, signal) };
}

/// Whether /proc is that of our own pid namespace. Another's numbers mean strangers here.
static PROC_IS_OWN: AtomicBool = AtomicBool::new(false);

/// Looks once, for this process and all that it forks.
pub fn look_for_own_proc() -> bool {
    let own = std::fs::read_link("/proc/self")
        .is_ok_and(|link| link.to_str().and_then(|text| text.parse().ok()) == Some(pid()));
    PROC_IS_OWN.store(own, Ordering::Relaxed);
    own
}

/// Whether children can be found.
pub fn are_seen() -> bool {
    PROC_IS_OWN.load(Ordering::Relaxed)
}

/// Calls `visit` with the pid of each direct child that /proc shows at this moment; with none where
/// /proc is not ours.
pub fn for_each_child(visit: impl FnMut(i32)) {
    if !are_seen() {
        return;
    }
    let path = format!("/proc/self/task/{}/children", pid());
    match std::fs::read_to_string(path) {
        Ok(text) => text
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .for_each(visit),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(_) => all_processes()
            .filter(|other| parent_of(*other) == Some(pid()))
            .for_each(visit),
    }
}

/// All living descendants that /proc shows at this moment, children before their children.
pub fn descendants() -> Vec<i32> {
    if !are_seen() {
        return Vec::new();
    }
    let parents: Vec<_> = all_processes()
        .filter_map(|other| Some((other, parent_of(other)?)))
        .collect();
    let mut found = vec![pid()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = parents.iter().filter(|(_, its)| *its == parent);
        found.extend(children.map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

fn all_processes() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// `None` for the dead.
fn parent_of(process: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in field 2 may hold spaces and parentheses: count from its last one.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    fields.next()?.parse().ok().filter(|_| state != "Z")
}

/// What is known of a process that does not end.
pub fn describe(process: i32) -> Report {
    fn cut<const N: usize>(process: i32, file: &str) -> [u8; N] {
        let text = std::fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
        let text = text.trim_ascii();
        let mut place = [0; N];
        let length = text.len().min(N);
        place[..length].copy_from_slice(&text[..length]);
        place
    }
    Report::Survivor {
        pid: process,
        name: cut(process, "comm"),
        channel: cut(process, "wchan"),
    }
}

/// Some ended child of those asked about, left as it is: its pid, how it ended and what it used.
fn peek(kind: libc::idtype_t, id: i32) -> Option<(i32, Report)> {
    // SAFETY: all-zero siginfo and rusage are valid, and both outlive the call. The raw call is
    // used because the C library's waitid gives no rusage. A child's siginfo carries its pid and its
    // status.
    let (info, usage, pid, status) = unsafe {
        let mut info: libc::siginfo_t = zeroed();
        let mut usage: libc::rusage = zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
        let done = libc::syscall(
            libc::SYS_waitid,
            kind,
            id,
            &raw mut info,
            flags,
            &raw mut usage,
        );
        if done != 0 || info.si_pid() == 0 {
            return None;
        }
        (info, usage, info.si_pid(), info.si_status())
    };
    let exited = info.si_code == libc::CLD_EXITED;
    let end = Report::Exited {
        code: if exited { status } else { -1 },
        signal: if exited { 0 } else { status },
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    };
    Some((pid, end))
}

pub fn has_ended(pid: i32) -> bool {
    peek_status(pid).is_some()
}

/// How an ended, unreaped child ended and what it used.
pub fn peek_status(pid: i32) -> Option<Report> {
    peek(libc::P_PID, pid).map(|(_, end)| end)
}

fn wait(pid: i32, flags: i32) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let ended = unsafe { libc::waitpid(pid, &raw mut status, flags | libc::__WALL) };
    (ended > 0).then(|| Ended {
        pid: ended,
        clean: libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
    })
}

/// Reaps a child known to have ended or to be about to.
pub fn reap(pid: i32) {
    wait(pid, 0);
}

pub fn reap_if_ended(pid: i32) {
    wait(pid, libc::WNOHANG);
}

/// Reaps whoever has ended until it comes to `spared`, which it leaves: how that one has ended.
pub fn reap_all_but(spared: i32) -> Option<Report> {
    while let Some((pid, end)) = peek(libc::P_ALL, 0) {
        if pid == spared {
            return Some(end);
        }
        reap(pid);
    }
    None
}

pub fn reap_any() -> Option<Ended> {
    wait(-1, libc::WNOHANG)
}

/// True when no child is left, not even an unreaped one.
pub fn childless() -> bool {
    // SAFETY: an all-zero siginfo is valid and outlives the call.
    let done = unsafe {
        let mut info: libc::siginfo_t = zeroed();
        libc::waitid(
            libc::P_ALL,
            0,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL,
        )
    };
    done != 0 && errno() == libc::ECHILD
}

/// CPU time of all children that were reaped, and of theirs, in microseconds.
pub fn reaped_cpu_us() -> u64 {
    // SAFETY: an all-zero rusage is valid and outlives the call.
    let usage = unsafe {
        let mut usage: libc::rusage = zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

fn micros(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0)
}
