//! Kills host, guardian and leash at every system call, one after the other: what a random moment
//! may never hit.
//!
//! The victim is stepped with ptrace(2) from one entry or exit of a system call to the next, and
//! ended at the Nth. N grows until the victim outlives its number.

use crate::oracle;
use crate::trial::{Finding, Trial, all_children_named};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// More than any role makes; a wrong count must not run for ever.
const MOST: u32 = 4000;

/// A victim that makes no call for so long has no work left.
const QUIET: Duration = Duration::from_millis(150);

/// Goes through the roles; returns how many kills left something.
pub fn run(roles: &[String]) -> usize {
    let mut leaks = 0;
    for role in roles {
        let mut reached = 0;
        for number in 1..MOST {
            let mut finding = Finding::default();
            let got_there = match role.as_str() {
                "host" => host(number, &mut finding),
                "guardian" => inside("guardian", number, &mut finding),
                "leash" | "free leash" => inside(role, number, &mut finding),
                other => {
                    eprintln!(
                        "systematic: '{other}' is none; use host, guardian, leash or free leash"
                    );
                    std::process::exit(2);
                }
            };
            oracle::clean_up();
            if !finding.survivors.is_empty() || finding.broken.is_some() {
                println!("{role} at stop {number}: {finding:?}");
                leaks += 1;
            }
            if !got_there {
                break;
            }
            reached = number;
        }
        println!("{role}: killed at each of its first {reached} entries and exits of system calls");
    }
    leaks
}

/// While it starts and spawns three agents; its first thread makes the calls.
fn host(number: u32, finding: &mut Finding) -> bool {
    let Some(mut trial) = Trial::start("systematic", 3, 0, finding) else {
        return false;
    };
    let pid = trial.pid();
    let got_there = seize(pid) && step(pid, number, || {});
    oracle::kill(pid, Signal::KILL);
    trial.conclude(Duration::from_secs(5), finding);
    got_there
}

/// While a guardian starts an agent, a leash ends one, or one that has ended one takes the next;
/// the host lives on and spawns again.
fn inside(role: &str, number: u32, finding: &mut Finding) -> bool {
    let Some(mut trial) = Trial::start("systematic", 0, 0, finding) else {
        return false;
    };
    trial.say("again");
    if !trial.heard("ok") {
        finding.broken = Some("no first agent".into());
        return false;
    }
    let pid = trial.pid();
    let guardian = all_children_named(pid, "vespera-guard").first().copied();
    let leash = guardian.and_then(|guardian| {
        all_children_named(guardian, "vespera-leash")
            .first()
            .copied()
    });
    let (Some(guardian), Some(leash)) = (guardian, leash) else {
        finding.broken = Some("no guardian or leash".into());
        return false;
    };
    let leader = oracle::processes()
        .into_iter()
        .find(|process| process.parent == leash)
        .map_or(0, |process| process.pid);
    let victim = if role == "guardian" { guardian } else { leash };
    let takes_next = role == "guardian" || role == "free leash";
    if role == "free leash" {
        oracle::kill(leader, Signal::KILL);
        let free = || oracle::processes().iter().all(|one| one.parent != leash);
        oracle::within(Duration::from_secs(2), free);
        // Until the host has heard of it too.
        std::thread::sleep(Duration::from_millis(20));
    }
    let got_there = seize(victim)
        && step(victim, number, || {
            if takes_next {
                trial.say("again");
            }
            if role != "free leash" && leader > 1 {
                oracle::kill(leader, Signal::KILL);
            }
        });
    if takes_next {
        trial.heard("ok");
    }
    trial.check_inside(finding);
    got_there
}

fn seize(pid: i32) -> bool {
    let options = libc::PTRACE_O_TRACESYSGOOD;
    // SAFETY: these requests take plain numbers; the victim is our own descendant.
    unsafe {
        libc::ptrace(libc::PTRACE_SEIZE, pid, 0, options) == 0
            && libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) == 0
    }
}

/// Steps to the Nth stop at a system call and kills there; false when it never came to that.
fn step(pid: i32, number: u32, stimulus: impl FnOnce()) -> bool {
    let mut stimulus = Some(stimulus);
    let mut stops = 0;
    let mut last = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: waits for our own tracee into a live local, without blocking.
        let found = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::__WALL) };
        if found == 0 && last.elapsed() < QUIET {
            std::thread::yield_now();
            continue;
        }
        if found != pid || !libc::WIFSTOPPED(status) {
            // It has ended by itself, or rests: let go of it.
            // SAFETY: plain numbers; INTERRUPT makes the stop that DETACH needs.
            unsafe {
                if found == 0 && libc::ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0) == 0 {
                    libc::waitpid(pid, &raw mut status, libc::__WALL);
                    libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0);
                }
            }
            return false;
        }
        last = Instant::now();
        let signal = libc::WSTOPSIG(status);
        let is_call = signal == libc::SIGTRAP | 0x80;
        stops += u32::from(is_call);
        if stops == number {
            oracle::kill(pid, Signal::KILL);
            return true;
        }
        let is_event = status >> 16 != 0;
        let deliver = if is_call || is_event { 0 } else { signal };
        // SAFETY: plain numbers; the tracee is stopped.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, deliver) };
        if let Some(begin) = stimulus.take() {
            begin();
        }
    }
}
