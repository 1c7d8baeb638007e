//! A world around one session: it plays the reactor, the leash, the agent, the host and the clock,
//! lets anything happen that can, and checks after each step what must always hold.
//!
//! Shared by the property test beside it and by the fuzz target `session`.

pub(crate) mod moves;

pub(crate) use moves::Move;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vespera_agent_spawner::agent::adapter::Told;
use vespera_agent_spawner::agent::stream::Line;
use vespera_agent_spawner::agent::{
    Action, Idle, Plan, Session, Shared, State, Timeouts, adapter, deliver,
};
use vespera_guardian::{Order, Report};

/// The uuid of a run's prompt; later turns of a session have the same.
pub(crate) const PROMPT: &str = "the-prompt";

/// From the first order to end (or the end of a run's work) to force, beside the grace.
const LADDER: Duration = Duration::from_secs(2);

/// From force to the last word: the leash's report, its presses, a sweep, the drain.
const AFTERMATH: Duration = Duration::from_secs(30);

/// What kind of agent lives in the world.
#[allow(clippy::struct_excessive_bools, reason = "each is a choice of its own")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) run: bool,
    pub(crate) raw: bool,
    pub(crate) answers_asks: bool,
    pub(crate) answers_calls: bool,
    /// Somebody else speaks with it.
    pub(crate) relayed: bool,
    /// A turn has a limit of time.
    pub(crate) limited: bool,
    /// Silence has limits, by what the agent waits for.
    pub(crate) idle: bool,
    /// The leash does what it is told; a deaf one has to be killed by its host.
    pub(crate) obedient: bool,
}

impl Kind {
    /// Any number is a kind.
    pub(crate) fn of(bits: u8) -> Self {
        Self {
            run: bits & 1 != 0,
            raw: bits & 6 == 6,
            relayed: bits & 7 == 4,
            answers_asks: bits & 8 != 0,
            answers_calls: bits & 128 != 0,
            limited: bits & 16 != 0,
            obedient: bits & 32 == 0,
            idle: bits & 64 != 0,
        }
    }
}

#[allow(
    clippy::struct_excessive_bools,
    reason = "each is an end or a fact of its own"
)]
pub(crate) struct World {
    kind: Kind,
    shared: Arc<Shared>,
    session: Session,
    now: Instant,
    state: State,
    leash: Leash,
    stdout: bool,
    stderr: bool,
    sweeping: bool,
    /// Force must have come by then.
    force_by: Option<Instant>,
    /// The host wants it to end.
    ordered: bool,
    forced: bool,
    finished: bool,
    /// What happened, for whoever has to understand a failure.
    log: Vec<String>,
}

/// What the leash has said so far; it says things in this order only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leash {
    Silent,
    Started,
    Exited,
    Swept,
    Gone,
}

impl World {
    pub(crate) fn new(kind: Kind) -> Self {
        let now = Instant::now();
        let idle = |millis| kind.idle.then(|| Duration::from_millis(millis));
        let timeouts = Timeouts {
            startup: Duration::from_secs(3),
            turn: kind.limited.then(|| Duration::from_secs(4)),
            idle: Idle {
                model: idle(1500),
                tool: idle(2500),
                mcp: idle(2000),
                subagent: idle(3000),
                permission: None,
            },
            total: None,
            after_result: Duration::from_secs(1),
            write: Duration::from_secs(2),
        };
        let adapter = if kind.raw {
            vespera_config::Adapter::Raw
        } else if kind.relayed {
            vespera_config::Adapter::Relay
        } else {
            vespera_config::Adapter::Claude
        };
        let plan = Plan {
            adapter: adapter::named(adapter),
            prompt: kind.run.then(|| ("work".into(), PROMPT.into())),
            told: Told::default(),
            answers_asks: kind.answers_asks,
            answers_calls: kind.answers_calls,
            ..Plan::default()
        };
        let shared = Arc::new(Shared::new("a-session".into()));
        shared.listen(true);
        let session = Session::new(Arc::clone(&shared), timeouts, plan, now);
        let mut world = Self {
            kind,
            shared,
            session,
            now,
            state: State::Starting,
            leash: Leash::Silent,
            stdout: true,
            stderr: true,
            sweeping: false,
            force_by: None,
            ordered: false,
            forced: false,
            finished: false,
            log: Vec::new(),
        };
        world.with(|session, _, out| session.greet_early(out));
        world
    }

    /// Where the session stands.
    pub(crate) fn state(&self) -> State {
        *self.shared.view().state
    }

