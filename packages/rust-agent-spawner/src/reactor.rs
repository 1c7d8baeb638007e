//! The reactor: one thread that reads, writes and times every agent of the process.
//!
//! It owns all descriptors (`reactor::agent`) and no policy: what happens next is each [`Session`]'s decision. It
//! never attaches to a Python interpreter. Other threads post commands and read `Shared` views.

use crate::agent::blocks;
use crate::agent::mourning::reap_session;
use crate::agent::process::{Ends, Guardian, Sender, Unsent};
use crate::agent::stream::READ;
use crate::agent::transcript::{Transcript, Voice};
use crate::agent::{Action, Session, Shared};
use crate::descriptor::Descriptor;
use crate::diagnostics::{self, Level};
use crate::own_pid::own_pid;
use crate::rights::Asker;
use crate::sampler::{Ceilings, Sampler};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SendFlags;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod agent;

use agent::Agent;

/// A reactor that is this late was stopped or suspended, and its agents with it.
const GAP: Duration = Duration::from_secs(1);

/// While any limit of time runs, the reactor looks at the clock so often: otherwise it could not
/// tell that it was away.
const HEARTBEAT: Duration = Duration::from_secs(1);

const WAKE: u64 = u64::MAX;

/// An agent that the reactor has not met.
#[derive(Debug)]
pub struct Newcomer {
    pub id: u64,
    pub session: Box<Session>,
    pub shared: Arc<Shared>,
    pub ends: Ends,
    /// The entry in its environment that tells its processes.
    pub mark: Vec<u8>,
    pub transcript: Option<Transcript>,
    pub ceilings: Ceilings,
    /// The host's thread that asked for it, for one that stands in a [`Standby`](crate::standby::Standby).
    pub asker: Option<Arc<Asker>>,
    pub prepared: Instant,
}

impl Newcomer {
    /// Whether it may have a leash of `guardian` that had an agent which could outlive its host by
    /// `grace_ms`, asked by a host with this umask.
    pub fn may_follow(&self, guardian: &Arc<Guardian>, grace_ms: u32, umask: u32) -> bool {
        let ends = &self.ends;
        let asked = |unsent: &Unsent| unsent.is_asked_by(Sender::here(), umask);
        Arc::ptr_eq(&ends.guardian, guardian)
            && !guardian.is_retired()
            && ends.takes_used
            && ends.grace_ms <= grace_ms
            && ends.unsent.as_deref().is_some_and(asked)
    }

    /// It gets a leash now: its time begins.
    fn follow(&mut self, (leash, pid): (Descriptor, i32), now: Instant) {
        (self.ends.leash, self.ends.leash_pid) = (Some(leash), Some(pid));
        self.session.begin(now);
        let mut view = self.shared.view();
        (view.started, view.leash) = (now, pid);
    }
}

/// What other threads ask for.
#[derive(Debug)]
pub enum Command {
    Add(Newcomer),
    /// Its request was sent to another leash, or to none.
    Leash {
        id: u64,
        leash: Option<Descriptor>,
    },
    /// A tree uses more than it may, in words.
    Breach {
        id: u64,
        words: String,
    },
    /// A sweep by the host has ended so many, and so many survive.
    Swept {
        id: u64,
        swept: (u32, Vec<i32>),
    },
    Turn {
        id: u64,
        prompt: String,
        uuid: String,
        limit: Option<Duration>,
    },
    /// It got its owner; with a prompt it is a run.
    Claim {
        id: u64,
        prompt: Option<(String, String)>,
    },
    Interrupt {
        id: u64,
    },
    Abandon {
        id: u64,
    },
    /// The host's answer to an ask of the CLI, as a whole line.
    Answer {
        id: u64,
        ask: String,
        line: Vec<u8>,
    },
    /// A line to the CLI as it is.
    Write {
        id: u64,
        line: Vec<u8>,
    },
    /// Nothing more is written.
    EndInput {
        id: u64,
    },
    /// A consumer has taken events: read on.
    Resume {
        id: u64,
    },
    Shutdown {
        id: u64,
        grace: Duration,
    },
    Kill {
        id: u64,
    },
}

/// A handle on the reactor's thread.
#[derive(Debug)]
pub struct Reactor {
    mailbox: Arc<Mailbox>,
}

