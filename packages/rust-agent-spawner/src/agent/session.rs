//! One agent's life as a state machine: start, clocks, the ladder, the end.
//!
//! Responsible for what happens next: it turns reports, lines, time and orders into [`Action`]s.
//! It touches no file descriptor and no clock of its own, so that a test can drive it by hand.
//! What is said in between is in `conversation`.

use super::clocks::{Clock, Clocks};
use super::ladder::PRESS;
use super::plan::Plan;
use super::shared::{Ending, Failure, Shared, State, TurnEnd};
use super::silence::Idle;
use super::swept::{Swept, cause, describe, survivor};
use super::turn::{Stop, Turn};
use crate::diagnostics::{self, Level};
use crate::oom;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use vespera_guardian::{EndedBy, Order, Report};

/// After an interrupt, this long for the `result` before the tree is ended.
pub(super) const INTERRUPT_PATIENCE: Duration = Duration::from_secs(5);

/// After the tree is gone, this long for the last lines: a pipe that somebody outside the tree
/// still holds must not keep an agent from ending.
const DRAIN: Duration = Duration::from_millis(500);

/// From the request to the leash's first word; a guardian that was stopped misses it.
const BORN: Duration = Duration::from_secs(5);

/// The leash's own deadline for force and a margin: then it is asked again, in its own way.
const REPORT: Duration = Duration::from_secs(6);

/// A sweep by the host has this long: its own deadline and a margin.
pub(super) const OWNERLESS: Duration = Duration::from_secs(7);

/// After its output ended, this long for the exit: nobody can hear an agent without output.
const MUTE: Duration = Duration::from_secs(2);

/// What the reactor is to do for a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Write(Vec<u8>),
    CloseStdin,
    Order(Order),
    /// Send this signal to the leash itself, if its socket shows that it is there.
    Leash(i32),
    /// The guardian may have been stopped: continue it.
    WakeGuardian,
    /// The guardian has not even made a leash: the next agents get another.
    GiveUpGuardian,
    /// Nobody owns the tree any more: end what carries its mark, then say so.
    Sweep,
    /// Everything has been heard: give its place away or keep it, have it [`conclude`], and close
    /// what is left.
    ///
    /// [`conclude`]: Session::conclude
    Finish,
}

/// Bytes that any socket takes while nobody reads.
const EARLY: usize = 16 * 1024;

/// The limits on time.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub startup: Duration,
    pub turn: Option<Duration>,
    pub idle: Idle,
    pub total: Option<Duration>,
    pub after_result: Duration,
    /// The next byte that the agent takes, while some of its input waits.
    pub write: Duration,
}

/// One agent; lives on the reactor's thread.
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own: three ends, a greeting, a kind"
)]
#[derive(Debug)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) timeouts: Timeouts,
    pub(super) plan: Plan,
    pub(super) is_run: bool,
    pub(super) clocks: Clocks,
    pub(super) exit: Option<(i32, i32)>,
    pub(super) swept: Option<Swept>,
    /// Descriptions of what outlived force.
    pub(super) survivors: Vec<String>,
    /// Force was ordered; its report is timed from the next tick on.
    pub(super) forced: bool,
    pub(super) presses: u32,
    /// The kernel's count of OOM kills when the agent started.
    oom_kills: u64,
    pub(super) stdout_open: bool,
    stderr_open: bool,
    /// Nobody reads its output: what it says now cannot be heard.
    pub(super) unheard: bool,
    pub(super) grace: Duration,
    pub(super) greeted: bool,
    greets_early: bool,
    pub(super) answered_early: bool,
    pub(super) interrupts: u64,
    /// The turn in flight; nothing of it outlives its `result`.
    pub(super) turn: Option<Turn>,
    /// The limit of time that ended the agent, and its seconds.
    pub(super) expired: Option<(&'static str, f64)>,
    pub(super) tasks: HashSet<String>,
    pub(super) had_tasks: bool,
    /// Asks for tools that have no answer yet: a background task's outlive the turn.
    pub(super) asking: HashSet<String>,
    /// Calls of the host's functions that have no answer yet.
    pub(super) calling: HashSet<String>,
    /// When what is being delivered was read.
    pub(super) received_at: SystemTime,
    /// As much again is likely to be there.
    pub(super) more_follows: bool,
    /// The session's id as the CLI said it last.
    pub(super) said_id: String,
    /// The model has said something since it was last refused.
    pub(super) spoke: bool,
    /// The outcome that the last `assistant` frame gave instead of the model's words.
    pub(super) unanswered: Option<&'static str>,
    started: Instant,
}