    /// True once the session has said its last word.
    pub(crate) fn is_over(&self) -> bool {
        self.finished
    }

    /// Lets one thing happen, if it can happen now.
    pub(crate) fn play(&mut self, step: &Move) {
        if self.finished || !self.is_possible(step) {
            return;
        }
        self.log.push(match step {
            Move::Line(line) => format!("Line {}", String::from_utf8_lossy(line)),
            other => format!("{other:?}"),
        });
        match step {
            Move::Pass(time) => self.pass(*time),
            Move::Suspend(time) => {
                self.now += *time;
                self.session.shift(*time);
                self.force_by = self.force_by.map(|at| at + *time);
                self.done(Vec::new());
            }
            Move::Report(report) => self.report(*report),
            Move::LeashGone => self.leash_gone(),
            Move::SweptByHost => {
                self.sweeping = false;
                self.with(|session, now, out| session.swept_by_host((1, Vec::new()), now, out));
            }
            Move::OutputEnded => {
                self.stdout = false;
                self.with(Session::output_ended);
            }
            Move::StderrEnded => {
                self.stderr = false;
                self.with(|session, _, out| session.stderr_ended(out));
            }
            Move::Blocked(progress) => {
                self.with(|session, now, _| session.wrote(true, *progress, now));
            }
            Move::Unblocked => self.with(|session, now, _| session.wrote(false, true, now)),
            Move::Line(line) => self.line(Line::Whole(line.clone().into())),
            Move::Oversize => self.line(Line::Oversize {
                length: 1 << 30,
                head: b"{\"type\":",
            }),
            Move::Turn(limit) => self.turn(*limit),
            Move::Interrupt => self.with(|session, _, out| session.interrupt(out)),
            Move::Abandon => self.with(Session::abandon),
            Move::Answer(id) => {
                let line = b"{}\n".to_vec();
                self.with(|session, now, out| session.answer(id, line, now, out));
            }
            Move::Shutdown(grace) => {
                self.bound_force(*grace);
                self.ordered = true;
                self.with(|session, now, out| session.shutdown(*grace, now, out));
            }
            Move::Kill => {
                self.bound_force(Duration::ZERO);
                self.ordered = true;
                self.with(|session, _, out| session.kill("killed by the host", out));
            }
            Move::Breach => {
                self.bound_force(Duration::ZERO);
                self.ordered = true;
                self.with(|session, _, out| session.breach("too much".into(), out));
            }
        }
    }

    /// Whoever waits sees the end: after an order to end, or for a run with limits by itself.
    pub(crate) fn play_to_the_end(&mut self) {
        let ends_itself = (self.kind.run || self.kind.raw) && self.kind.limited;
        // A task that never ends has limits of its own, an ask is answered within a minute.
        for task in moves::TASKS {
            self.play(&Move::Line(moves::task_over(task)));
        }
        for ask in moves::ASKS {
            self.play(&Move::Answer((*ask).into()));
        }
        // After the exit the leash sweeps, or dies.
        if self.leash == Leash::Exited {
            self.play(&if self.kind.obedient {
                Move::Report(moves::swept())
            } else {
                Move::LeashGone
            });
        }
        if !ends_itself {
            self.play(&Move::Shutdown(Duration::from_secs(4)));
        }
        self.play(&Move::Pass(Duration::from_secs(20)));
        self.play(&Move::Pass(AFTERMATH));
        assert!(self.finished, "it never ends\n{}", self.story());
        let view = self.shared.view();
        assert!(
            view.ending.is_some() || view.failure.is_some(),
            "it ended and nobody says how\n{}",
            self.story()
        );
    }

    fn is_possible(&self, step: &Move) -> bool {
        match step {
            Move::Report(report) => match report {
                Report::Born { .. } | Report::Started { .. } | Report::Failed { .. } => {
                    self.leash == Leash::Silent
                }
                Report::Exited { .. } => self.leash == Leash::Started,
                Report::Survivor { .. } | Report::Swept { .. } => self.leash == Leash::Exited,
            },
            Move::LeashGone => self.leash < Leash::Gone,
            Move::SweptByHost => self.sweeping,
            Move::OutputEnded | Move::Line(_) | Move::Oversize => self.stdout,
            Move::StderrEnded => self.stderr,
            _ => true,
        }
    }

    fn report(&mut self, report: Report) {
        self.leash = match report {
            Report::Born { .. } => Leash::Silent,
            Report::Started { .. } => Leash::Started,
            Report::Failed { .. } | Report::Swept { .. } => Leash::Swept,
            Report::Exited { .. } | Report::Survivor { .. } => Leash::Exited,
        };
        self.with(|session, now, out| session.report(report, now, out));
    }

