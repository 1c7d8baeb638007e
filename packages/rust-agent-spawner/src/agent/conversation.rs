//! What host and CLI say to each other: frames in, turns, asks, the end of a run.

use super::claude::{self, Kind};
use super::clocks::Clock;
use super::details::Spans;
use super::queue::{Event, Pushed};
use super::session::{Action, INTERRUPT_PATIENCE, Session};
use super::shared::{Failure, State, TurnEnd};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// A run that has started background tasks is over after this much silence.
const QUIET: Duration = Duration::from_secs(2);

/// How much of a program's last line its result keeps.
const LAST_LINE: usize = 64 * 1024;

/// How much of an oversize line an event keeps.
const NOT_KEPT: usize = 256;

impl Session {
    /// One whole line of output.
    pub fn line(&mut self, line: &Bytes, now: Instant, out: &mut Vec<Action>) {
        let Some(frame) = self.plan.adapter.frame(line) else {
            if self.plan.adapter.runs_to_exit() {
                self.note_output(line, now);
            }
            self.publish(Kind::Output, line, line.len(), Spans::default(), out);
            return;
        };
        let kind = frame.known_kind();
        self.note_identity(kind, &frame);
        if !self.spoke && matches!(kind, Kind::Assistant | Kind::StreamEvent) {
            self.spoke = true;
            self.shared.view().first_output.get_or_insert(now);
        }
        match kind {
            Kind::ControlResponse => {
                crate::metrics::count_event(kind);
                self.control_response(&frame, line, now, out);
                return;
            }
            Kind::ControlRequest => self.ask(&frame, line, out),
            Kind::ControlCancel => {
                if let Some(id) = &frame.request_id {
                    self.asking.remove(&**id);
                }
            }
            Kind::System => self.task(&frame),
            Kind::Assistant | Kind::User => self.note_tools(line),
            _ => {}
        }
        self.rearm_idle(now);
        // Kept before the result is told: whoever hears of the end finds all events.
        self.publish(kind, line, line.len(), frame.spans, out);
        if kind == Kind::Result {
            self.result(line, now, out);
        } else if self.clocks.is_set(Clock::Quiet) {
            self.clocks.set(Clock::Quiet, now + QUIET);
        }
    }

    /// Follows the session's id. It hardly ever changes, and each line would take the lock.
    fn note_identity(&mut self, kind: Kind, frame: &claude::Envelope<'_>) {
        let id = match kind {
            Kind::Reset => frame.new_conversation_id.as_deref(),
            _ => frame.session_id.as_deref(),
        };
        if let Some(id) = id.filter(|id| !id.is_empty())
            && self.said_id != id
        {
            id.clone_into(&mut self.said_id);
            id.clone_into(&mut self.shared.view().session_id);
        }
    }

    /// A line of a program that says nothing but lines.
    fn note_output(&mut self, line: &[u8], now: Instant) {
        {
            let mut view = self.shared.view();
            view.first_output.get_or_insert(now);
            if !line.is_empty() {
                view.last_line.clear();
                view.last_line
                    .extend_from_slice(&line[..line.len().min(LAST_LINE)]);
            }
        }
        self.rearm_idle(now);
    }

    /// A line that was too long to keep: its head tells what it was, and the stream lives on.
    pub fn oversize(&mut self, head: &[u8], length: usize, out: &mut Vec<Action>) {
        let head = Bytes::copy_from_slice(&head[..head.len().min(NOT_KEPT)]);
        self.publish(Kind::Oversize, &head, length, Spans::default(), out);
    }

    fn publish(
        &mut self,
        kind: Kind,
        raw: &Bytes,
        length: usize,
        spans: Spans,
        out: &mut Vec<Action>,
    ) {
        self.shared.note_event();
        crate::metrics::count_event(kind);
        if !self.shared.is_listening() {
            return;
        }
        let pushed = self.shared.queue().push(Event {
            kind,
            raw: raw.clone(),
            length: length as u64,
            received_at: self.received_at,
            spans,
        });
        self.shared.tell_events();
        if pushed == Pushed::OverLimit {
            self.kill(super::OUTPUT_LIMIT, out);
        }
    }

