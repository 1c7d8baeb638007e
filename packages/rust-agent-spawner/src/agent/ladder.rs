//! How a session is ended: the rungs from the end of its input to force, and what is done when not
//! even force is heard.

use super::clocks::Clock;
use super::session::{Action, OWNERLESS, Session};
use super::shared::State;
use super::swept::describe;
use crate::diagnostics::{self, Level};
use std::borrow::Cow;
use std::time::{Duration, Instant};
use vespera_guardian::Order;

/// Between two tries to have a leash report.
pub(super) const PRESS: Duration = Duration::from_secs(1);

/// So often it is tried; then nobody is waited for any longer.
const PRESSES: u32 = 5;

impl Session {
    /// End the agent within `grace`: end of input, then SIGTERM, then force.
    pub fn shutdown(&mut self, grace: Duration, now: Instant, out: &mut Vec<Action>) {
        let begun = self.shared.change(|view| {
            view.state.go(State::Draining);
            !view.state.is_over()
        });
        if !begun || self.swept.is_some() {
            return;
        }
        if grace.is_zero() {
            self.kill("shutdown without grace", out);
            return;
        }
        self.descend(grace, now, out);
    }

    /// The ladder: end of input, SIGTERM after half of `grace`, force after all of it.
    pub(super) fn descend(&mut self, grace: Duration, now: Instant, out: &mut Vec<Action>) {
        if self.is_forced() || self.clocks.is_set(Clock::Kill) {
            return;
        }
        // Whoever asks again may hurry it, never put it off.
        let asked = self.clocks.is_set(Clock::Terminate);
        self.grace = if asked { self.grace.min(grace) } else { grace };
        self.clocks.clear(Clock::Write);
        self.step("shutdown");
        out.push(Action::CloseStdin);
        self.clocks.advance(Clock::Terminate, now + grace / 2);
    }

    /// Force was ordered: nothing that happens later is a rung of the ladder.
    pub(super) fn is_forced(&self) -> bool {
        self.shared.view().rung == Some("kill")
    }

    /// End the agent at once.
    pub fn kill(&mut self, reason: impl Into<Cow<'static, str>>, out: &mut Vec<Action>) {
        let reason = reason.into();
        let first = self.shared.change(|view| {
            let first = !view.state.is_over() && view.rung != Some("kill");
            if first {
                view.reason.get_or_insert_with(|| reason.clone());
                view.rung = Some("kill");
            }
            first
        });
        // The leash goes on until nothing is left: saying it again would only fill its socket.
        if first {
            crate::metrics::count_rung("kill");
            diagnostics::agent(Level::Info, &self.shared, || format!("killed: {reason}"));
            out.push(Action::Order(Order::Kill));
            self.forced = true;
            for clock in [Clock::AfterResult, Clock::Terminate, Clock::Kill] {
                self.clocks.clear(clock);
            }
        }
    }

    /// No report after force: somebody has stopped the leash, or it is held up by a start. It is
    /// continued, and if that does not help, ended: the guardian then owns its tree. If nothing
    /// helps, the host does what it can by itself.
    pub(super) fn press_leash(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.swept.is_some() {
            return;
        }
        self.presses += 1;
        match self.presses {
            1 => out.extend([Action::WakeGuardian, Action::Leash(18)]),
            ..PRESSES => out.push(Action::Leash(9)),
            _ => return self.give_up(now, out),
        }
        self.clocks.set(Clock::Report, now + PRESS);
    }

    fn give_up(&mut self, now: Instant, out: &mut Vec<Action>) {
        let leash = self.shared.view().leash;
        if leash > 1 {
            self.survivors.push(describe(leash));
        } else {
            out.push(Action::GiveUpGuardian);
        }
        self.clocks.clear_all();
        self.clocks.set(Clock::Drain, now + OWNERLESS);
        out.push(Action::Sweep);
    }

    pub(super) fn step(&self, rung: &'static str) {
        crate::metrics::count_rung(rung);
        diagnostics::agent(Level::Debug, &self.shared, || format!("ending: {rung}"));
        self.shared.change_silently(|view| view.rung = Some(rung));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Idle, Plan, Shared, Timeouts};
    use std::sync::Arc;
    use vespera_guardian::Report;

    fn starting(now: Instant) -> (Arc<Shared>, Session) {
        let timeouts = Timeouts {
            startup: Duration::from_secs(2),
            turn: None,
            idle: Idle::default(),
            total: None,
            after_result: Duration::from_secs(1),
            write: Duration::from_secs(2),
        };
        let shared = Arc::new(Shared::new("a-session".into()));
        let session = Session::new(Arc::clone(&shared), timeouts, Plan::default(), now);
        (shared, session)
    }

    /// What is done until the end, when nobody answers; and after how long that is.
    fn unanswered(session: &mut Session, began: Instant) -> (Vec<Action>, Duration) {
        let (mut done, mut now) = (Vec::new(), began);
        while !done.contains(&Action::Finish) {
            now = session.deadline(now).expect("it does not wait for ever");
            session.tick(now, &mut done);
        }
        session.conclude();
        (done, now - began)
    }

    #[test]
    fn a_guardian_that_makes_no_leash_is_waited_for_no_longer_than_the_start() {
        let began = Instant::now();
        let (shared, mut session) = starting(began);
        let (done, took) = unanswered(&mut session, began);
        assert!(done.contains(&Action::GiveUpGuardian));
        assert!(done.contains(&Action::Sweep));
        assert!(took <= Duration::from_secs(2) + PRESSES * PRESS + OWNERLESS);
        assert_eq!(*shared.view().state, State::SpawnFailed);
    }

    #[test]
    fn a_leash_that_a_start_holds_up_is_ended_and_named_if_that_does_not_help() {
        let began = Instant::now();
        let (shared, mut session) = starting(began);
        session.report(Report::Born { leash: 1 << 30 }, began, &mut Vec::new());
        let (done, _) = unanswered(&mut session, began);
        assert!(done.contains(&Action::Leash(libc::SIGKILL)));
        assert!(!done.contains(&Action::GiveUpGuardian), "it did its part");
        assert_eq!(shared.view().survivors.len(), 1);
    }
}
