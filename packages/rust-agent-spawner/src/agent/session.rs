//! The state machine of one persistent session with the CLI.
//!
//! Responsible for what happens next: it turns reports, lines, time and orders into [`Action`]s.
//! It touches no file descriptor and no clock of its own, so that a test can drive it by hand.

use super::claude;
use super::shared::{Ending, Failure, Shared, State, TurnEnd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vespera_guardian::{EndedBy, Order, Report};

/// After an interrupt, this long for the `result` before the tree is ended.
const INTERRUPT_PATIENCE: Duration = Duration::from_secs(5);

/// After the tree is gone, this long for the last lines: a pipe that somebody outside the tree
/// still holds must not keep an agent from ending.
const DRAIN: Duration = Duration::from_millis(500);

/// After its output ended, this long for the exit: nobody can hear an agent without output.
const MUTE: Duration = Duration::from_secs(2);

const INITIALIZE: &str = "vespera-initialize";

/// What the reactor is to do for a session.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Write(Vec<u8>),
    CloseStdin,
    Order(Order),
    /// Everything has been said; close what is left.
    Finish,
}

/// The clocks of a session.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    pub startup: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Clock {
    Startup { seconds: f64 },
    Turn { seconds: f64 },
    Interrupted { seconds: f64 },
    Mute,
    Terminate { then_kill_at: Instant },
    Kill,
    Drain,
}

/// One agent's session; lives on the reactor's thread.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    timeouts: Timeouts,
    clock: Option<(Instant, Clock)>,
    exit: Option<(i32, i32)>,
    swept: Option<(EndedBy, u32, u32)>,
    stdout_open: bool,
    interrupts: u64,
    prompt: String,
    timed_out: Option<f64>,
    agents: Option<serde_json::Value>,
}

impl Session {
    /// A session whose program has been requested.
    pub fn new(
        shared: Arc<Shared>,
        timeouts: Timeouts,
        agents: Option<serde_json::Value>,
        now: Instant,
    ) -> Self {
        let seconds = timeouts.startup.as_secs_f64();
        let clock = Some((now + timeouts.startup, Clock::Startup { seconds }));
        Self {
            shared,
            timeouts,
            clock,
            exit: None,
            swept: None,
            stdout_open: true,
            interrupts: 0,
            prompt: String::new(),
            timed_out: None,
            agents,
        }
    }

    /// When [`Session::tick`] wants to be called next.
    pub fn deadline(&self) -> Option<Instant> {
        self.clock.map(|(at, _)| at)
    }

    /// The limit on start-up.
    pub fn startup(&self) -> Duration {
        self.timeouts.startup
    }

    /// A report of the leash arrived.
    pub fn report(&mut self, report: Report, now: Instant, out: &mut Vec<Action>) {
        match report {
            Report::Started { pid, leash } => {
                self.shared
                    .change(|view| (view.pid, view.leash) = (pid, leash));
                out.push(Action::Write(claude::initialize(
                    INITIALIZE,
                    self.agents.as_ref(),
                )));
            }
            Report::Failed { errno, stage } => {
                self.shared.change(|view| {
                    view.failure = Some(Failure::Spawn { errno, stage });
                    view.state = State::SpawnFailed;
                });
                out.push(Action::Finish);
            }
            Report::Exited { code, signal, .. } => {
                self.exit = Some((code, signal));
            }
            Report::Swept {
                by,
                killed,
                survivors,
            } => {
                self.swept = Some((by, killed, survivors));
                self.clock = Some((now + DRAIN, Clock::Drain));
                self.finish_if_drained(out);
            }
        }
    }

    /// The leash's socket ended: without a `Swept` before it, leash or guardian died.
    pub fn leash_gone(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.swept.is_none() && !self.shared.view().state.is_over() {
            self.swept = Some((EndedBy::GuardianDeath, 0, 0));
            self.clock = Some((now + DRAIN, Clock::Drain));
            self.finish_if_drained(out);
        }
    }

