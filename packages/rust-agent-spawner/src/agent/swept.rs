//! What is left of a tree at its end, and what the kernel did to it.

use super::shared::Cause;
use crate::oom;
use std::time::Duration;
use vespera_guardian::{Breach, EndedBy};

/// What was left of a tree, as its leash or the host's own sweep saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Swept {
    pub(super) by: EndedBy,
    pub(super) killed: u32,
    pub(super) survivors: u32,
    pub(super) breach: Breach,
    /// CPU time of the whole tree; unknown when its leash did not live to tell.
    pub(super) cpu: Option<Duration>,
}

impl Swept {
    pub(super) fn ownerless(killed: u32, survivors: u32) -> Self {
        Self {
            by: EndedBy::GuardianDeath,
            killed,
            survivors,
            breach: Breach::default(),
            cpu: None,
        }
    }
}

/// What the kernel did to an agent that nobody else ended.
pub(super) fn cause(signal: i32, swept: Swept, oom_kills: u64) -> Option<Cause> {
    match signal {
        _ if swept.breach.memory => Some(Cause::MemoryLimit),
        libc::SIGXCPU => Some(Cause::CpuLimit),
        libc::SIGXFSZ => Some(Cause::FileSizeLimit),
        libc::SIGKILL if oom::kills() > oom_kills => Some(Cause::OutOfMemory),
        _ if swept.breach.processes => Some(Cause::ProcessLimit),
        _ => None,
    }
}

/// What is known of a process that does not end.
pub(crate) fn describe(pid: i32) -> String {
    let of = |file| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    survivor(pid, of("comm").trim_ascii(), of("wchan").trim_ascii())
}

pub(super) fn survivor(pid: i32, name: &[u8], channel: &[u8]) -> String {
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .trim_end_matches('\0')
            .to_owned()
    };
    match text(channel).as_str() {
        "" | "0" => format!("{pid} ({})", text(name)),
        channel => format!("{pid} ({}, in {channel})", text(name)),
    }
}
