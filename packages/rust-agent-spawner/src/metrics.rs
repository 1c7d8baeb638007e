//! Counters of the engine, by the contract's metric names. No label per agent.

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

/// All counters.
pub fn snapshot() -> BTreeMap<&'static str, f64> {
    BTreeMap::from([
        ("vespera_guardian_spawn_requests_total", SPAWNS.read()),
        ("vespera_event_bytes_total", EVENT_BYTES.read()),
        ("vespera_guardian_restarts_total", GUARDIAN_RESTARTS.read()),
    ])
}
