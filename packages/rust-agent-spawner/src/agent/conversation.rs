//! What host and CLI say to each other: frames in, turns, asks, the end of a run.

use super::claude::{self, Kind, Wish};
use super::clocks::Clock;
use super::details::Spans;
use super::queue::Event;
use super::refusal;
use super::session::{Action, INTERRUPT_PATIENCE, Session};
use super::shared::{Failure, NOTICE, Refused, State, TurnEnd};
use super::turn::{Stop, Turn};
use crate::diagnostics::{self, Level};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// A run that has started background tasks is over after this much silence.
const QUIET: Duration = Duration::from_secs(2);

/// How much of a program's last line its result keeps.
const LAST_LINE: usize = 64 * 1024;

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
        if matches!(kind, Kind::Assistant | Kind::StreamEvent) {
            self.note_speech(now);
        }
        let relayed = self.plan.adapter.is_relayed();
        if kind == Kind::Assistant && self.plan.counts_usage {
            self.notice(line);
        }
        match kind {
            // Between the CLI and whoever speaks with it.
            Kind::ControlResponse | Kind::ControlRequest | Kind::ControlCancel if relayed => {}
            Kind::ControlResponse => {
                crate::metrics::count_event(kind);
                self.control_response(&frame, line, now, out);
                return;
            }
            Kind::ControlRequest => self.ask(&frame, line, now, out),
            Kind::ControlCancel => self.withdrawn(&frame, line, now),
            Kind::System if frame.subtype.as_deref() == Some("api_retry") => {
                self.retries(line, now, out);
            }
            Kind::System => self.task(&frame),
            Kind::RateLimit if refusal::limit_reached(&frame) => self.notice(line),
            Kind::Reset => self.notice(line),
            Kind::Assistant => {
                self.unanswered = refusal::unanswered(&frame);
                self.note_tools(line);
            }
            Kind::User => self.note_tools(line),
            _ => {}
        }
        // The CLI says that on a clock of its own, whatever hangs.
        let lives = kind != Kind::Other || frame.kind != "keep_alive";
        if lives {
            self.rearm_idle(now);
        }
        // Kept before the result is told: whoever hears of the end finds all events.
        self.publish(kind, line, line.len(), frame.spans, out);
        if kind == Kind::Result && relayed {
            self.account(line);
        } else if kind == Kind::Result {
            self.result(line, now, out);
        } else if lives && self.clocks.is_set(Clock::Quiet) {
            self.clocks.set(Clock::Quiet, now + QUIET);
        }
    }

    /// The model speaks: whatever refused it before is over.
    fn note_speech(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.spoke, true) {
            let mut view = self.shared.view();
            view.first_output.get_or_insert(now);
            view.refused = None;
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
        diagnostics::agent(Level::Warning, &self.shared, || {
            format!("a line of {length} bytes is over the cap and was skipped")
        });
        let head = Bytes::copy_from_slice(head);
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
        crate::metrics::count_event(kind);
        if !self.shared.is_listening() {
            return;
        }
        let event = Event {
            kind,
            raw: raw.clone(),
            length: length as u64,
            received_at: self.received_at,
            spans,
        };
        let (pushed, begins) = {
            let mut queue = self.shared.queue();
            let before = queue.spilled;
            (queue.push(event), before == 0 && queue.spilled > 0)
        };
        if begins {
            diagnostics::agent(Level::Info, &self.shared, || {
                "its undelivered events go to disk from now on".into()
            });
        }
        if !self.more_follows {
            self.shared.tell_events();
        }
        if let Err(words) = pushed {
            self.breach(words, out);
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
        if response.request_id == claude::COST_BEFORE {
            let mut view = self.shared.view();
            if view.turns == 0 {
                view.restored_usd = claude::cost_before(line).unwrap_or(0.0);
            }
            return;
        }
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
        if response.subtype == "success" && self.shared.view().pid == 0 {
            // Faster than the word that it runs, without which nobody knows who it is.
            self.answered_early = true;
        } else if response.subtype == "success" {
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
        crate::metrics::SPAWN_SECONDS.observe(self.age(now));
        if self.plan.goes_on {
            out.push(Action::Write(claude::ask_cost_before()));
        }
        self.begin_run(now, out);
    }

    /// It is ready: a run begins with its prompt.
    pub(super) fn begin_run(&mut self, now: Instant, out: &mut Vec<Action>) {
        let prompt = match self.plan.prompt.take() {
            None if self.plan.adapter.runs_to_exit() => Some(Default::default()),
            prompt => prompt,
        };
        let begins = self.shared.change(|view| {
            let next = if prompt.is_some() {
                State::InTurn
            } else {
                State::Ready
            };
            let begins = *view.state != next && view.state.go(next);
            view.turn += u64::from(begins && prompt.is_some());
            begins
        });
        if let (true, Some((prompt, uuid))) = (begins, prompt) {
            self.begin_turn(&prompt, uuid, self.timeouts.turn, now, out);
        }
    }

    fn ask(
        &mut self,
        frame: &claude::Envelope<'_>,
        line: &[u8],
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(id) = frame.request_id.as_deref() else {
            return;
        };
        let wish = claude::wish(frame);
        if wish == Wish::Call && self.plan.answers_calls {
            // No person decides here: the turn's time runs on, and the handler has its own.
            self.calling.insert(id.to_owned());
            self.shared.change(|view| view.asks.push(line.to_vec()));
        } else if wish == Wish::Permission && self.plan.answers_asks {
            self.asking.insert(id.to_owned());
            self.clocks.hold(Clock::Total, now);
            if let Some(turn) = &mut self.turn {
                turn.asking.insert(id.to_owned());
                self.clocks.hold(Clock::Turn, now);
            }
            self.shared.change(|view| {
                view.state.go(State::WaitingForPermission);
                view.asks.push(line.to_vec());
            });
        } else {
            diagnostics::agent(Level::Warning, &self.shared, || {
                format!("asks for {}: denied", claude::asked(frame))
            });
            out.push(Action::Write(claude::refuse(id, frame.request)));
        }
    }

    /// The CLI waits no more for an answer: whoever works on it is told.
    fn withdrawn(&mut self, frame: &claude::Envelope<'_>, line: &[u8], now: Instant) {
        let Some(id) = frame.request_id.as_deref() else {
            return;
        };
        let (asked, called) = (self.asking.remove(id), self.calling.remove(id));
        if asked || called {
            self.shared.change(|view| view.asks.push(line.to_vec()));
        }
        if asked {
            self.decided(id, now);
        }
    }

    /// An ask was answered or withdrawn; after the turn's last one its time goes on.
    fn decided(&mut self, id: &str, now: Instant) {
        if self.asking.is_empty() {
            self.clocks.go_on(Clock::Total, now);
        }
        if let Some(turn) = &mut self.turn {
            turn.asking.remove(id);
            if !turn.asking.is_empty() {
                return;
            }
        }
        self.shared.change(|view| {
            if *view.state == State::WaitingForPermission {
                view.state.go(State::InTurn);
            }
        });
        self.clocks.go_on(Clock::Turn, now);
        self.rearm_idle(now);
    }

    /// The CLI asks the service again; where that is hopeless, the turn is stopped.
    fn retries(&mut self, line: &[u8], now: Instant, out: &mut Vec<Action>) {
        let Some(retry) = refusal::retry(line) else {
            return;
        };
        let refused = retry.refused;
        diagnostics::agent(Level::Warning, &self.shared, || {
            format!("the CLI retries: {}", refused.words)
        });
        self.spoke = false;
        self.shared.view().refused = Some(refused.clone());
        if retry.limit_ends_in.is_some() {
            self.notice(line);
        }
        if let (true, Some(turn)) = (retry.hopeless, &mut self.turn)
            && turn.stopped.is_none()
        {
            turn.stopped = Some(Stop::Refused(refused));
            self.stop(now, out);
        }
    }

    /// Something that the owner of the fleet is to know, and did not ask for.
    fn notice(&self, line: &[u8]) {
        if self.shared.is_bridged() {
            // Held first: who hears of it lets go.
            if let Some(standby) = self.shared.standby() {
                standby.hold();
            }
            self.shared
                .change(|view| view.answers.push((NOTICE.to_owned(), line.to_vec())));
        }
    }

    /// The host's answer to an ask, as a whole line; nothing happens when it was withdrawn.
    pub fn answer(&mut self, id: &str, line: Vec<u8>, now: Instant, out: &mut Vec<Action>) {
        if self.asking.remove(id) {
            out.push(Action::Write(line));
            self.decided(id, now);
        } else if self.calling.remove(id) {
            out.push(Action::Write(line));
        }
    }

    /// The `result` of a turn that somebody else began: it counts, and decides nothing.
    fn account(&mut self, line: &[u8]) {
        let verdict = claude::verdict(line);
        let refused = self.blamed(line, verdict.outcome);
        self.shared.change(|view| {
            let cost_before = Some(view.total_cost_usd.unwrap_or(view.restored_usd));
            view.account(&verdict);
            view.outcome = Some(refused.as_ref().map_or(verdict.outcome, |it| it.outcome));
            view.turn_ends.push_back(ended(line, cost_before, refused));
        });
    }

    /// Who is to blame for a failure, where the CLI said it in the model's place.
    fn blamed(&mut self, line: &[u8], outcome: &str) -> Option<Refused> {
        let unanswered = self.unanswered.take().filter(|_| outcome == "failed");
        unanswered.map(|outcome| Refused {
            outcome,
            words: refusal::last_words(line),
        })
    }

    /// The host has said everything: the input ends, and the agent is to leave by itself.
    pub fn end_input(&mut self, out: &mut Vec<Action>) {
        if !self.shared.view().state.is_over() {
            out.push(Action::CloseStdin);
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

    fn result(&mut self, line: &[u8], now: Instant, out: &mut Vec<Action>) {
        let verdict = claude::verdict(line);
        // A background task's own result: no turn ends with it, a run that has had its own may.
        let ours = |turn: &Turn| verdict.prompts.is_empty() || verdict.prompts.contains(&turn.uuid);
        if !self.turn.as_ref().map_or(self.is_run, ours) {
            return;
        }
        let stopped = self.turn.take().and_then(|turn| turn.stopped);
        let was_stopped = stopped.is_some();
        let blamed = self.blamed(line, verdict.outcome);
        self.shared.change(|view| {
            let cost_before = Some(view.total_cost_usd.unwrap_or(view.restored_usd));
            view.account(&verdict);
            if view.state.is_in_turn() {
                view.state.go(State::Ready);
            }
            let (outcome, end) = match stopped {
                Some(Stop::TimedOut { which, seconds }) => (
                    "timed_out",
                    TurnEnd::TimedOut {
                        which,
                        seconds,
                        alive: true,
                    },
                ),
                Some(Stop::Refused(refused)) => {
                    (refused.outcome, ended(line, cost_before, Some(refused)))
                }
                None => {
                    let outcome = blamed.as_ref().map_or(verdict.outcome, |it| it.outcome);
                    (outcome, ended(line, cost_before, blamed))
                }
            };
            view.outcome = Some(outcome);
            view.turn_ends.push_back(end);
        });
        for clock in [Clock::Turn, Clock::Interrupted, Clock::Idle] {
            self.clocks.clear(clock);
        }
        if !self.is_run {
            return;
        }
        if was_stopped || verdict.is_final() {
            self.tasks.clear();
            self.finish_run(now, out);
        } else if self.had_tasks {
            self.clocks.set(Clock::Quiet, now + QUIET);
        } else {
            self.finish_run(now, out);
        }
    }

    /// A run has said everything: its input ends, and it leaves.
    pub(super) fn finish_run(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.tasks.is_empty() {
            // A task in flight will speak again; its own limits bound it.
            self.clocks.set(Clock::Quiet, now + QUIET);
            return;
        }
        // What it had to say is said: only its exit is left, which has a limit of its own.
        for clock in [Clock::Quiet, Clock::Total] {
            self.clocks.clear(clock);
        }
        let mut begun = false;
        self.shared
            .change_silently(|view| begun = view.state.go(State::Draining));
        // On its way out already: another result puts nothing off.
        if !begun || self.is_forced() {
            return;
        }
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
        {
            let mut view = self.shared.view();
            if *view.state != State::InTurn {
                return;
            }
            view.refused = None;
        }
        if let Some(limit) = limit {
            self.clocks.set(Clock::Turn, now + limit);
        }
        let written = self.plan.adapter.prompt(prompt, &uuid);
        self.turn = Some(Turn {
            uuid,
            limit,
            ..Turn::default()
        });
        self.rearm_idle(now);
        out.push(Action::Write(written));
        if self.plan.adapter.runs_to_exit() {
            out.push(Action::CloseStdin);
        }
    }

    /// A limit of time of the turn passed: stop it; if it does not answer, end the agent.
    pub(super) fn time_out(
        &mut self,
        which: &'static str,
        limit: Duration,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(turn) = &mut self.turn else {
            return;
        };
        turn.stopped.get_or_insert(Stop::TimedOut {
            which,
            seconds: limit.as_secs_f64(),
        });
        self.stop(now, out);
    }

    fn stop(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.interrupt(out);
        self.clocks.clear(Clock::Idle);
        self.clocks.clear(Clock::Turn);
        self.clocks
            .set(Clock::Interrupted, now + INTERRUPT_PATIENCE);
    }

    /// Stop the turn in flight; its `result` says `cancelled`.
    pub fn interrupt(&mut self, out: &mut Vec<Action>) {
        if self.shared.view().state.is_in_turn() {
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
        if self.shared.view().state.is_in_turn() {
            self.stop(now, out);
        }
    }
}

fn ended(frame: &[u8], cost_before: Option<f64>, refused: Option<Refused>) -> TurnEnd {
    TurnEnd::Result {
        frame: frame.to_vec(),
        cost_before,
        refused,
    }
}