impl Session {
    /// A session whose program has been requested.
    pub fn new(shared: Arc<Shared>, timeouts: Timeouts, plan: Plan, now: Instant) -> Self {
        let mut clocks = Clocks::default();
        clocks.set(Clock::Born, now + BORN);
        clocks.set(Clock::Startup, now + timeouts.startup);
        if let (Some(total), false) = (timeouts.total, plan.spare) {
            clocks.set(Clock::Total, now + total);
        }
        Self {
            shared,
            timeouts,
            is_run: plan.prompt.is_some() || plan.adapter.runs_to_exit(),
            plan,
            clocks,
            exit: None,
            swept: None,
            survivors: Vec::new(),
            forced: false,
            presses: 0,
            oom_kills: oom::recent_kills(),
            stdout_open: true,
            stderr_open: true,
            unheard: false,
            grace: Duration::ZERO,
            greeted: false,
            greets_early: false,
            answered_early: false,
            interrupts: 0,
            turn: None,
            expired: None,
            tasks: HashSet::new(),
            had_tasks: false,
            asking: HashSet::new(),
            calling: HashSet::new(),
            received_at: SystemTime::now(),
            more_follows: false,
            said_id: String::new(),
            spoke: false,
            unanswered: None,
            started: now,
        }
    }

    /// It was prepared some time ago and is asked for now.
    pub fn begin(&mut self, now: Instant) {
        self.clocks.shift(self.age(now));
        self.started = now;
        self.oom_kills = oom::recent_kills();
    }

    /// A session that waited for an owner has one: its time begins now, and with a prompt it is a
    /// run.
    pub fn claim(&mut self, prompt: Option<(String, String)>, now: Instant, out: &mut Vec<Action>) {
        self.started = now;
        if let Some(total) = self.timeouts.total {
            self.clocks.set(Clock::Total, now + total);
        }
        self.is_run = prompt.is_some();
        self.plan.prompt = prompt;
        if self.greeted {
            self.begin_run(now, out);
        }
    }

