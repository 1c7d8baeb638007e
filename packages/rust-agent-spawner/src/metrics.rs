//! Counters of the engine, by the contract's metric names. No label per agent.

use crate::agent::claude::Kind;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Grows by `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    #[allow(clippy::cast_precision_loss, reason = "Prometheus values are floats")]
    fn read(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

/// Agents asked for through the guardian.
pub static SPAWNS: Counter = Counter::new();
/// Bytes read from agents.
pub static EVENT_BYTES: Counter = Counter::new();
/// Guardians started after the first.
pub static GUARDIAN_RESTARTS: Counter = Counter::new();

static EVENTS: [Counter; Kind::ALL.len()] = [const { Counter::new() }; Kind::ALL.len()];

/// One line of an agent's output.
pub fn count_event(kind: Kind) {
    EVENTS[kind as usize].add(1);
}

/// All counters that have counted anything, and the engine's own.
pub fn snapshot() -> BTreeMap<String, f64> {
    let events = Kind::ALL
        .into_iter()
        .map(|kind| (kind.name().unwrap_or("other"), EVENTS[kind as usize].read()))
        .filter(|(_, count)| *count > 0.0)
        .map(|(name, count)| (format!("vespera_events_total{{kind=\"{name}\"}}"), count));
    [
        ("vespera_guardian_spawn_requests_total", &SPAWNS),
        ("vespera_event_bytes_total", &EVENT_BYTES),
        ("vespera_guardian_restarts_total", &GUARDIAN_RESTARTS),
    ]
    .into_iter()
    .map(|(name, counter)| (name.to_owned(), counter.read()))
    .chain(events)
    .collect()
}