    fn control_response(
        &mut self,
        frame: &claude::Envelope<'_>,
        line: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(response) = frame.response else {
            return;
        };
        let Ok(response) = serde_json::from_str::<claude::ControlResponse<'_>>(response.get())
        else {
            return;
        };
        if response.request_id != claude::INITIALIZE {
            self.shared.change(|view| {
                view.answers
                    .push((response.request_id.into_owned(), line.to_vec()));
            });
            return;
        }
        if self.greeted {
            return;
        }
        if response.subtype == "success" {
            self.greeted(now, out);
        } else {
            self.clocks.clear(Clock::Startup);
            let message = response
                .error
                .map_or_else(String::new, |error| error.to_string());
            self.shared
                .change(|view| view.failure = Some(Failure::Refused { message }));
            self.kill("it refused initialize", out);
        }
    }

    /// The program runs and has answered whatever it is greeted with.
    pub(super) fn greeted(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.clocks.clear(Clock::Startup);
        self.greeted = true;
        let prompt = match self.plan.prompt.take() {
            None if self.plan.adapter.runs_to_exit() => Some(Default::default()),
            prompt => prompt,
        };
        let begins = self.shared.change(|view| {
            if view.state != State::Starting {
                return false;
            }
            view.state = if prompt.is_some() {
                view.turn += 1;
                State::InTurn
            } else {
                State::Ready
            };
            true
        });
        if let (true, Some((prompt, uuid))) = (begins, prompt) {
            self.begin_turn(&prompt, uuid, self.timeouts.turn, now, out);
        }
    }

    fn ask(&mut self, frame: &claude::Envelope<'_>, line: &[u8], out: &mut Vec<Action>) {
        let Some(id) = frame.request_id.as_deref() else {
            return;
        };
        if self.plan.answers_asks && claude::asks_permission(frame) {
            self.asking.insert(id.to_owned());
            // Somebody decides: a person's time is not the agent's.
            self.clocks.clear(Clock::Turn);
            self.shared.change(|view| view.asks.push(line.to_vec()));
        } else {
            out.push(Action::Write(claude::refuse(id, frame.request)));
        }
    }

    /// The host's answer to an ask, as a whole line; nothing happens when it was withdrawn.
    pub fn answer(&mut self, id: &str, line: Vec<u8>, now: Instant, out: &mut Vec<Action>) {
        if self.asking.remove(id) {
            out.push(Action::Write(line));
            if !self.turn_limit.is_zero() && self.shared.view().state == State::InTurn {
                self.clocks.set(Clock::Turn, now + self.turn_limit);
            }
            self.rearm_idle(now);
        }
    }

    fn task(&mut self, frame: &claude::Envelope<'_>) {
        let Some(task) = frame.task_id.as_deref() else {
            return;
        };
        match frame.subtype.as_deref() {
            Some("task_started") => {
                self.had_tasks = true;
                self.tasks.insert(task.to_owned());
            }
            Some("task_notification") => {
                self.tasks.remove(task);
            }
            Some("task_updated") if claude::task_is_over(frame) => {
                self.tasks.remove(task);
            }
            _ => {}
        }
    }

    fn note_tools(&mut self, line: &[u8]) {
        let idle = &self.timeouts.idle;
        if idle.tool.or(idle.mcp).or(idle.subagent).is_some() {
            claude::follow_tools(line, &mut self.tools);
        }
    }

    /// The limit on silence in what the agent waits for now, and its name.
    pub(super) fn idle(&self) -> (&'static str, Option<Duration>) {
        let idle = &self.timeouts.idle;
        if !self.asking.is_empty() {
            return ("idle.permission", idle.permission);
        }
        let (mut which, mut limit) = ("idle.model", idle.model);
        for name in self.tools.values() {
            (which, limit) = if name.starts_with("mcp__") {
                ("idle.mcp", idle.mcp)
            } else if name == "Task" || name == "Agent" {
                ("idle.subagent", idle.subagent)
            } else {
                ("idle.tool", idle.tool)
            };
        }
        (which, limit)
    }

