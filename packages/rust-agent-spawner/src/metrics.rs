//! Counters of the engine, by the contract's metric names. No label per agent.

use crate::agent::claude::Kind;
use crate::agent::queue::Event;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

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

/// Upper bounds of the buckets, in seconds; the Python twin is `_counters.py`.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// How long something took, in buckets.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len()],
    count: Counter,
    nanoseconds: Counter,
}

impl Histogram {
    const fn new() -> Self {
        Self {
            buckets: [const { Counter::new() }; BOUNDS.len()],
            count: Counter::new(),
            nanoseconds: Counter::new(),
        }
    }

    /// One more took this long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            self.buckets[bucket].add(1);
        }
        self.count.add(1);
        self.nanoseconds
            .add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    fn read(&self, name: &str, into: &mut BTreeMap<String, f64>) {
        let mut below = 0.0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.read();
            into.insert(format!("{name}_bucket{{le=\"{bound}\"}}"), below);
        }
        into.insert(format!("{name}_bucket{{le=\"+Inf\"}}"), self.count.read());
        into.insert(format!("{name}_count"), self.count.read());
        into.insert(format!("{name}_sum"), self.nanoseconds.read() / 1e9);
    }
}

/// Agents asked for through the guardian.
pub static SPAWNS: Counter = Counter::new();
/// From the request to the answer to the greeting.
pub static SPAWN_SECONDS: Histogram = Histogram::new();
/// Bytes read from agents.
pub static EVENT_BYTES: Counter = Counter::new();
/// Guardians started after the first.
pub static GUARDIAN_RESTARTS: Counter = Counter::new();
/// Events that `drop_oldest` forgot.
pub static DROPPED: Counter = Counter::new();
/// Bytes of undelivered events that went to disk.
pub static SPILLED: Counter = Counter::new();
/// Processes that were still there after their leader's end.
pub static ORPHANS: Counter = Counter::new();

static EVENTS: [Counter; Kind::ALL.len()] = [const { Counter::new() }; Kind::ALL.len()];
static LAG_COUNT: Counter = Counter::new();
static LAG_NANOSECONDS: Counter = Counter::new();

/// The ladder's rungs: our word, the metric's.
const RUNGS: [(&str, &str); 3] = [("shutdown", "eof"), ("terminate", "term"), ("kill", "kill")];
static KILLS: [Counter; RUNGS.len()] = [const { Counter::new() }; RUNGS.len()];

/// One line of an agent's output.
pub fn count_event(kind: Kind) {
    EVENTS[kind as usize].add(1);
}

/// One step down the ladder that ends an agent.
pub fn count_rung(rung: &str) {
    if let Some(at) = RUNGS.iter().position(|(ours, _)| *ours == rung) {
        KILLS[at].add(1);
    }
}

/// How long a batch of events has waited for its reader; one look at the clock for all.
pub fn count_lag(events: &[Event]) {
    if events.is_empty() {
        return;
    }
    let now = SystemTime::now();
    let lag: Duration = events
        .iter()
        .map(|event| now.duration_since(event.received_at).unwrap_or_default())
        .sum();
    LAG_COUNT.add(events.len() as u64);
    LAG_NANOSECONDS.add(u64::try_from(lag.as_nanos()).unwrap_or(u64::MAX));
}

/// All counters that have counted anything, and the engine's own.
pub fn snapshot() -> BTreeMap<String, f64> {
    let mut all: BTreeMap<String, f64> = [
        ("vespera_guardian_spawn_requests_total", &SPAWNS),
        ("vespera_event_bytes_total", &EVENT_BYTES),
        ("vespera_guardian_restarts_total", &GUARDIAN_RESTARTS),
        ("vespera_dropped_events_total", &DROPPED),
        ("vespera_spilled_bytes_total", &SPILLED),
        ("vespera_orphans_reaped_total", &ORPHANS),
        ("vespera_event_lag_seconds_count", &LAG_COUNT),
    ]
    .into_iter()
    .map(|(name, counter)| (name.to_owned(), counter.read()))
    .collect();
    all.insert(
        "vespera_event_lag_seconds_sum".into(),
        LAG_NANOSECONDS.read() / 1e9,
    );
    SPAWN_SECONDS.read("vespera_spawn_seconds", &mut all);
    let kinds = Kind::ALL
        .into_iter()
        .map(|kind| (kind.name().unwrap_or("other"), EVENTS[kind as usize].read()))
        .map(|(kind, count)| (format!("vespera_events_total{{kind=\"{kind}\"}}"), count));
    let rungs = RUNGS.iter().zip(&KILLS).map(|((_, rung), count)| {
        (
            format!("vespera_kills_total{{rung=\"{rung}\"}}"),
            count.read(),
        )
    });
    all.extend(kinds.chain(rungs).filter(|(_, count)| *count > 0.0));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let histogram = Histogram::new();
        for milliseconds in [1, 7, 700, 60_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let mut told = BTreeMap::new();
        histogram.read("x", &mut told);
        let at = |bound: &str| told[&format!("x_bucket{{le=\"{bound}\"}}")].to_string();
        assert_eq!(
            ["0.005", "0.01", "1", "30", "+Inf"].map(at),
            ["1", "2", "3", "3", "4"]
        );
        assert!((told["x_sum"] - 60.708).abs() < 1e-9);
    }
}
