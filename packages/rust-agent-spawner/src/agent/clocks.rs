//! The deadlines of one agent. At most one of each kind is set; whoever sets it again moves it.

use std::time::{Duration, Instant};

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Clock {
    /// The leash's first word.
    Born,
    /// The answer to `initialize`.
    Startup,
    /// The `result` of the turn in flight.
    Turn,
    /// The answer to an interrupt.
    Interrupted,
    /// The next frame of the turn in flight.
    Idle,
    /// The next byte that it takes of its input, while some waits.
    Write,
    /// The end of the whole run.
    Total,
    /// Silence after which a run with background tasks is over.
    Quiet,
    /// The exit after the last result.
    AfterResult,
    /// The exit after the output's end.
    Mute,
    /// SIGTERM, on the way down the ladder.
    Terminate,
    /// Force, at the end of the ladder.
    Kill,
    /// The leash's report after force; it may be stopped.
    Report,
    /// The last lines, once the tree is gone.
    Drain,
}

const ALL: [Clock; 14] = [
    Clock::Born,
    Clock::Startup,
    Clock::Turn,
    Clock::Interrupted,
    Clock::Idle,
    Clock::Write,
    Clock::Total,
    Clock::Quiet,
    Clock::AfterResult,
    Clock::Mute,
    Clock::Terminate,
    Clock::Kill,
    Clock::Report,
    Clock::Drain,
];

/// All deadlines of one agent.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    at: [Option<Instant>; ALL.len()],
    /// What is left of those that are held.
    left: [Option<Duration>; ALL.len()],
}

impl Clocks {
    /// Sets or moves a deadline.
    pub(super) fn set(&mut self, clock: Clock, at: Instant) {
        self.at[clock as usize] = Some(at);
        self.left[clock as usize] = None;
    }

    /// Sets a deadline, or moves it to an earlier time; never to a later one.
    pub(super) fn advance(&mut self, clock: Clock, at: Instant) {
        let place = &mut self.at[clock as usize];
        *place = Some(place.map_or(at, |set| set.min(at)));
    }

    /// Takes a deadline back.
    pub(super) fn clear(&mut self, clock: Clock) {
        self.at[clock as usize] = None;
        self.left[clock as usize] = None;
    }

    /// From now on no time counts for a deadline that is set.
    pub(super) fn hold(&mut self, clock: Clock, now: Instant) {
        if let Some(at) = self.at[clock as usize].take() {
            self.left[clock as usize] = Some(at.saturating_duration_since(now));
        }
    }

    /// What was left of a deadline that is held runs on.
    pub(super) fn go_on(&mut self, clock: Clock, now: Instant) {
        if let Some(left) = self.left[clock as usize].take() {
            self.at[clock as usize] = Some(now + left);
        }
    }

    /// True while a deadline is set.
    pub(super) fn is_set(&self, clock: Clock) -> bool {
        self.at[clock as usize].is_some()
    }

    /// Takes all deadlines back.
    pub(super) fn clear_all(&mut self) {
        *self = Self::default();
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.at.iter().flatten().min().copied()
    }

    /// Takes one deadline that has passed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Clock> {
        let due = ALL
            .into_iter()
            .filter(|clock| self.at[*clock as usize].is_some_and(|at| at <= now))
            .min_by_key(|clock| self.at[*clock as usize])?;
        self.clear(due);
        Some(due)
    }

    /// Time during which nobody could act (suspend, SIGSTOP) does not count.
    pub(super) fn shift(&mut self, by: Duration) {
        for at in self.at.iter_mut().flatten() {
            *at += by;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_their_order_and_once() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut clocks = Clocks::default();
        clocks.set(Clock::Total, now + second);
        clocks.set(Clock::Startup, now + 2 * second);
        assert_eq!(clocks.next(), Some(now + second));
        assert_eq!(clocks.take_due(now), None);
        assert_eq!(clocks.take_due(now + 3 * second), Some(Clock::Total));
        assert_eq!(clocks.take_due(now + 3 * second), Some(Clock::Startup));
        assert_eq!(clocks.take_due(now + 3 * second), None);
    }

    #[test]
    fn a_gap_moves_every_deadline() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let mut clocks = Clocks::default();
        clocks.set(Clock::Turn, now + minute);
        clocks.shift(minute);
        assert_eq!(clocks.take_due(now + minute), None);
        assert_eq!(clocks.take_due(now + 2 * minute), Some(Clock::Turn));
    }

    #[test]
    fn a_deadline_that_is_held_goes_on_with_what_was_left() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let mut clocks = Clocks::default();
        clocks.set(Clock::Turn, now + 3 * minute);
        clocks.hold(Clock::Turn, now + minute);
        clocks.hold(Clock::Turn, now + 2 * minute);
        assert_eq!(clocks.take_due(now + 9 * minute), None);
        clocks.go_on(Clock::Turn, now + 9 * minute);
        clocks.go_on(Clock::Turn, now + 10 * minute);
        assert_eq!(clocks.next(), Some(now + 11 * minute));
        // Nobody wants it any more.
        clocks.hold(Clock::Turn, now + 10 * minute);
        clocks.clear(Clock::Turn);
        clocks.go_on(Clock::Turn, now + 10 * minute);
        assert_eq!(clocks.next(), None);
    }
}
