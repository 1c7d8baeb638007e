//! An agent that does not want to end, and trees that are hard to find.
//!
//! Every process of a tree ends itself after a minute, whatever happens to the harness; its name in
//! the environment (`CHAOS_TAG`) is inherited by all.

use std::io::{BufRead, Write};

/// The kinds of trees.
pub const KINDS: [&str; 8] = [
    "plain", "setsid", "double", "term", "stopped", "storm", "pipes", "crowd",
];

/// After this many seconds the kernel ends the process.
const SELF_DESTRUCT: u32 = 60;

/// Generations of a storm: each process starts the next and leaves.
const GENERATIONS: u32 = 200;

/// Becomes the tree `kind` and never returns.
pub fn run(kind: &str) -> ! {
    arm();
    match kind {
        "setsid" => child(|| {
            // SAFETY: no arguments; a process that has just been forked leads no group.
            unsafe { libc::setsid() };
            sleep()
        }),
        "double" => child(|| {
            child(|| sleep());
            quit()
        }),
        "term" => {
            for number in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
                // SAFETY: ignoring is valid for these signals.
                unsafe { libc::signal(number, libc::SIG_IGN) };
            }
            child(|| sleep());
        }
        "stopped" => {
            child(|| {
                // SAFETY: plain number, to this process.
                unsafe { libc::raise(libc::SIGSTOP) };
                sleep()
            });
        }
        "storm" => child(|| storm(GENERATIONS)),
        "pipes" => {
            child(|| sleep());
            // SAFETY: stdin is this process's own; the child holds stdout and stderr.
            unsafe { libc::close(0) };
        }
        "crowd" => {
            for _ in 0..8 {
                child(|| {
                    child(|| sleep());
                    sleep()
                });
            }
        }
        "answer" => answer(),
        "quit" => quit(),
        _ if kind.starts_with("tree:") => {
            let number = kind["tree:".len()..].parse().unwrap_or(0);
            for _ in 0..number {
                child(|| sleep());
            }
        }
        _ => {}
    }
    sleep()
}

/// Answers `initialize` as the CLI does, so that a start can complete.
fn answer() {
    let mut line = String::new();
    let mut input = std::io::stdin().lock();
    while input.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Ok(frame) = serde_json::from_str::<serde_json::Value>(&line)
            && frame["type"] == "control_request"
        {
            let reply = serde_json::json!({
                "type": "control_response",
                "response": {"subtype": "success", "request_id": frame["request_id"], "response": {}},
            });
            let mut output = std::io::stdout().lock();
            let _ = writeln!(output, "{reply}");
            let _ = output.flush();
        }
        line.clear();
    }
}

fn storm(left: u32) -> ! {
    if left == 0 {
        sleep();
    }
    child(move || storm(left - 1));
    quit()
}

fn arm() {
    // SAFETY: plain number; the default action ends the process.
    unsafe { libc::alarm(SELF_DESTRUCT) };
}

/// Runs `work` in a child; a refused fork is no error, the storm is only smaller.
fn child(work: impl FnOnce()) {
    // SAFETY: this program has one thread in this role, so the child may do what it likes.
    if unsafe { libc::fork() } == 0 {
        // fork(2) clears the alarm.
        arm();
        work();
    }
}

fn quit() -> ! {
    // SAFETY: ends this process.
    unsafe { libc::_exit(0) }
}

fn sleep() -> ! {
    loop {
        // SAFETY: no arguments; returns after a signal handler, and there is none.
        unsafe { libc::pause() };
    }
}
