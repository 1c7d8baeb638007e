//! Runs of one fleet that wait for a place, ready to start: the end of another run gives them its
//! place and its leash, without a turn of the event loop.
//!
//! Beside a thread that computes, the loop comes 5 ms late for every end; places that are free
//! meanwhile do nothing. The loop still decides: it says who stands in line, and for how long
//! what it saw of the machine is good. The lock is the decision: whoever takes a run out of the
//! line starts it, or drops it.

use crate::agent::process::Guardian;
use crate::bridge::Bridge;
use crate::reactor::Newcomer;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The runs of one fleet that stand by.
#[derive(Debug)]
pub struct Standby {
    most_starting: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Newcomer>,
    /// The event loop that would start them otherwise.
    bridge: Weak<Bridge>,
    /// Agents of the fleet that were asked for and are not ready.
    starting: usize,
    good_until: Option<Instant>,
    /// Words about the service that the loop has not heard yet: they may stop the fleet.
    unheard: usize,
    /// With whose rights the host was seen, its umask, and until when that is good.
    seen: Option<(Weak<Guardian>, u32, Instant)>,
}

/// So long the host may have another umask and other rights than its agents get, as if they had
/// started that much earlier. Its user and group are compared each time.
const SEEN_FOR: Duration = Duration::from_millis(20);

/// What was prepared earlier is prepared again: its environment and its directories may be others.
const FRESH_FOR: Duration = Duration::from_secs(10);

impl Inner {
    /// That of the host, while its rights are those of the guardian.
    fn umask(&mut self, guardian: &Arc<Guardian>) -> Option<u32> {
        let now = Instant::now();
        if let Some((by, umask, until)) = &self.seen
            && by.ptr_eq(&Arc::downgrade(guardian))
            && now < *until
        {
            return Some(*umask);
        }
        let umask = guardian.umask_of(self.waiting.front()?.asker.as_deref()?)?;
        self.seen = Some((Arc::downgrade(guardian), umask, now + SEEN_FOR));
        Some(umask)
    }
}

impl Standby {
    /// For a fleet of which so many may be starting at once.
    pub fn new(most_starting: usize) -> Self {
        Self {
            most_starting,
            inner: Mutex::default(),
        }
    }

    /// An agent of the fleet was asked for, by that event loop.
    pub fn starts(&self, bridge: Option<&Arc<Bridge>>) {
        let mut inner = self.inner();
        inner.starting += 1;
        if let Some(bridge) = bridge
            && !inner.bridge.ptr_eq(&Arc::downgrade(bridge))
        {
            inner.bridge = Arc::downgrade(bridge);
        }
    }

    /// Whether it is of use: the event loop comes late for what ends. One that does not starts the
    /// next as soon, and with less work.
    pub fn is_wanted(&self) -> bool {
        let bridge = self.inner().bridge.upgrade();
        bridge.is_some_and(|bridge| bridge.was_late())
    }

    /// Its start has an end.
    pub fn started(&self) {
        let mut inner = self.inner();
        inner.starting = inner.starting.saturating_sub(1);
    }

    /// How many are starting.
    pub fn starting(&self) -> usize {
        self.inner().starting
    }

    /// Joins the line at its end.
    pub fn join(&self, newcomer: Newcomer) {
        self.inner().waiting.push_back(newcomer);
    }

    /// The fleet has been looked at: until then the next may start.
    pub fn renew(&self, good_for: Duration) {
        self.inner().good_until = Some(Instant::now() + good_for);
    }

    /// Nobody starts until the loop has heard something.
    pub fn hold(&self) {
        self.inner().unheard += 1;
    }

    /// The loop has heard, or never will, so many of the words that held the line.
    pub fn heard(&self, count: usize) {
        let mut inner = self.inner();
        inner.unheard = inner.unheard.saturating_sub(count);
    }

    /// Whether a run still stands in line.
    pub fn holds(&self, id: u64) -> bool {
        self.inner().waiting.iter().any(|one| one.id == id)
    }

    /// Takes a run out of the line that has not begun; it never will.
    pub fn withdraw(&self, id: u64) -> Option<Newcomer> {
        let mut inner = self.inner();
        let at = inner.waiting.iter().position(|one| one.id == id)?;
        inner.waiting.remove(at)
    }

    /// The next one, if it may have the leash of a run that has ended: a leash of `guardian` that
    /// has heard of an agent that may outlive its host by `grace_ms`.
    pub fn next(&self, guardian: &Arc<Guardian>, grace_ms: u32) -> Option<Newcomer> {
        let mut inner = self.inner();
        let now = Instant::now();
        let is_good = inner.good_until.is_some_and(|until| now < until);
        if !is_good || inner.unheard > 0 || inner.starting >= self.most_starting {
            return None;
        }
        let umask = inner.umask(guardian)?;
        let first = inner.waiting.front()?;
        let is_fresh = now.saturating_duration_since(first.prepared) < FRESH_FOR;
        if !is_fresh || !first.may_follow(guardian, grace_ms, umask) {
            return None;
        }
        inner.starting += 1;
        inner.waiting.pop_front()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