    fn leash_gone(&mut self) {
        self.leash = Leash::Gone;
        self.with(Session::leash_gone);
    }

    fn line(&mut self, line: Line<'_>) {
        self.with(|session, now, out| deliver(session, None, line, now, out));
    }

    /// What `handle` does: the turn is begun under the lock, then the session is told.
    fn turn(&mut self, limit: Option<Duration>) {
        let begun = self.shared.change(|view| {
            let ready = *view.state == State::Ready && !self.kind.run;
            if ready {
                view.state.go(State::InTurn);
                view.turn += 1;
                view.turn_ends.clear();
            }
            ready
        });
        if begun {
            self.with(|session, now, out| {
                session.begin_turn("more", PROMPT.into(), limit, now, out);
            });
        }
    }

    fn bound_force(&mut self, grace: Duration) {
        let by = self.now + grace + LADDER;
        // An order of the host replaces the run's own way out; another may only hurry it.
        let before = self.force_by.filter(|_| self.ordered);
        self.force_by = Some(before.map_or(by, |at| at.min(by)));
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..10_000 {
            match self.session.deadline(self.now) {
                Some(at) if at <= until && !self.finished => {
                    self.now = self.now.max(at);
                    self.with(Session::tick);
                }
                _ => {
                    self.now = self.now.max(until);
                    return;
                }
            }
        }
        panic!("its clocks never rest\n{}", self.story());
    }

    fn with(&mut self, act: impl FnOnce(&mut Session, Instant, &mut Vec<Action>)) {
        let mut out = Vec::new();
        act(&mut self.session, self.now, &mut out);
        self.done(out);
    }

    /// Carries out what the session wants, as the reactor does, and checks it.
    fn done(&mut self, actions: Vec<Action>) {
        self.session.deadline(self.now);
        let last = actions.len().saturating_sub(1);
        for (at, action) in actions.into_iter().enumerate() {
            self.log.push(format!("    {action:?}"));
            match action {
                Action::Finish => {
                    assert_eq!(at, last, "something after Finish\n{}", self.story());
                    self.session.conclude();
                    self.finished = true;
                }
                Action::Order(Order::Kill) => {
                    assert!(!self.forced, "force twice\n{}", self.story());
                    self.forced = true;
                }
                Action::Leash(9) if self.leash < Leash::Gone => {
                    self.check();
                    self.leash_gone();
                    return;
                }
                Action::Sweep => self.sweeping = true,
                Action::Write(_)
                | Action::CloseStdin
                | Action::Order(Order::Signal(_))
                | Action::Leash(_)
                | Action::WakeGuardian
                | Action::GiveUpGuardian => {}
            }
        }
        self.check();
        if self.forced && self.kind.obedient && !self.finished {
            self.obey();
        }
    }

    /// A leash that does what it was told.
    fn obey(&mut self) {
        let next = match self.leash {
            Leash::Silent => moves::started(),
            Leash::Started => moves::exited(0, 9),
            Leash::Exited => moves::swept(),
            Leash::Swept | Leash::Gone => return,
        };
        self.log.push(format!("{next:?}"));
        self.report(next);
    }

    fn check(&mut self) {
        let state = *self.shared.view().state;
        let legal = match (self.state, state) {
            (State::InTurn | State::WaitingForPermission, State::Ready | State::InTurn) => true,
            (before, after) => rank(after) >= rank(before),
        };
        assert!(
            legal,
            "from {:?} back to {state:?}\n{}",
            self.state,
            self.story()
        );
        self.state = state;
        assert_eq!(
            state.is_over(),
            self.finished,
            "over and finished are one\n{}",
            self.story()
        );
        if state == State::Draining && self.force_by.is_none() {
            self.bound_force(Duration::from_secs(1));
        }
        let ending = self.forced || self.finished || self.leash > Leash::Started;
        if let Some(by) = self.force_by.filter(|by| !ending && self.now > *by) {
            panic!("no force by {by:?}, now {:?}\n{}", self.now, self.story());
        }
    }

    fn story(&self) -> String {
        format!("{:?}\n{}", self.kind, self.log.join("\n"))
    }
}

fn rank(state: State) -> u8 {
    match state {
        State::Starting => 0,
        State::Ready => 1,
        State::InTurn | State::WaitingForPermission => 2,
        State::Draining => 3,
        State::Ended | State::SpawnFailed => 4,
    }
}
