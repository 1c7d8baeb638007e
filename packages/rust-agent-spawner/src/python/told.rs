//! What Python is told of an agent: tuples, as making a dict for each start takes longer.

use super::events::frame_of;
use crate::agent::{Cause, Ending, View};
use crate::handle::Turn;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vespera_guardian::EndedBy;

/// Code, signal, who ended it, why, what the kernel ended it for, what survives.
pub(super) type Ended = (
    Option<i32>,
    Option<i32>,
    Option<&'static str>,
    Option<String>,
    Option<&'static str>,
    Vec<String>,
);

pub(super) fn ended(ending: Ending, view: &View) -> Ended {
    let by = match ending.by {
        EndedBy::GuardianDeath => Some("guardian"),
        EndedBy::Itself | EndedBy::Host | EndedBy::HostDeath => view.rung,
    };
    let signalled = ending.signal != 0;
    (
        (!signalled && ending.code >= 0).then_some(ending.code),
        signalled.then_some(ending.signal),
        by,
        view.reason.as_deref().map(str::to_owned),
        ending.cause.map(Cause::name),
        view.survivors.clone(),
    )
}

/// The session's id, the process's, the state, turns, dollars of this process, the last turn's
/// outcome, dollars of the session in all its processes.
pub(super) type Info = (
    String,
    i32,
    &'static str,
    u64,
    Option<f64>,
    Option<&'static str>,
    Option<f64>,
);

/// The state, the session's id, turns, dollars of this process and of the session, seconds to the
/// first output, the tail of stderr, processes that were swept, CPU seconds of the whole tree once
/// it is over.
pub(super) type Summary = (
    &'static str,
    String,
    u64,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    String,
    u32,
    f64,
);

/// A turn: its `result` frame as a dict, or its line where that is not made here; the session's cost
/// in dollars before it, and outcome and words when we stopped it for what the service answered.
pub(super) type Told<'py> = (
    Bound<'py, PyAny>,
    Option<f64>,
    Option<(&'static str, String)>,
);

pub(super) fn told(py: Python<'_>, turn: Turn) -> Told<'_> {
    let refused = turn.refused.map(|refused| (refused.outcome, refused.words));
    let line = || PyBytes::new(py, &turn.frame).into_any();
    let frame = frame_of(py, &turn.frame).unwrap_or_else(line);
    (frame, turn.cost_before, refused)
}

/// Resident bytes, CPU seconds, processes and open files.
pub(super) type Used = (u64, f64, u64, u64);

pub(super) fn cpu_seconds(ending: Ending) -> f64 {
    ending.cpu.unwrap_or_default().as_secs_f64()
}

pub(super) fn tuple_of(usage: crate::usage::Usage) -> Used {
    (
        usage.rss,
        usage.cpu_seconds,
        usage.processes,
        usage.open_files,
    )
}
