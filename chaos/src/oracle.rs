//! Who is left: the harness adopts every escapee, and a trial's processes carry its tag.

use rustix::process::{Pid, Signal, WaitOptions};
use std::fs;
use std::time::{Duration, Instant};

/// Every process that loses its parent below the harness becomes its child.
pub fn become_subreaper() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        eprintln!("the harness cannot adopt orphans: {error}");
        std::process::exit(2);
    }
}

/// One process of /proc.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub state: u8,
    pub name: String,
}

/// All processes at this moment.
pub fn processes() -> Vec<Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

pub fn read(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    Some(Process {
        pid,
        state: *fields.next()?.as_bytes().first()?,
        parent: fields.next()?.parse().ok()?,
        name: head.split_once('(')?.1.to_owned(),
    })
}

/// Whether a process carries the trial's tag.
pub fn is_tagged(pid: i32, tag: &str) -> bool {
    let entry = format!("CHAOS_TAG={tag}");
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
        environ
            .split(|byte| *byte == 0)
            .any(|word| word == entry.as_bytes())
    })
}

/// Living processes with the tag.
pub fn tagged(tag: &str) -> Vec<Process> {
    processes()
        .into_iter()
        .filter(|process| !b"ZX".contains(&process.state) && is_tagged(process.pid, tag))
        .collect()
}

/// Tagged processes that no living leash below `host` owns.
pub fn strays(tag: &str, host: i32) -> Vec<Process> {
    let all = processes();
    let find = |pid: i32| all.iter().find(|process| process.pid == pid);
    let owned = |process: &Process| {
        let mut current = Some(process);
        let mut leash = false;
        while let Some(one) = current {
            leash |= one.name == "vespera-leash" && one.state != b'Z';
            if one.pid == host {
                return leash;
            }
            current = find(one.parent).filter(|parent| parent.pid > 1);
        }
        false
    };
    all.iter()
        .filter(|process| {
            !b"ZX".contains(&process.state) && is_tagged(process.pid, tag) && !owned(process)
        })
        .cloned()
        .collect()
}

/// Children of a process, by their name.
pub fn children_named(parent: i32, name: &str) -> Vec<i32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    fs::read_to_string(path)
        .unwrap_or_default()
        .split_ascii_whitespace()
        .filter_map(|word| word.parse().ok())
        .filter(|pid| read(*pid).is_some_and(|process| process.name == name))
        .collect()
}

/// Reaps what has ended; true when nobody is left below the harness.
pub fn childless() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Waits until `done`, at most so long; the milliseconds that it took, or `None`.
pub fn within(limit: Duration, mut done: impl FnMut() -> bool) -> Option<f64> {
    let began = Instant::now();
    loop {
        if done() {
            return Some(began.elapsed().as_secs_f64() * 1000.0);
        }
        if began.elapsed() >= limit {
            return None;
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Sends a signal; a process that is gone is none of our business.
pub fn kill(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Ends whatever is left below the harness, level by level, until there is nobody.
pub fn clean_up() {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let path = format!("/proc/self/task/{own}/children");
    while !childless() {
        for word in fs::read_to_string(&path).unwrap_or_default().split(' ') {
            if let Ok(pid) = word.trim().parse() {
                kill(pid, Signal::KILL);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