    /// The agent's output ended.
    pub fn output_ended(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.stdout_open = false;
        let ending = matches!(
            self.clock,
            Some((_, Clock::Terminate { .. } | Clock::Kill | Clock::Drain))
        );
        if !ending && self.exit.is_none() && self.swept.is_none() {
            self.clock = Some((now + MUTE, Clock::Mute));
        }
        self.finish_if_drained(out);
    }

    /// A line that was too long to keep: counted, and the stream lives on.
    pub fn oversize(&self) {
        self.shared.view().events += 1;
    }

    /// One whole line of output.
    pub fn line(&mut self, line: &[u8], out: &mut Vec<Action>) {
        let Some(frame) = claude::envelope(line) else {
            self.shared.view().events += 1;
            return;
        };
        {
            let mut view = self.shared.view();
            view.events += 1;
            if frame.kind == "conversation_reset" {
                if let Some(id) = &frame.new_conversation_id {
                    view.session_id = id.to_string();
                }
            } else if let Some(id) = frame.session_id.as_deref()
                && !id.is_empty()
                && view.session_id != id
            {
                id.clone_into(&mut view.session_id);
            }
        }
        match &*frame.kind {
            "control_response" => self.control_response(&frame, out),
            "control_request" => {
                if let Some(id) = &frame.request_id {
                    out.push(Action::Write(claude::refuse(id, frame.request)));
                }
            }
            "result" => self.result(line),
            _ => {}
        }
    }

    fn control_response(&mut self, frame: &claude::Envelope<'_>, out: &mut Vec<Action>) {
        let Some(response) = frame.response else {
            return;
        };
        let Ok(response) = serde_json::from_str::<claude::ControlResponse<'_>>(response.get())
        else {
            return;
        };
        if response.request_id != INITIALIZE
            || !matches!(self.clock, Some((_, Clock::Startup { .. })))
        {
            return;
        }
        self.clock = None;
        if response.subtype == "success" {
            self.shared.change(|view| view.state = State::Ready);
        } else {
            let message = response
                .error
                .map_or_else(String::new, |error| error.to_string());
            self.shared
                .change(|view| view.failure = Some(Failure::Refused { message }));
            self.kill("it refused initialize", out);
        }
    }

    fn result(&mut self, line: &[u8]) {
        let verdict = claude::verdict(line);
        // A background task's own result: no turn of ours ends with it.
        if !verdict.prompts.is_empty() && !verdict.prompts.contains(&self.prompt) {
            return;
        }
        let timed_out = match self.clock {
            Some((_, Clock::Interrupted { seconds })) => Some(seconds),
            _ => None,
        };
        let answered = self.shared.change(|view| {
            if view.state != State::InTurn {
                return false;
            }
            let cost_before = view.total_cost_usd;
            view.turns += 1;
            view.total_cost_usd = verdict.total_cost_usd.or(cost_before);
            view.outcome = Some(verdict.outcome);
            view.state = State::Ready;
            view.turn_end = Some(match timed_out {
                Some(seconds) => TurnEnd::TimedOut {
                    seconds,
                    alive: true,
                },
                None => TurnEnd::Result {
                    frame: line.to_vec(),
                    cost_before,
                },
            });
            true
        });
        if answered && self.stdout_open {
            self.clock = None;
        }
    }

    /// A turn was begun by `Shared::change` (state `InTurn`): write the prompt, start its clock.
    pub fn begin_turn(
        &mut self,
        prompt: &str,
        uuid: String,
        limit: Option<Duration>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        if self.shared.view().state != State::InTurn {
            return;
        }
        self.clock = limit.map(|limit| {
            (
                now + limit,
                Clock::Turn {
                    seconds: limit.as_secs_f64(),
                },
            )
        });
        out.push(Action::Write(claude::user(prompt, &uuid)));
        self.prompt = uuid;
    }

