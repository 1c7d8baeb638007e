//! The chaos harness: random kills of hosts, guardians and leashes, and an oracle for what is left.
//!
//! One program in all roles, so that a trial needs nothing but itself: `run` (the harness), `host`
//! (what is killed) and `adversary` (what must not survive); `figures` measures.
#![cfg(target_os = "linux")]
// The harness is a program: its modules are nobody's interface, and it speaks on stdout.
#![allow(unreachable_pub, clippy::print_stdout)]

mod adversary;
mod figures;
mod host;
mod oracle;
mod systematic;
mod trial;

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};
use trial::{Settings, Target};

fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words.get(1).map(String::as_str) {
        Some("adversary") => adversary::run(words.get(2).map_or("plain", String::as_str)),
        Some("host") => host::run(&words[2..]),
        Some("run") => run(&words[2..]),
        Some("systematic") => {
            oracle::become_subreaper();
            let all = ["host", "guardian", "leash", "free leash"].map(String::from);
            let roles = if words.len() > 2 {
                &words[2..]
            } else {
                &all[..]
            };
            std::process::exit(i32::from(systematic::run(roles) > 0));
        }
        Some("figures") => figures::run(&words[2..]),
        _ => {
            eprintln!(
                "vespera-chaos run --seconds S --trials N --seed N --target host|guardian|leash|mix \
                 --ledger FILE --hash H [--python PYTHON HOST.PY] [--python-in 10] [--grace MS] [--agents N]"
            );
            std::process::exit(2);
        }
    }
}

/// Options as `--name value`; a missing one has its default.
struct Options<'a>(&'a [String]);

impl Options<'_> {
    fn text(&self, name: &str) -> Option<&str> {
        let place = self.0.iter().position(|word| word == name)?;
        self.0.get(place + 1).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let Ok(number) = text.parse() else {
            eprintln!("{name}: '{text}' is no number; give a whole one");
            std::process::exit(2);
        };
        Some(number)
    }
}

/// Runs trials until time or number is used up; the exit code is 1 when anything survived.
fn run(words: &[String]) {
    let options = Options(words);
    let target = match options.text("--target").unwrap_or("mix") {
        "host" => Some(Target::Host),
        "guardian" => Some(Target::Guardian),
        "leash" => Some(Target::Leash),
        "mix" => None,
        other => {
            eprintln!("--target: '{other}' is none; use host, guardian, leash or mix");
            std::process::exit(2);
        }
    };
    let python = words
        .iter()
        .position(|word| word == "--python")
        .and_then(|place| Some((words.get(place + 1)?.clone(), words.get(place + 2)?.clone())));
    let seconds = Duration::from_secs(options.number("--seconds").unwrap_or(60));
    let trials = options.number("--trials").unwrap_or(u64::MAX);
    let first = options
        .number("--seed")
        .unwrap_or_else(|| fastrand::u64(..1 << 48));
    let hash = options.text("--hash").unwrap_or("unknown");
    let settings = Settings {
        target,
        python,
        python_in: options.number("--python-in").unwrap_or(10).max(1),
        grace_ms: options.number("--grace"),
        agents: options.number("--agents"),
    };
    let mut ledger = options.text("--ledger").map(|path| {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap_or_else(|error| {
                eprintln!("--ledger: {path}: {error}");
                std::process::exit(2);
            })
    });
    oracle::become_subreaper();
    let began = Instant::now();
    let (mut done, mut survivors) = (0_u64, 0);
    while done < trials && began.elapsed() < seconds {
        let seed = first + done;
        let result = trial::run(seed, &settings);
        survivors += result.survivors.len();
        if !result.survivors.is_empty() || result.broken.is_some() {
            println!("seed {seed}: {result:?}");
        }
        if let (Some(file), None) = (&mut ledger, &result.broken) {
            let mut line = serde_json::json!({
                "seed": seed,
                "kill": result.kill,
                "host": result.host,
                "grace_ms": result.grace_ms,
                "agents": result.agents,
                "spawned": result.spawned,
                "survivors": result.survivors.len(),
                "ms": result.milliseconds,
                "hash": hash,
            })
            .to_string();
            line.push('\n');
            if let Err(error) = file.write_all(line.as_bytes()) {
                eprintln!("the ledger cannot be written: {error}");
                std::process::exit(2);
            }
        }
        done += 1;
    }
    println!(
        "{done} trials from seed {first} in {:.1} s: {survivors} survivors",
        began.elapsed().as_secs_f64()
    );
    std::process::exit(i32::from(survivors > 0));
}