#[derive(Debug)]
struct Mailbox {
    posted: Mutex<Posted>,
    bell: Descriptor,
    owner: u32,
}

#[derive(Debug, Default)]
struct Posted {
    commands: VecDeque<Command>,
    /// The bell rings for them.
    is_told: bool,
    /// As whom the reactor took the last ones.
    taker: Option<Sender>,
}

static CURRENT: Mutex<Option<Arc<Reactor>>> = Mutex::new(None);

impl Reactor {
    /// The reactor of this process, started at first use; a forked child gets its own.
    ///
    /// # Errors
    /// No thread or descriptors left.
    pub fn current() -> io::Result<Arc<Self>> {
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reactor) = current
            .as_ref()
            .filter(|reactor| reactor.mailbox.owner == own_pid())
        {
            return Ok(Arc::clone(reactor));
        }
        let started = Arc::new(Self::start()?);
        *current = Some(Arc::clone(&started));
        Ok(started)
    }

    fn start() -> io::Result<Self> {
        let bell =
            rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?.into();
        let mailbox = Arc::new(Mailbox {
            posted: Mutex::default(),
            bell,
            owner: own_pid(),
        });
        let poller = Descriptor::from(epoll::create(CreateFlags::CLOEXEC)?);
        epoll::add(
            &poller,
            &mailbox.bell,
            EventData::new_u64(WAKE),
            EventFlags::IN,
        )?;
        let mut engine = Engine {
            mailbox: Arc::clone(&mailbox),
            poller,
            agents: HashMap::new(),
            timers: BTreeSet::new(),
        };
        std::thread::Builder::new()
            .name("vespera-reactor".into())
            .spawn(move || engine.run())?;
        Ok(Self { mailbox })
    }

    /// Hands a command over; commands are carried out in the order in which they were posted.
    pub fn post(&self, command: Command) {
        self.mailbox.post(command);
    }

    /// As [`Reactor::post`], but the reactor sleeps on until another command or
    /// [`Reactor::wake`]: whoever wakes it may lose the processor to it, with everything
    /// that it holds.
    pub fn post_quietly(&self, command: Command) {
        self.mailbox.enter(command);
    }

    /// Whether this process started it: a forked child has a copy.
    pub fn is_ours(&self) -> bool {
        self.mailbox.owner == own_pid()
    }

    /// Whom a leash hears that hears the reactor.
    pub fn sender(&self) -> Option<Sender> {
        self.mailbox.posted().taker
    }

    /// Has the reactor carry out what was posted quietly.
    pub fn wake(&self) {
        self.mailbox.wake();
    }
}

impl Mailbox {
    fn post(&self, command: Command) {
        self.enter(command);
        self.wake();
    }

    fn enter(&self, command: Command) {
        // A forked child has the memory of its parent's reactor, not its thread.
        if self.owner == own_pid() {
            self.posted().commands.push_back(command);
        }
    }

