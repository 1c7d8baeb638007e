//! The program that is killed: it spawns adversaries through the engine and waits.
//!
//! It tells `spawned` on stdout after each agent, and obeys two words on stdin: `pause` (spawn no
//! more) and `again` (spawn one that answers, and say `ok` when it is ready).

use crate::adversary::KINDS;
use std::io::{BufRead, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use vespera_agent_spawner::agent::queue::Overflow;
use vespera_agent_spawner::agent::{Idle, Plan, Timeouts};
use vespera_agent_spawner::handle::Handle;
use vespera_agent_spawner::launch::Launch;
use vespera_agent_spawner::sampler::Ceilings;
use vespera_guardian::{Environment, Limits};

static PAUSED: AtomicBool = AtomicBool::new(false);

/// `tag agents grace_ms seed`.
pub fn run(words: &[String]) {
    // SAFETY: plain numbers. A harness that is gone leaves no host for ever; the handler of
    // Rust's runtime would survive the first SIGSEGV that is sent and not caused.
    unsafe {
        libc::alarm(60);
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
    }
    let number = |place: usize| words.get(place).and_then(|word| word.parse::<u64>().ok());
    let tag = words.first().cloned().unwrap_or_default();
    let agents = number(1).unwrap_or(4);
    let grace = u32::try_from(number(2).unwrap_or(0)).unwrap_or(0);
    let mut random = fastrand::Rng::with_seed(number(3).unwrap_or(0));
    let listener = {
        let tag = tag.clone();
        std::thread::spawn(move || obey(&tag, grace))
    };
    let mut handles = Vec::new();
    // Their leashes are free again when the adversaries come.
    let before = if agents > 0 { random.u64(..4) } else { 0 };
    for handle in (0..before).filter_map(|_| brief(&tag, grace)) {
        while handle
            .shared()
            .wait(Duration::from_secs(5), |view| {
                view.state.is_over().then_some(())
            })
            .is_none()
        {}
    }
    for index in 0..agents {
        if PAUSED.load(Ordering::Acquire) {
            break;
        }
        if random.u8(..4) == 0 {
            handles.extend(brief(&tag, grace));
        }
        let kind = KINDS[random.usize(..KINDS.len())];
        match Handle::start(
            &launch_of(&tag, index, kind, grace),
            Plan::default(),
            None,
            false,
        ) {
            Ok(handle) => {
                handles.push(handle);
                say("spawned");
            }
            Err(error) => say(&format!("failed {error}")),
        }
        if random.bool() {
            std::thread::sleep(Duration::from_micros(random.u64(..3000)));
        }
    }
    say("all");
    let _ = listener.join();
}

/// An agent that ends by itself at once.
fn brief(tag: &str, grace: u32) -> Option<Handle> {
    Handle::start(
        &launch_of(tag, 500, "quit", grace),
        Plan::default(),
        None,
        false,
    )
    .ok()
}

fn obey(tag: &str, grace: u32) {
    let mut kept = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        match line.as_str() {
            "pause" => {
                PAUSED.store(true, Ordering::Release);
                say("paused");
            }
            "again" => {
                let index = 1000 + kept.len() as u64;
                let launch = launch_of(tag, index, "answer", grace);
                match Handle::spawn(&launch, Plan::default(), &mut || false) {
                    Ok(handle) => {
                        kept.push(handle);
                        say("ok");
                    }
                    Err(error) => say(&format!("failed {error:?}")),
                }
            }
            _ => {}
        }
    }
    std::process::exit(0);
}

/// An agent that is the adversary `kind`.
pub fn launch_of(tag: &str, index: u64, kind: &str, grace: u32) -> Launch {
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.to_string_lossy().into_owned();
    let word = |text: &str| text.as_bytes().to_vec();
    let mut environment = Environment::default();
    environment.push(b"CHAOS_TAG", tag.as_bytes());
    Launch {
        agent_id: format!("agent-{index}"),
        session_id: format!("session-{index}"),
        argv: vec![word(&program), word("adversary"), word(kind)],
        environment: environment.into(),
        directory: word("/"),
        timeouts: Timeouts {
            startup: Duration::from_secs(50),
            turn: None,
            idle: Idle::default(),
            total: None,
            after_result: Duration::from_secs(10),
            write: Duration::from_secs(30),
        },
        limits: Limits::default(),
        host_death_grace_ms: grace,
        moment: 0,
        cgroup: None,
        transcript: None,
        standby: None,
        stands_by: false,
        ceilings: Ceilings::default(),
        overflow: Overflow::Spill,
        output_limit: 1 << 20,
    }
}

fn say(word: &str) {
    let mut output = std::io::stdout().lock();
    // A harness that is gone hears nothing; the alarm ends us.
    let _ = writeln!(output, "{word}");
    let _ = output.flush();
}
