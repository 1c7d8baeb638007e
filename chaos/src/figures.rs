//! Figures of containment: what it costs and how it grows. Each prints one line, ratios first.
//!
//! `memory N` · `flat N` · `kill N ROUNDS` · `size ROUNDS`; see the README for what they mean.

use crate::host::launch_of;
use crate::oracle;
use rustix::process::Resource;
use std::fs;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vespera_agent_spawner::agent::Plan;
use vespera_agent_spawner::handle::Handle;

/// So many starts are in flight in the spawn loops.
const WIDTH: usize = 16;

pub fn run(words: &[String]) {
    let number = |place: usize, usual: usize| {
        words
            .get(place)
            .and_then(|word| word.parse().ok())
            .unwrap_or(usual)
    };
    // This program's own limit, not a library's: thousands of agents need four descriptors each.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let all = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, all);
    match words.first().map(String::as_str) {
        Some("memory") => memory(number(1, 1000)),
        Some("flat") => flat(number(1, 10_000)),
        Some("kill") => kill(number(1, 80), number(2, 50)),
        Some("size") => size(number(1, 7)),
        Some("rate") => rates(number(1, 400), number(2, 7)),
        Some("loaded-rate") => loaded_rate(number(1, 50), number(2, 1), number(3, 400)),
        other => {
            eprintln!("figures: {other:?} is none; use memory, flat, kill, size or rate");
            std::process::exit(2);
        }
    }
}