    fn wake(&self) {
        if self.owner != own_pid() {
            return;
        }
        let mut posted = self.posted();
        let is_news = !posted.commands.is_empty() && !std::mem::replace(&mut posted.is_told, true);
        drop(posted);
        // Whoever takes the commands silences the bell before it takes them all.
        if is_news {
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    fn take(&self) -> VecDeque<Command> {
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
        let here = Sender::here();
        let mut posted = self.posted();
        posted.is_told = false;
        posted.taker = Some(here);
        std::mem::take(&mut posted.commands)
    }

    fn posted(&self) -> MutexGuard<'_, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the guardian make a leash for a request that its own did not take, which may wait.
    fn send_elsewhere(self: &Arc<Self>, id: u64, unsent: Box<Unsent>, guardian: Arc<Guardian>) {
        let mailbox = Arc::clone(self);
        let work = move || {
            let leash = unsent.send_elsewhere(&guardian).ok();
            mailbox.post(Command::Leash { id, leash });
        };
        let thread = std::thread::Builder::new().name("vespera-request".into());
        if thread.spawn(work).is_err() {
            self.post(Command::Leash { id, leash: None });
        }
    }

    /// Reading all of /proc takes milliseconds that other agents' streams should not wait for.
    fn sweep(self: &Arc<Self>, id: u64, mark: Vec<u8>, leader: i32) {
        let mailbox = Arc::clone(self);
        let work = move || {
            let swept = crate::sweep::sweep(&mark);
            // 0 is the leader of an agent that has none, and the session of no process.
            if leader > 0 {
                reap_session(leader);
            }
            mailbox.post(Command::Swept { id, swept });
        };
        // Without a thread the deadline of the agent's end stands in.
        let _ = std::thread::Builder::new()
            .name("vespera-sweep".into())
            .spawn(work);
    }
}

struct Engine {
    mailbox: Arc<Mailbox>,
    poller: Descriptor,
    agents: HashMap<u64, Agent>,
    timers: BTreeSet<(Instant, u64)>,
}

impl Engine {
    fn run(&mut self) {
        let mut events = Vec::with_capacity(256);
        let mut buffer = vec![0_u8; READ];
        loop {
            events.clear();
            let asleep = Instant::now();
            let wait = self
                .timers
                .first()
                .map(|(at, _)| at.saturating_duration_since(asleep).min(HEARTBEAT));
            let limit = wait.map(timespec);
            match epoll::wait(
                &self.poller,
                rustix::buffer::spare_capacity(&mut events),
                limit.as_ref(),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let woke = Instant::now();
            if let Some(wait) = wait {
                self.forgive(woke.saturating_duration_since(asleep + wait));
            }
            for event in &events {
                let token = event.data.u64();
                if token == WAKE {
                    self.obey();
                } else {
                    self.serve(token, &mut buffer);
                }
            }
            // Stopped in the middle of its work, it was away as well.
            self.forgive(woke.elapsed());
            self.tick(&mut buffer);
        }
    }

    fn obey(&mut self) {
        let commands = self.mailbox.take();
        let now = Instant::now();
        for command in commands {
            let mut out = Vec::new();
            let id = match command {
                Command::Add(newcomer) => self.meet(newcomer, &mut out),
                Command::Leash { id, leash } => {
                    if let Some(agent) = self.agents.get_mut(&id) {
                        agent.get_leash(leash, &self.poller, id, now, &mut out);
                    }
                    id
                }
                Command::Breach { id, words } => {
                    self.with(id, |session| session.breach(words, &mut out));
                    id
                }
                Command::Swept { id, swept } => {
                    self.with(id, |session| session.swept_by_host(swept, now, &mut out));
                    id
                }
                Command::Turn {
                    id,
                    prompt,
                    uuid,
                    limit,
                } => {
                    self.with(id, |session| {
                        session.begin_turn(&prompt, uuid, limit, now, &mut out);
                    });
                    id
                }
                Command::Claim { id, prompt } => {
                    self.with(id, |session| session.claim(prompt, now, &mut out));
                    id
                }
                Command::Answer { id, ask, line } => {
                    self.with(id, |session| session.answer(&ask, line, now, &mut out));
                    id
                }
                Command::Write { id, line } => {
                    out.push(Action::Write(line));
                    id
                }
                Command::EndInput { id } => {
                    self.with(id, |session| session.end_input(&mut out));
                    id
                }
                Command::Resume { id } => {
                    if let Some(agent) = self.agents.get_mut(&id) {
                        agent.resume(&self.poller, id);
                    }
                    id
                }
                Command::Abandon { id } => {
                    self.with(id, |session| session.abandon(now, &mut out));
                    id
                }
                Command::Interrupt { id } => {
                    self.with(id, |session| session.interrupt(&mut out));
                    id
                }
                Command::Shutdown { id, grace } => {
                    self.with(id, |session| session.shutdown(grace, now, &mut out));
                    id
                }
                Command::Kill { id } => {
                    self.with(id, |session| session.kill("killed by the host", &mut out));
                    id
                }
            };
            self.act(id, out);
        }
    }

    /// Begins to listen to an agent; its request is sent, if it was not. Returns its number, and
    /// what is to be done for it.
    fn meet(&mut self, newcomer: Newcomer, out: &mut Vec<Action>) -> u64 {
        let Newcomer {
            id,
            session,
            shared,
            mut ends,
            mark,
            transcript,
            ceilings,
            ..
        } = newcomer;
        crate::metrics::SPAWNS.add(1);
        let unsent = ends.unsent.take();
        let guardian = Arc::clone(&ends.guardian);
        if ceilings.is_set() {
            let mailbox = Arc::clone(&self.mailbox);
            let breach = move |words| mailbox.post(Command::Breach { id, words });
            Sampler::watch(Arc::clone(&shared), ceilings, Box::new(breach));
        }
        let mut agent = Agent::new(session, shared, ends, mark, transcript);
        if let Some(unsent) = unsent
            && !agent.request(&unsent)
        {
            self.mailbox.send_elsewhere(id, unsent, guardian);
        }
        agent.watch(&self.poller, id);
        agent.session.greet_early(out);
        self.agents.insert(id, agent);
        id
    }

    fn with(&mut self, id: u64, change: impl FnOnce(&mut Session)) {
        if let Some(agent) = self.agents.get_mut(&id) {
            change(&mut agent.session);
        }
    }

    fn serve(&mut self, token: u64, buffer: &mut [u8]) {
        let id = token >> 2;
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        let mut out = Vec::new();
        let now = Instant::now();
        match token & 3 {
            0 => agent.read_leash(now, &mut out),
            1 => agent.flush(&self.poller, id),
            2 => agent.read_stdout(buffer, &self.poller, now, &mut out),
            _ => agent.read_stderr(buffer, &mut out),
        }
        self.act(id, out);
    }

    /// SIGSTOP, or a machine without time for us: while the reactor was away it heard nobody.
    fn forgive(&mut self, late: Duration) {
        if late < GAP || self.timers.is_empty() {
            return;
        }
        diagnostics::note(Level::Warning, "reactor", "", || {
            format!(
                "was away for {:.1} s: every limit of time waits as long",
                late.as_secs_f64()
            )
        });
        self.timers.clear();
        for (id, agent) in &mut self.agents {
            agent.session.shift(late);
            agent.timer = agent.session.deadline(Instant::now());
            self.timers.extend(agent.timer.map(|at| (at, *id)));
        }
    }

    fn tick(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        while let Some((at, id)) = self.timers.first().copied() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            let mut out = Vec::new();
            if let Some(agent) = self.agents.get_mut(&id) {
                agent.timer = None;
                if agent.session.is_due(now) {
                    agent.catch_up(buffer, &self.poller, now, &mut out);
                }
                agent.session.tick(now, &mut out);
            }
            self.act(id, out);
        }
    }

    fn act(&mut self, id: u64, actions: Vec<Action>) {
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        let mut finished = false;
        for action in actions {
            match action {
                Action::Write(bytes) => {
                    agent.transcribe(|transcript| transcript.note(Voice::Host, &bytes));
                    agent.unwritten.extend(bytes);
                    agent.flush(&self.poller, id);
                }
                Action::CloseStdin => {
                    agent.close_after_write = true;
                    agent.flush(&self.poller, id);
                }
                Action::Order(order) => {
                    if let Some(leash) = &agent.leash {
                        let _ = rustix::net::send(
                            leash,
                            &order.encode(),
                            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                        );
                    }
                }
                Action::WakeGuardian => agent.guardian.signal(libc::SIGCONT),
                Action::GiveUpGuardian => agent.guardian.give_up(),
                Action::Leash(signal) => agent.signal_leash(signal),
                Action::Sweep => self.mailbox.sweep(id, agent.mark.clone(), agent.leader()),
                Action::Finish => finished = true,
            }
        }
        if let Some(at) = agent.timer.take() {
            self.timers.remove(&(at, id));
        }
        agent.note_start();
        if finished {
            agent.remove_cgroup();
            if agent.session.lost_its_owner() {
                agent.guardian.mourn_if_dead();
            }
            // Before anybody hears of the end: the loop would give the place away as well.
            let next = agent.hand_over(&self.poller);
            agent.session.conclude();
            agent.note_start();
            self.agents.remove(&id);
            if let Some(next) = next {
                let mut out = Vec::new();
                let id = self.meet(next, &mut out);
                self.act(id, out);
            }
            if self.agents.is_empty() {
                blocks::clear();
            }
            return;
        }
        agent.timer = agent.session.deadline(Instant::now());
        self.timers.extend(agent.timer.map(|at| (at, id)));
    }
}

fn timespec(left: Duration) -> Timespec {
    // Rounded up: a wait that ends a little early would spin until the deadline.
    let left = left + Duration::from_micros(100);
    Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}