    fn rearm_idle(&mut self, now: Instant) {
        if self.timeouts.idle.is_none() {
            return;
        }
        let in_turn = self.shared.view().state == State::InTurn;
        match self.idle().1 {
            Some(limit) if in_turn && self.timed_out.is_none() => {
                self.clocks.set(Clock::Idle, now + limit);
            }
            _ => self.clocks.clear(Clock::Idle),
        }
    }

    fn result(&mut self, line: &[u8], now: Instant, out: &mut Vec<Action>) {
        let verdict = claude::verdict(line);
        // A background task's own result: no turn of a session ends with it.
        let ours = verdict.prompts.is_empty() || verdict.prompts.contains(&self.prompt);
        if !ours && !self.is_run {
            return;
        }
        let timed_out = self.timed_out;
        let answered = self.shared.change(|view| {
            let cost_before = view.total_cost_usd;
            if view.state != State::InTurn && !self.is_run {
                return false;
            }
            view.turns += 1;
            view.total_cost_usd = verdict.total_cost_usd.or(cost_before);
            view.outcome = Some(verdict.outcome);
            if view.state == State::InTurn {
                view.state = State::Ready;
            }
            view.turn_end = Some(match timed_out {
                Some((which, seconds)) => TurnEnd::TimedOut {
                    which,
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
        if !answered {
            return;
        }
        for clock in [Clock::Turn, Clock::Interrupted, Clock::Idle] {
            self.clocks.clear(clock);
        }
        self.tools.clear();
        if !self.is_run {
            self.timed_out = None;
        } else if timed_out.is_some() || !self.had_tasks {
            self.finish_run(now, out);
        } else {
            self.clocks.set(Clock::Quiet, now + QUIET);
        }
    }

    /// A run has said everything: its input ends, and it leaves.
    pub(super) fn finish_run(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.tasks.is_empty() && self.timed_out.is_none() {
            // A task in flight will speak again; its own limits bound it.
            self.clocks.set(Clock::Quiet, now + QUIET);
            return;
        }
        self.clocks.clear(Clock::Quiet);
        self.shared.change_silently(|view| {
            if !view.state.is_over() {
                view.state = State::Draining;
            }
        });
        out.push(Action::CloseStdin);
        self.clocks
            .set(Clock::AfterResult, now + self.timeouts.after_result);
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
        self.timed_out = None;
        self.turn_limit = limit.unwrap_or_default();
        if let Some(limit) = limit {
            self.clocks.set(Clock::Turn, now + limit);
        }
        self.rearm_idle(now);
        out.push(Action::Write(self.plan.adapter.prompt(prompt, &uuid)));
        if self.plan.adapter.runs_to_exit() {
            out.push(Action::CloseStdin);
        }
        self.prompt = uuid;
    }

    /// A limit of time of the turn passed: stop it; if it does not answer, end the agent.
    pub(super) fn time_out(
        &mut self,
        which: &'static str,
        seconds: f64,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        self.timed_out.get_or_insert((which, seconds));
        self.interrupt(out);
        self.clocks.clear(Clock::Idle);
        self.clocks
            .set(Clock::Interrupted, now + INTERRUPT_PATIENCE);
    }

    /// Stop the turn in flight; its `result` says `cancelled`.
    pub fn interrupt(&mut self, out: &mut Vec<Action>) {
        if self.shared.view().state == State::InTurn {
            self.interrupts += 1;
            let stop = self.plan.adapter.interrupt(self.interrupts);
            if matches!(stop, Action::Order(_)) {
                self.shared.view().rung.get_or_insert("interrupt");
            }
            out.push(stop);
        }
    }

    /// The caller of the turn in flight waits no more: stop the turn, or end the agent if it
    /// does not answer.
    pub fn abandon(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.shared.view().state == State::InTurn {
            self.interrupt(out);
            self.clocks
                .set(Clock::Interrupted, now + INTERRUPT_PATIENCE);
        }
    }
}