    /// When [`Session::tick`] wants to be called next.
    pub fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if std::mem::take(&mut self.forced) && self.swept.is_none() {
            // A leash that is held up by a start has nothing to force, and hears nobody.
            let starts = self.shared.view().pid == 0;
            let patience = if starts { PRESS } else { REPORT };
            self.clocks.set(Clock::Report, now + patience);
        }
        self.clocks.next()
    }

    /// Output was read at this moment; its lines follow. When `more` does, whoever read it tells
    /// of them.
    pub fn received(&mut self, more: bool) {
        self.received_at = SystemTime::now();
        self.more_follows = more;
    }

    /// Time passed in which nobody could act: deadlines wait as long.
    pub fn shift(&mut self, by: Duration) {
        self.clocks.shift(by);
    }

    /// What is said first is said before the program runs: it waits in the socket, and nobody has to
    /// be woken to read it. What may not fit there waits for the program.
    pub fn greet_early(&mut self, out: &mut Vec<Action>) {
        if let Some(greeting) = self.plan.adapter.greeting(&self.plan.told)
            && greeting.len() <= EARLY
        {
            self.greets_early = true;
            out.push(Action::Write(greeting));
        }
    }

    /// A report of the leash arrived.
    pub fn report(&mut self, report: Report, now: Instant, out: &mut Vec<Action>) {
        match report {
            Report::Born { leash } => self.shared.change_silently(|view| view.leash = leash),
            Report::Started { pid, leash } => {
                self.clocks.clear(Clock::Born);
                diagnostics::agent(Level::Info, &self.shared, || format!("started pid {pid}"));
                self.shared
                    .change_silently(|view| (view.pid, view.leash) = (pid, leash));
                if self.answered_early {
                    self.greeted(now, out);
                } else if !self.greets_early {
                    match self.plan.adapter.greeting(&self.plan.told) {
                        Some(greeting) => out.push(Action::Write(greeting)),
                        None => self.greeted(now, out),
                    }
                }
            }
            Report::Failed { errno, stage } => {
                self.shared.change(|view| {
                    view.failure = Some(Failure::Spawn { errno, stage });
                    view.state.go(State::SpawnFailed);
                });
                out.push(Action::Finish);
            }
            Report::Exited { code, signal, .. } => {
                self.exit = Some((code, signal));
            }
            Report::Survivor { pid, name, channel } => {
                self.survivors.push(survivor(pid, &name, &channel));
            }
            Report::Swept {
                by,
                killed,
                survivors,
                breach,
                cpu_us,
            } => {
                let swept = Swept {
                    by,
                    killed,
                    survivors,
                    breach,
                    cpu: Some(Duration::from_micros(cpu_us)),
                };
                self.gone(swept, now, out);
            }
        }
    }

    /// The leash's socket ended: without a `Swept` before it, leash or guardian died.
    pub fn leash_gone(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.swept.is_some() || self.shared.view().state.is_over() {
            return;
        }
        // The leash dies with its agent; a guardian that lives adopts and ends the rest.
        self.clocks.clear_all();
        self.clocks.set(Clock::Drain, now + OWNERLESS);
        diagnostics::agent(Level::Error, &self.shared, || {
            "its leash or guardian died; the host ends what is left of its tree".into()
        });
        out.push(Action::Sweep);
    }

    /// The tree was swept by the host itself.
    pub fn swept_by_host(&mut self, swept: (u32, Vec<i32>), now: Instant, out: &mut Vec<Action>) {
        if self.swept.is_none() {
            let (killed, survivors) = swept;
            self.survivors.extend(survivors.into_iter().map(describe));
            let survivors = u32::try_from(self.survivors.len()).unwrap_or(u32::MAX);
            self.gone(Swept::ownerless(killed, survivors), now, out);
        }
    }

    fn gone(&mut self, swept: Swept, now: Instant, out: &mut Vec<Action>) {
        self.swept = Some(swept);
        self.clocks.clear_all();
        self.clocks.set(Clock::Drain, now + DRAIN);
        self.finish_if_drained(out);
    }

    /// Whether its leash has said that it has ended and that nothing of it is left.
    pub fn left_nothing(&self) -> bool {
        let swept = |swept: Swept| {
            swept.survivors == 0 && matches!(swept.by, EndedBy::Itself | EndedBy::Host)
        };
        self.exit.is_some() && self.swept.is_some_and(swept)
    }

    /// Whether it ended because its leash or its guardian died.
    pub fn lost_its_owner(&self) -> bool {
        let lost = |swept: Swept| swept.by == EndedBy::GuardianDeath;
        self.swept.is_some_and(lost)
    }

    /// Whether it ended by itself and without complaint: what came of it stops nobody else.
    pub fn went_well(&self) -> bool {
        let view = self.shared.view();
        // A program's turn ends with its exit.
        let to_exit = self.plan.adapter.runs_to_exit();
        let is_over = |turn: &Turn| to_exit && turn.stopped.is_none();
        self.exit == Some((0, 0))
            && self.greeted
            && self.turn.as_ref().is_none_or(is_over)
            && self.expired.is_none()
            && self.unanswered.is_none()
            && view.failure.is_none()
            && view.refused.is_none()
            && view.rung.is_none()
            && view.outcome.is_none_or(|outcome| outcome == "completed")
    }

    /// The agent's output ended.
    pub fn output_ended(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.stdout_open = false;
        let ending = self.clocks.is_set(Clock::Terminate) || self.clocks.is_set(Clock::Kill);
        let speaks = !self.plan.adapter.runs_to_exit();
        if speaks && !ending && self.exit.is_none() && self.swept.is_none() {
            self.clocks.set(Clock::Mute, now + MUTE);
        }
        self.finish_if_drained(out);
    }

    /// The agent's stderr ended.
    pub fn stderr_ended(&mut self, out: &mut Vec<Action>) {
        self.stderr_open = false;
        self.finish_if_drained(out);
    }

    /// The tree uses more than it may: `words` say what and how much.
    pub fn breach(&mut self, words: String, out: &mut Vec<Action>) {
        self.kill(words, out);
    }

    /// Deadlines may have passed.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        while let Some(clock) = self.clocks.take_due(now) {
            match clock {
                // A slow disk looks the same, so nothing worse than SIGCONT is done.
                Clock::Born => {
                    out.extend([Action::WakeGuardian, Action::Leash(18)]);
                    self.clocks.set(Clock::Born, now + BORN);
                }
                Clock::Startup => {
                    let seconds = self.timeouts.startup.as_secs_f64();
                    self.shared
                        .change(|view| view.failure = Some(Failure::Silent { seconds }));
                    self.kill("startup time-out", out);
                }
                Clock::Turn => {
                    let limit = self.turn.as_ref().and_then(|turn| turn.limit);
                    self.time_out("turn", limit.unwrap_or_default(), now, out);
                }
                Clock::Idle => {
                    let (which, limit) = self.idle();
                    self.time_out(which, limit.unwrap_or_default(), now, out);
                }
                Clock::Total => {
                    let seconds = self.timeouts.total.unwrap_or_default().as_secs_f64();
                    self.expired.get_or_insert(("total", seconds));
                    if !self.greeted {
                        self.shared
                            .change(|view| view.failure = Some(Failure::Late { seconds }));
                    }
                    self.kill("total time-out", out);
                }
                Clock::Write => {
                    let seconds = self.timeouts.write.as_secs_f64();
                    if self.greeted {
                        self.expired.get_or_insert(("write", seconds));
                    } else {
                        self.shared
                            .change(|view| view.failure = Some(Failure::Deaf { seconds }));
                    }
                    // Half a frame may have arrived: nothing can follow it.
                    self.kill("it did not take its input", out);
                }
                Clock::Interrupted => self.kill("no answer to an interrupt", out),
                Clock::Quiet => self.finish_run(now, out),
                Clock::AfterResult | Clock::Terminate => {
                    self.clocks.clear(Clock::AfterResult);
                    self.clocks.clear(Clock::Terminate);
                    self.step("terminate");
                    out.push(Action::Order(Order::Signal(15)));
                    let half = (self.grace / 2).max(Duration::from_secs(1));
                    self.clocks.advance(Clock::Kill, now + half);
                }
                Clock::Kill => self.kill("shutdown grace exceeded", out),
                Clock::Report => self.press_leash(now, out),
                Clock::Mute => self.kill("it closed its output but did not exit", out),
                Clock::Drain => {
                    let survivors = u32::try_from(self.survivors.len()).unwrap_or(u32::MAX);
                    self.swept.get_or_insert(Swept::ownerless(0, survivors));
                    self.end(out);
                }
            }
        }
    }

    /// What waits to be written to the agent, after a try: `progress` says that it took some.
    pub fn wrote(&mut self, waits: bool, progress: bool, now: Instant) {
        let ends = !waits || *self.shared.view().state == State::Draining;
        if ends {
            self.clocks.clear(Clock::Write);
        } else if progress || !self.clocks.is_set(Clock::Write) {
            self.clocks.set(Clock::Write, now + self.timeouts.write);
        }
    }

    /// Whether a limit of time has passed, so that what the agent said should be read first.
    pub fn is_due(&self, now: Instant) -> bool {
        self.clocks.next().is_some_and(|at| at <= now)
    }

    fn finish_if_drained(&mut self, out: &mut Vec<Action>) {
        if self.swept.is_some() && !self.stdout_open && !self.stderr_open {
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut Vec<Action>) {
        self.clocks.clear_all();
        out.push(Action::Finish);
    }

    /// Says that it is over, once its place has been given away or kept.
    pub fn conclude(&mut self) {
        let Some(swept) = self.swept else {
            return;
        };
        // Without a word of its leash it was killed, unless it lives.
        let lives = swept.survivors > 0;
        let (code, signal) = self.exit.unwrap_or((-1, if lives { 0 } else { 9 }));
        let described = u32::try_from(self.survivors.len()).unwrap_or(u32::MAX);
        if let Some(more) = swept
            .survivors
            .checked_sub(described)
            .filter(|more| *more > 0)
        {
            self.survivors.push(format!("{more} more"));
        }
        self.shared.change(|view| {
            if view.state.is_over() {
                return;
            }
            let cause = match swept.by {
                EndedBy::Itself if view.rung.is_none() => cause(signal, swept, self.oom_kills),
                _ => None,
            };
            view.ending = Some(Ending {
                code,
                signal,
                by: swept.by,
                cause,
                killed: swept.killed,
                survivors: swept.survivors,
                cpu: swept.cpu,
            });
            crate::metrics::ORPHANS.add(u64::from(swept.killed));
            view.survivors = std::mem::take(&mut self.survivors);
            if !self.greeted && view.failure.is_none() {
                view.failure = Some(match self.exit {
                    Some((code, signal)) => Failure::Exited { code, signal },
                    None => Failure::GuardianLost,
                });
            }
            let stopped = self.turn.take().and_then(|turn| turn.stopped);
            let expired = self.expired.or(match stopped {
                Some(Stop::TimedOut { which, seconds }) => Some((which, seconds)),
                _ => None,
            });
            if let Some((which, seconds)) = expired {
                view.outcome = Some("timed_out");
                view.turn_ends.push_back(TurnEnd::TimedOut {
                    which,
                    seconds,
                    alive: false,
                });
            }
            view.state.go(if view.failure.is_some() {
                State::SpawnFailed
            } else {
                State::Ended
            });
        });
        self.tell_end(swept);
    }
}

impl Session {
    /// What the log is told of the end.
    fn tell_end(&self, swept: Swept) {
        if swept.killed > 0 {
            diagnostics::agent(Level::Info, &self.shared, || {
                format!("{} processes that it left behind were ended", swept.killed)
            });
        }
        if swept.survivors > 0 {
            diagnostics::agent(Level::Error, &self.shared, || {
                let survivors = self.shared.view().survivors.join(", ");
                format!("still alive after force: {survivors}")
            });
        }
    }

    /// Seconds since the agent was asked for.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }
}
