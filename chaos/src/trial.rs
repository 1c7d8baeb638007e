//! One trial: a host, a random moment, a kill, and what is left of it all.

use crate::oracle;
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// After a kill and the agents' grace, this long until nothing may be left.
const DEADLINE: Duration = Duration::from_secs(3);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Host,
    Guardian,
    Leash,
}

/// What is not left to chance.
#[derive(Debug)]
pub struct Settings {
    pub target: Option<Target>,
    /// Interpreter and program of the Python host, and in one of how many trials it is the host.
    pub python: Option<(String, String)>,
    pub python_in: u64,
    pub grace_ms: Option<u64>,
    pub agents: Option<u64>,
}

/// What a trial found.
#[derive(Debug, Default)]
pub struct Finding {
    pub kill: String,
    pub host: &'static str,
    pub grace_ms: u64,
    pub agents: u64,
    /// How many of them had been started when the kill came.
    pub spawned: u64,
    pub survivors: Vec<String>,
    pub milliseconds: f64,
    /// The trial itself went wrong, so that it proves nothing.
    pub broken: Option<String>,
}

/// Runs the trial of a seed and leaves nothing behind.
pub fn run(seed: u64, settings: &Settings) -> Finding {
    let mut random = fastrand::Rng::with_seed(seed);
    let target = settings.target.unwrap_or_else(|| match random.u8(..10) {
        0..6 => Target::Host,
        6..8 => Target::Guardian,
        _ => Target::Leash,
    });
    let python = settings
        .python
        .as_ref()
        .filter(|_| random.u64(..settings.python_in) == 0);
    let grace_ms = settings
        .grace_ms
        .unwrap_or(if random.bool() { 0 } else { 50 });
    let mut agents = settings.agents.unwrap_or_else(|| random.u64(1..8));
    if python.is_some() && target == Target::Guardian {
        // Five starts that fail together make a supervisor pause, and no trial waits that long.
        agents = agents.min(3);
    }
    let tag = format!("{}-{seed}", std::process::id());
    let mut finding = Finding {
        host: if python.is_some() { "python" } else { "rust" },
        grace_ms,
        agents,
        ..Finding::default()
    };
    match start(python, &tag, agents, grace_ms, seed) {
        Ok(host) => {
            let mut trial = Trial { host, tag, random };
            finding.spawned = trial.wait_for_moment(agents);
            match target {
                Target::Host => trial.kill_host(&mut finding),
                Target::Guardian | Target::Leash => trial.kill_inside(target, &mut finding),
            }
        }
        Err(error) => finding.broken = Some(format!("the host did not start: {error}")),
    }
    oracle::clean_up();
    finding
}

struct Host {
    child: Child,
    news: Receiver<String>,
}