    /// The caller of the turn in flight waits no more: stop the turn, or end the agent if it
    /// does not answer.
    pub fn abandon(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.shared.view().state == State::InTurn {
            self.interrupt(out);
            self.clock = Some((
                now + INTERRUPT_PATIENCE,
                Clock::Interrupted {
                    seconds: INTERRUPT_PATIENCE.as_secs_f64(),
                },
            ));
        }
    }

    /// Stop the turn in flight; its `result` says `cancelled`.
    pub fn interrupt(&mut self, out: &mut Vec<Action>) {
        if self.shared.view().state == State::InTurn {
            self.interrupts += 1;
            out.push(Action::Write(claude::interrupt(&format!(
                "vespera-interrupt-{}",
                self.interrupts
            ))));
        }
    }

    /// End the agent within `grace`: end of input, then SIGTERM, then force.
    pub fn shutdown(&mut self, grace: Duration, now: Instant, out: &mut Vec<Action>) {
        let begun = self.shared.change(|view| {
            let begun = !view.state.is_over();
            if begun {
                view.state = State::Draining;
            }
            begun
        });
        if !begun || self.swept.is_some() {
            return;
        }
        if grace.is_zero() {
            self.kill("shutdown without grace", out);
            return;
        }
        self.step("shutdown");
        out.push(Action::CloseStdin);
        self.clock = Some((
            now + grace / 2,
            Clock::Terminate {
                then_kill_at: now + grace,
            },
        ));
    }

    /// End the agent at once.
    pub fn kill(&mut self, reason: &'static str, out: &mut Vec<Action>) {
        self.shared.change(|view| {
            if !view.state.is_over() {
                view.reason.get_or_insert(reason);
                view.rung = Some("kill");
            }
        });
        out.push(Action::Order(Order::Kill));
    }

    /// A deadline may have passed.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some((at, clock)) = self.clock else {
            return;
        };
        if at > now {
            return;
        }
        self.clock = None;
        match clock {
            Clock::Startup { seconds } => {
                self.shared
                    .change(|view| view.failure = Some(Failure::Silent { seconds }));
                self.kill("startup time-out", out);
            }
            Clock::Turn { seconds } => {
                self.interrupt(out);
                self.clock = Some((now + INTERRUPT_PATIENCE, Clock::Interrupted { seconds }));
            }
            Clock::Interrupted { seconds } => {
                self.timed_out = Some(seconds);
                self.kill("no answer to an interrupt", out);
            }
            Clock::Terminate { then_kill_at } => {
                self.step("terminate");
                out.push(Action::Order(Order::Signal(15)));
                self.clock = Some((then_kill_at, Clock::Kill));
            }
            Clock::Kill => self.kill("shutdown grace exceeded", out),
            Clock::Mute => self.kill("it closed its output but did not exit", out),
            Clock::Drain => self.end(out),
        }
    }

    fn step(&self, rung: &'static str) {
        self.shared.change(|view| view.rung = Some(rung));
    }

    fn finish_if_drained(&mut self, out: &mut Vec<Action>) {
        if self.swept.is_some() && !self.stdout_open {
            self.end(out);
        }
    }

    fn end(&mut self, out: &mut Vec<Action>) {
        let Some((by, killed, survivors)) = self.swept else {
            return;
        };
        let (code, signal) = self.exit.unwrap_or((-1, 9));
        self.clock = None;
        self.shared.change(|view| {
            if view.state.is_over() {
                return;
            }
            view.ending = Some(Ending {
                code,
                signal,
                by,
                killed,
                survivors,
            });
            if view.state == State::Starting && view.failure.is_none() {
                view.failure = Some(match self.exit {
                    Some((code, signal)) => Failure::Exited { code, signal },
                    None => Failure::GuardianLost,
                });
            }
            if let Some(seconds) = self.timed_out {
                view.turn_end = Some(TurnEnd::TimedOut {
                    seconds,
                    alive: false,
                });
            }
            view.state = if view.failure.is_some() {
                State::SpawnFailed
            } else {
                State::Ended
            };
        });
        out.push(Action::Finish);
    }
}
