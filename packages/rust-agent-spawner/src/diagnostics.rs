//! What the engine has to say to a log, kept until somebody who may hold the interpreter takes it.
//!
//! A small queue of its own and not `tracing`: there are a dozen places and no spans, `tracing`'s
//! subscriber is one per process and may be another library's, and a level that nobody wants
//! costs one atomic load here. Nothing is kept before a level is wanted.

use crate::agent::Shared;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Records that wait at most; over it the oldest are forgotten and counted.
const KEPT: usize = 1024;

/// Python's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    Debug = 10,
    Info = 20,
    Warning = 30,
    Error = 40,
}

/// Above every level: nothing is wanted.
pub const OFF: u8 = u8::MAX;

/// One thing to tell.
#[derive(Debug)]
pub struct Record {
    pub level: Level,
    /// Which logger below `vespera.agent_spawner` it is for.
    pub part: &'static str,
    /// Empty when it is about no agent.
    pub agent_id: String,
    pub words: String,
}

#[derive(Debug)]
struct Waiting {
    records: VecDeque<Record>,
    forgotten: u64,
    /// Counts the readers that were let go.
    closed: u64,
}

static WANTED: AtomicU8 = AtomicU8::new(OFF);
static WAITING: Mutex<Waiting> = Mutex::new(Waiting {
    records: VecDeque::new(),
    forgotten: 0,
    closed: 0,
});
static BELL: Condvar = Condvar::new();

/// Keep records from `level` on; [`OFF`] keeps none.
pub fn want(level: u8) {
    WANTED.store(level, Ordering::Relaxed);
}

/// Tells something about an agent.
pub fn agent(level: Level, shared: &Shared, words: impl FnOnce() -> String) {
    note(level, "agent", &shared.agent_id(), words);
}

/// Tells something; `words` are made only when the level is wanted.
pub fn note(level: Level, part: &'static str, agent_id: &str, words: impl FnOnce() -> String) {
    if (level as u8) < WANTED.load(Ordering::Relaxed) {
        return;
    }
    let record = Record {
        level,
        part,
        agent_id: agent_id.to_owned(),
        words: words(),
    };
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.records.len() == KEPT {
        waiting.records.pop_front();
        waiting.forgotten += 1;
    }
    waiting.records.push_back(record);
    BELL.notify_one();
}

/// Waits for records and takes them all; none once [`close`] was called meanwhile.
pub fn wait() -> Vec<Record> {
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let began = waiting.closed;
    let mut waiting = BELL
        .wait_while(waiting, |waiting| {
            waiting.records.is_empty() && waiting.closed == began
        })
        .unwrap_or_else(PoisonError::into_inner);
    let mut records: Vec<Record> = waiting.records.drain(..).collect();
    let forgotten = std::mem::take(&mut waiting.forgotten);
    if forgotten > 0 {
        records.push(Record {
            level: Level::Warning,
            part: "reactor",
            agent_id: String::new(),
            words: format!("{forgotten} records were forgotten: the log is too slow"),
        });
    }
    records
}

/// Lets whoever waits go, for the interpreter's exit.
pub fn close() {
    want(OFF);
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    waiting.closed += 1;
    BELL.notify_all();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_wants_is_not_even_put_into_words() {
        want(Level::Warning as u8);
        note(Level::Info, "reactor", "", || unreachable!("not wanted"));
        for number in 0..KEPT + 2 {
            note(Level::Warning, "reactor", "a", || number.to_string());
        }
        let records = wait();
        assert_eq!(records.len(), KEPT + 1);
        assert_eq!(records[0].words, "2");
        assert!(records[KEPT].words.starts_with("2 records were forgotten"));
        let waiter = std::thread::spawn(wait);
        while !waiter.is_finished() {
            close();
            std::thread::yield_now();
        }
        assert!(waiter.join().expect("no panic").is_empty());
    }
}