fn start(
    python: Option<&(String, String)>,
    tag: &str,
    agents: u64,
    grace_ms: u64,
    seed: u64,
) -> std::io::Result<Host> {
    let own = std::env::current_exe()?;
    let mut command = if let Some((interpreter, program)) = python {
        let mut command = Command::new(interpreter);
        command.arg(program).arg(&own);
        command
    } else {
        let mut command = Command::new(&own);
        command.arg("host");
        command
    };
    command
        .args([
            tag,
            &agents.to_string(),
            &grace_ms.to_string(),
            &seed.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // SAFETY: setrlimit(2) may be called between fork and exec; the value is a live local.
    unsafe {
        command.pre_exec(|| {
            // A host that dies of SIGSEGV is not dead while it dumps core.
            let none = libc::rlimit {
                rlim_cur: 0,
                rlim_max: 0,
            };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            Ok(())
        });
    }
    let mut child = command.spawn()?;
    let (sender, news) = channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    Ok(Host { child, news })
}

pub struct Trial {
    host: Host,
    tag: String,
    random: fastrand::Rng,
}

impl Trial {
    /// A Rust host for the systematic kills.
    pub fn start(tag: &str, agents: u64, grace_ms: u64, finding: &mut Finding) -> Option<Self> {
        let tag = format!("{tag}-{}-{}", std::process::id(), fastrand::u32(..));
        match start(None, &tag, agents, grace_ms, 1) {
            Ok(host) => Some(Self {
                host,
                tag,
                random: fastrand::Rng::with_seed(1),
            }),
            Err(error) => {
                finding.broken = Some(format!("the host did not start: {error}"));
                None
            }
        }
    }

    pub fn pid(&self) -> i32 {
        self.host.child.id().cast_signed()
    }

    /// After so many spawns, and then a little: before the first, in between, or when all run.
    fn wait_for_moment(&mut self, agents: u64) -> u64 {
        let spawns = self.random.u64(..=agents);
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut seen = 0;
        while seen < spawns {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.host.news.recv_timeout(left) {
                Ok(word) if word == "spawned" => seen += 1,
                Ok(_) => {}
                Err(_) => return seen,
            }
        }
        let micros = 1 << self.random.u32(..14);
        std::thread::sleep(Duration::from_micros(self.random.u64(..micros)));
        let meanwhile = self.host.news.try_iter().filter(|word| word == "spawned");
        seen + meanwhile.count() as u64
    }

    fn kill_host(&mut self, finding: &mut Finding) {
        let how = ["KILL", "STOP,KILL", "SEGV", "TERM"][self.random.usize(..4)];
        finding.kill = format!("host {how}");
        let pid = self.pid();
        for word in how.split(',') {
            let signal = match word {
                "STOP" => Signal::STOP,
                "SEGV" => Signal::SEGV,
                "TERM" => Signal::TERM,
                _ => Signal::KILL,
            };
            oracle::kill(pid, signal);
            // Before the host's first line the runtime's own handler takes a SIGSEGV and goes on.
            let dead = || oracle::read(pid).is_none_or(|process| process.state == b'Z');
            while word == "SEGV" && oracle::within(Duration::from_millis(20), dead).is_none() {
                oracle::kill(pid, signal);
            }
        }
        // Alone or together with one of its own: a living guardian or leash must be enough.
        if self.random.u8(..4) == 0
            && let Some((name, victim)) = self.pick(None)
        {
            finding.kill = format!("{} with {name}", finding.kill);
            oracle::kill(victim, Signal::KILL);
        }
        let limit = DEADLINE + Duration::from_millis(finding.grace_ms);
        self.conclude(limit, finding);
    }

    /// A guardian or leash of the host that lives.
    fn pick(&mut self, target: Option<Target>) -> Option<(&'static str, i32)> {
        let guardians = oracle::children_named(self.pid(), "vespera-guard");
        let guardian = *guardians.first()?;
        let leashes = oracle::children_named(guardian, "vespera-leash");
        let of_leashes = match target {
            Some(Target::Guardian | Target::Host) => false,
            Some(Target::Leash) => true,
            None => self.random.bool(),
        };
        if of_leashes {
            let place = self.random.usize(..leashes.len().max(1));
            Some(("leash", *leashes.get(place)?))
        } else {
            Some(("guardian", guardian))
        }
    }

    /// The host lives on: its other agents too, nobody strays, and it can spawn again.
    fn kill_inside(&mut self, target: Target, finding: &mut Finding) {
        let mut victim = None;
        oracle::within(Duration::from_secs(5), || {
            victim = self.pick(Some(target));
            victim.is_some()
        });
        let Some((name, victim)) = victim else {
            finding.broken = Some(format!("the host has no {target:?}"));
            return;
        };
        let stopped = self.random.bool();
        finding.kill = format!("{name} {}", if stopped { "STOP,KILL" } else { "KILL" });
        if stopped {
            oracle::kill(victim, Signal::STOP);
        }
        oracle::kill(victim, Signal::KILL);
        self.say("pause");
        self.check_inside(finding);
    }

    /// Nobody strays, the host can spawn again, and its own death leaves nothing.
    pub fn check_inside(&mut self, finding: &mut Finding) {
        let killed = Instant::now();
        let (tag, pid) = (self.tag.clone(), self.pid());
        if oracle::within(DEADLINE, || oracle::strays(&tag, pid).is_empty()).is_none() {
            finding.survivors = names(&oracle::strays(&tag, pid));
        }
        finding.milliseconds = killed.elapsed().as_secs_f64() * 1000.0;
        // A request that was on its way to the one that died fails with a clear error.
        let again = (0..3).any(|_| {
            self.say("again");
            self.heard("ok")
        });
        if !again {
            finding.broken = Some("the host could not spawn again".into());
        }
        let milliseconds = finding.milliseconds;
        oracle::kill(pid, Signal::KILL);
        let limit = DEADLINE + Duration::from_millis(finding.grace_ms);
        self.conclude(limit, finding);
        finding.milliseconds = milliseconds;
    }

    pub fn say(&mut self, word: &str) {
        if let Some(input) = &mut self.host.child.stdin {
            let _ = writeln!(input, "{word}");
        }
    }

    pub fn heard(&mut self, wanted: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.host.news.recv_timeout(left) {
                Ok(word) if word == wanted => return true,
                Ok(word) if word.starts_with("failed") => return false,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// The host is dead: nobody may be left below the harness, and nobody with the tag.
    pub fn conclude(&mut self, limit: Duration, finding: &mut Finding) {
        let took = oracle::within(limit, oracle::childless);
        finding.milliseconds = took.unwrap_or(limit.as_secs_f64() * 1000.0);
        let left = oracle::tagged(&self.tag);
        finding.survivors.extend(names(&left));
        if took.is_none() && left.is_empty() {
            finding.survivors.push("a process without the tag".into());
        }
    }
}

fn names(found: &[oracle::Process]) -> Vec<String> {
    found
        .iter()
        .map(|process| format!("{} {} {}", process.pid, process.name, process.state as char))
        .collect()
}

/// Children of all threads of a process, by their name: whichever thread asked first for an agent
/// has started the guardian.
pub fn all_children_named(parent: i32, name: &str) -> Vec<i32> {
    oracle::processes()
        .into_iter()
        .filter(|process| process.parent == parent && process.name == name)
        .map(|process| process.pid)
        .collect()
}
