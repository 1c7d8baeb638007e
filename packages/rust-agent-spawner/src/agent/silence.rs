//! How long an agent may say nothing: by what its CLI waits for.

use super::claude;
use super::clocks::Clock;
use super::session::Session;
use std::time::{Duration, Instant};

/// How long a turn may be silent while the CLI waits for the model, a tool, …
#[derive(Clone, Copy, Debug, Default)]
pub struct Idle {
    pub model: Option<Duration>,
    pub tool: Option<Duration>,
    pub mcp: Option<Duration>,
    pub subagent: Option<Duration>,
    pub permission: Option<Duration>,
}

impl Idle {
    /// True when silence is never too long.
    pub const fn is_none(&self) -> bool {
        self.model.is_none()
            && self.tool.is_none()
            && self.mcp.is_none()
            && self.subagent.is_none()
            && self.permission.is_none()
    }
}

impl Session {
    /// Follows the tools in flight, where silence has a limit that depends on them.
    pub(super) fn note_tools(&mut self, line: &[u8]) {
        let idle = &self.timeouts.idle;
        if let Some(turn) = &mut self.turn
            && (idle.model.or(idle.tool).or(idle.mcp).or(idle.subagent)).is_some()
        {
            claude::follow_tools(line, &mut turn.tools);
        }
    }

    /// The limit on silence in what the agent waits for now, and its name.
    pub(super) fn idle(&self) -> (&'static str, Option<Duration>) {
        let idle = &self.timeouts.idle;
        if self
            .turn
            .as_ref()
            .is_some_and(|turn| !turn.asking.is_empty())
        {
            return ("idle.permission", idle.permission);
        }
        let tools = self.turn.iter().flat_map(|turn| turn.tools.values());
        let limits = tools.map(|name| {
            if name.starts_with("mcp__") {
                ("idle.mcp", idle.mcp)
            } else if name == "Task" || name == "Agent" {
                ("idle.subagent", idle.subagent)
            } else {
                ("idle.tool", idle.tool)
            }
        });
        // What may be silent for longest explains the silence of all.
        limits
            .max_by_key(|(which, limit)| (limit.unwrap_or(Duration::MAX), *which))
            .unwrap_or(("idle.model", idle.model))
    }

    /// Something was said: from now on silence counts.
    pub(super) fn rearm_idle(&mut self, now: Instant) {
        if self.timeouts.idle.is_none() {
            return;
        }
        let runs = self
            .turn
            .as_ref()
            .is_some_and(|turn| turn.stopped.is_none());
        match self.idle().1 {
            Some(limit) if runs && !self.unheard => self.clocks.set(Clock::Idle, now + limit),
            _ => self.clocks.clear(Clock::Idle),
        }
    }

    /// The host stops or goes on to read: what it does not hear is no silence of the agent.
    pub fn hear(&mut self, hears: bool, now: Instant) {
        self.unheard = !hears;
        self.rearm_idle(now);
    }
}