fn start(kind: &str) -> Handle {
    match Handle::start(
        &launch_of("figures", 0, kind, 0),
        Plan::default(),
        None,
        false,
    ) {
        Ok(handle) => handle,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

fn wait_for(handle: &Handle, mut done: impl FnMut(&vespera_agent_spawner::agent::View) -> bool) {
    while handle
        .shared()
        .wait(Duration::from_secs(5), |view| done(view).then_some(()))
        .is_none()
    {}
}

/// Spawns per second, spawn to swept, `WIDTH` in flight.
fn rate(number: usize) -> f64 {
    let began = Instant::now();
    let mut running = std::collections::VecDeque::with_capacity(WIDTH);
    for _ in 0..number {
        if running.len() == WIDTH
            && let Some(oldest) = running.pop_front()
        {
            wait_for(&oldest, |view| view.state.is_over());
        }
        running.push_back(start("quit"));
    }
    for handle in running {
        wait_for(&handle, |view| view.state.is_over());
    }
    #[allow(clippy::cast_precision_loss, reason = "small counts")]
    {
        number as f64 / began.elapsed().as_secs_f64()
    }
}

/// The same with posix_spawn(3), three pipes and nobody who owns a tree: the floor.
fn plain_rate(number: usize) -> f64 {
    let own = std::env::current_exe().unwrap_or_default();
    let began = Instant::now();
    let mut running = std::collections::VecDeque::with_capacity(WIDTH);
    for _ in 0..number {
        if running.len() == WIDTH
            && let Some(mut oldest) = running.pop_front()
        {
            let _: std::io::Result<_> = std::process::Child::wait(&mut oldest);
        }
        let started = Command::new(&own)
            .args(["adversary", "quit"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        running.extend(started);
    }
    for mut child in running {
        let _ = child.wait();
    }
    #[allow(clippy::cast_precision_loss, reason = "small counts")]
    {
        number as f64 / began.elapsed().as_secs_f64()
    }
}

/// Spawns and exits per second under the engine over plain ones, interleaved.
fn rates(number: usize, rounds: usize) {
    rate(WIDTH);
    let mut ratios: Vec<f64> = (0..rounds)
        .map(|_| {
            let plain = plain_rate(number);
            rate(number) / plain
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    println!(
        "spawn + exit under the engine ÷ posix_spawn: {:.2} ({:.2}-{:.2}, {rounds} rounds of {number})",
        ratios[rounds / 2],
        ratios[0],
        ratios[rounds - 1]
    );
}

/// System memory per idle agent: under the engine, and started plainly; the difference is ours.
fn memory(agents: usize) {
    let count = i64::try_from(agents).unwrap_or(1);
    let first = start("plain");
    wait_for(&first, |view| view.pid != 0);
    settle();
    let (before, rss) = (used_kib(), own_rss_kib());
    let handles: Vec<Handle> = (0..agents).map(|_| start("plain")).collect();
    for handle in &handles {
        wait_for(handle, |view| view.pid != 0);
    }
    settle();
    let (ours, host) = (since(before, count), (own_rss_kib() - rss) / count);
    println!(
        "one leash: {}",
        private_of(handles[agents / 2].shared().view().leash)
    );
    for handle in &handles {
        handle.kill();
    }
    for handle in &handles {
        wait_for(handle, |view| view.state.is_over());
    }
    settle();
    let before = used_kib();
    let own = std::env::current_exe().unwrap_or_default();
    let mut children: Vec<_> = (0..agents)
        .filter_map(|_| {
            Command::new(&own)
                .args(["adversary", "plain"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .ok()
        })
        .collect();
    settle();
    let plain = since(before, count);
    for child in &mut children {
        let _ = child.kill();
    }
    for child in &mut children {
        let _ = child.wait();
    }
    assert_eq!(children.len(), agents, "a plain start failed");
    println!("KiB for each of {agents} idle agents: anonymous, page tables, kernel stacks, slab");
    println!("under the engine {ours:?} = {}", ours.iter().sum::<i64>());
    println!("started plainly  {plain:?} = {}", plain.iter().sum::<i64>());
    println!(
        "ours {} KiB, of which the host's resident {host} KiB",
        ours.iter().sum::<i64>() - plain.iter().sum::<i64>()
    );
}

fn settle() {
    // The kernel frees and counts in batches.
    std::thread::sleep(Duration::from_millis(1500));
}

/// Kinds of memory in proc_meminfo(5) that processes and sockets are made of, in KiB. Their sum
/// is steadier than MemAvailable, which also moves with everybody's page cache.
fn used_kib() -> [i64; 4] {
    ["AnonPages:", "PageTables:", "KernelStack:", "SUnreclaim:"]
        .map(|name| field_kib("/proc/meminfo", name))
}

fn since(before: [i64; 4], agents: i64) -> [i64; 4] {
    let now = used_kib();
    std::array::from_fn(|kind| (now[kind] - before[kind]) / agents)
}

fn own_rss_kib() -> i64 {
    field_kib("/proc/self/status", "VmRSS:")
}

fn field_kib(file: &str, name: &str) -> i64 {
    fs::read_to_string(file)
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0)
}

fn private_of(pid: i32) -> String {
    let file = format!("/proc/{pid}/smaps_rollup");
    format!(
        "{} KiB private, {} KiB proportional",
        field_kib(&file, "Private_Dirty:") + field_kib(&file, "Private_Clean:"),
        field_kib(&file, "Pss:")
    )
}

/// Many short agents one after the other: nothing may grow.
fn flat(number: usize) {
    let tenth = (number / 10).max(1);
    for part in 1..=10 {
        let rate = rate(tenth);
        if part == 1 || part == 5 || part == 10 {
            let zombies = oracle::processes()
                .iter()
                .filter(|process| process.state == b'Z')
                .count();
            println!(
                "after {:>7} spawns: {} descriptors, {} KiB resident, {zombies} zombies, {rate:.0}/s",
                part * tenth,
                fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
                own_rss_kib()
            );
        }
    }
}

/// From the order to the sweep's report, for a tree of so many processes.
fn kill(processes: usize, rounds: usize) {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let handle = start(&format!("tree:{}", processes - 1));
        wait_for(&handle, |view| view.pid != 0);
        let leash = handle.shared().view().leash;
        let grown = oracle::within(Duration::from_secs(10), || {
            vespera_agent_spawner::usage::of_tree(leash).processes >= processes as u64
        });
        assert!(grown.is_some(), "the tree did not grow to {processes}");
        let began = Instant::now();
        handle.kill();
        wait_for(&handle, |view| view.ending.is_some());
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "kill of {processes} processes: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms of {rounds}",
        times[rounds / 2],
        times[(rounds * 99 / 100).min(rounds - 1)],
        times[rounds - 1]
    );
}

/// Rates of a big host and of one with many threads over that of a small one, interleaved.
fn size(rounds: usize) {
    let measure = |mib: usize, threads: usize| -> f64 {
        let own = std::env::current_exe().unwrap_or_default();
        let done = Command::new(own)
            .args(["figures", "loaded-rate"])
            .args([mib.to_string(), threads.to_string(), "400".into()])
            .output();
        done.ok()
            .and_then(|done| String::from_utf8(done.stdout).ok()?.trim().parse().ok())
            .unwrap_or(f64::NAN)
    };
    let (mut big, mut threaded) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let small = measure(50, 1);
        big.push(measure(2048, 1) / small);
        threaded.push(measure(50, 200) / small);
    }
    for (name, mut ratios) in [("2 GB ÷ 50 MB", big), ("200 threads ÷ 1", threaded)] {
        ratios.sort_by(f64::total_cmp);
        println!(
            "spawn rate, host of {name}: {:.2} ({:.2}-{:.2}, {rounds} rounds)",
            ratios[rounds / 2],
            ratios[0],
            ratios[rounds - 1]
        );
    }
}

fn loaded_rate(mib: usize, threads: usize, number: usize) {
    let mut ballast = vec![0_u8; mib << 20];
    for at in (0..ballast.len()).step_by(4096) {
        ballast[at] = 1;
    }
    for _ in 1..threads {
        std::thread::spawn(std::thread::park);
    }
    rate(WIDTH);
    println!("{}", rate(number));
    black_box(&ballast);
}
