//! The leash: one process that owns the whole tree of one agent after the other.
//!
//! It is the subreaper of the tree, so every orphan becomes its direct child, and it kills only
//! direct children: whoever has not reaped a child owns its number, so no stranger is ever hit.
//! It serves nobody else before the tree is empty; then its host may send it the next request,
//! which saves a fork. It ends with its host and its guardian, and when the socket is closed.

use crate::cgroup::Cgroup;
use crate::leader;
use crate::sys::birth::OomScore;
use crate::sys::message::{self, Packet, Received};
use crate::sys::{self, Watch, Watched, children};
use vespera_guardian::{Breach, EndedBy, Order, Report, SPAWN_HEADER, Spawn, Stage};

/// After this many milliseconds of force, what still lives is reported as a survivor.
const FORCE_DEADLINE_MS: u64 = 5000;

/// Pause between two looks at a tree that is being killed.
const FORCE_TICK_MS: i32 = 2;

/// The leader's number once it was reaped: no process has it, and waiting for it fails.
const NOBODY: i32 = i32::MAX;

/// So many survivors are described; more are counted.
const DESCRIBED: usize = 8;

/// Whom a leash serves.
pub struct Owners {
    pub socket: i32,
    pub host: i32,
    pub host_pidfd: i32,
    pub guardian: i32,
    pub guardian_pidfd: i32,
}

/// Runs the leash from its first request on; the process never returns to the guardian's code.
pub fn run(packet: Packet, owners: Owners) -> ! {
    sys::become_leash(owners.socket);
    let watched = sys::watch_signals().and_then(|signals| {
        let (guardian, host) = (owners.guardian_pidfd, owners.host_pidfd);
        Some((
            signals,
            Watched::all([signals, guardian, host, owners.socket])?,
        ))
    });
    let Some((signals, watched)) = watched else {
        message::refuse(owners.socket, sys::errno(), Stage::Fork);
        sys::exit(0)
    };
    let mut leash = Leash {
        pid: sys::pid(),
        owners,
        signals,
        watched,
        cgroup: None,
        leader: NOBODY,
        grace_ms: 0,
        cpu_before_us: 0,
        oom_score: OomScore::open(),
        phase: Phase::Idle,
    };
    leash.tell(Report::Born { leash: leash.pid });
    leash.take(packet);
    leash.serve()
}

/// Where the tree is on its way to its end; only an empty one leads back to the beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is none.
    Idle,
    Running,
    /// The host is gone; SIGTERM was sent and force follows at this time.
    Grace {
        force_at: u64,
    },
}

struct Leash {
    pid: i32,
    owners: Owners,
    signals: i32,
    /// The signals, the guardian, the host and the socket to it, in this order.
    watched: Watched,
    cgroup: Option<Cgroup>,
    leader: i32,
    grace_ms: u64,
    /// What all children of this process had used before its agent.
    cpu_before_us: u64,
    oom_score: OomScore,
    phase: Phase,
}

impl Leash {
    /// Starts the agent; its stdin, stdout, stderr and perhaps a memfd came with the request.
    fn start(&mut self, packet: &Packet) -> Result<(), (i32, Stage)> {
        let damaged = (libc::EBADMSG, Stage::Request);
        let [Some(input), Some(output), Some(errors), memfd] =
            [0, 1, 2, 3].map(|n| packet.fds.get(n))
        else {
            return Err(damaged);
        };
        let bytes = packet.bytes();
        let (header, inline) = bytes.split_at_checked(SPAWN_HEADER).ok_or(damaged)?;
        let spilled = message::spilled(header, memfd);
        let request = Spawn::decode(header, spilled.as_deref().unwrap_or(inline)).ok_or(damaged)?;
        if !request.cgroup.is_empty() {
            let made = Cgroup::make(request.cgroup, &request.limits);
            self.cgroup = Some(made.map_err(|errno| (errno, Stage::Cgroup))?);
        }
        self.grace_ms = u64::from(request.grace_ms);
        let (cgroup, score) = (self.cgroup.as_ref(), &self.oom_score);
        self.leader = leader::start(&request, cgroup, [input, output, errors], score, self.pid)?;
        self.phase = Phase::Running;
        Ok(())
    }

    /// A leash whose agent cannot be started says why and ends.
    fn take(&mut self, packet: Packet) {
        let started = self.start(&packet);
        // Holding a copy of the agent's pipes would hide its end of file from the host.
        drop(packet);
        if let Err((errno, stage)) = started {
            self.cgroup.as_ref().inspect(|cgroup| cgroup.remove());
            self.tell(Report::Failed { errno, stage });
            sys::exit(0)
        }
        let (pid, leash) = (self.leader, self.pid);
        self.tell(Report::Started { pid, leash });
    }

    fn tell(&self, report: Report) -> bool {
        message::tell(self.owners.socket, [report])
    }

    fn serve(mut self) -> ! {
        loop {
            let mut wait = None;
            if let Phase::Grace { force_at } = self.phase {
                let left = force_at.saturating_sub(sys::now_ms());
                if left == 0 {
                    self.force(EndedBy::HostDeath, None);
                }
                wait = Some(i32::try_from(left).unwrap_or(i32::MAX));
            }
            let [signalled, guardian_died, host_died, heard] = self.watched.wait(wait);
            let told = signalled && sys::take_signals(self.signals, self.owners.guardian);
            if signalled
                && self.phase != Phase::Idle
                && let Some(end) = children::reap_all_but(self.leader)
            {
                let by = match self.phase {
                    Phase::Grace { .. } => EndedBy::HostDeath,
                    Phase::Running | Phase::Idle => EndedBy::Itself,
                };
                self.force(by, Some(end));
            }
            if guardian_died || sys::parent() != self.owners.guardian {
                self.force(EndedBy::GuardianDeath, None);
            }
            if host_died || told {
                self.host_died();
            }
            if heard {
                match message::receive(self.owners.socket) {
                    Received::Packet(packet) => self.hear(packet),
                    Received::Later => {}
                    Received::Gone => self.host_died(),
                }
            }
        }
    }

    fn hear(&mut self, packet: Packet) {
        match (self.phase, Order::decode(packet.bytes())) {
            (Phase::Running, Some(Order::Signal(number))) => self.signal(i32::from(number)),
            (Phase::Running, Some(Order::Kill)) => self.force(EndedBy::Host, None),
            (Phase::Idle, None) if packet.is_from(self.owners.host) => self.take(packet),
            // Not the host with our rights: what it might think of the answer is not the next's.
            (Phase::Idle, None) => sys::exit(0),
            // Also an order for an agent that has just ended.
            _ => {}
        }
    }

    /// The leader is not reaped before the end, so its group's number cannot be another's.
    fn signal(&self, number: i32) {
        children::kill(-self.leader, number);
        if number == libc::SIGTERM {
            // A stopped process would keep the signal for ever.
            children::kill(-self.leader, libc::SIGCONT);
        }
    }

    fn host_died(&mut self) {
        match self.phase {
            Phase::Grace { .. } => return,
            Phase::Running if self.grace_ms > 0 => {}
            Phase::Idle | Phase::Running => self.force(EndedBy::HostDeath, None),
        }
        self.signal(libc::SIGTERM);
        // Both lifelines stay readable once the host is dead: watching them would spin.
        self.watched.forget(self.owners.host_pidfd);
        self.watched.forget(self.owners.socket);
        self.phase = Phase::Grace {
            force_at: sys::now_ms() + self.grace_ms,
        };
    }

    /// Ends the tree: SIGKILL to direct children until none is left, and says so. `end` is how the
    /// leader ended, if that is known. Returns only for an owner who may have another agent.
    fn force(&mut self, by: EndedBy, mut end: Option<Report>) {
        if self.phase == Phase::Idle {
            sys::exit(0)
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        // Whoever is in its group is a child of ours by then, and is found otherwise.
        if !children::are_seen() || (end.is_none() && !children::has_ended(self.leader)) {
            children::kill(-self.leader, libc::SIGKILL);
        }
        let (mut killed, mut swept_reported) = (Vec::new(), false);
        let deadline = sys::now_ms() + FORCE_DEADLINE_MS;
        loop {
            if self.leader != NOBODY {
                end = end.or_else(|| children::peek_status(self.leader));
                if end.is_some() {
                    children::reap(self.leader);
                    // Nothing is sent to its group any more: its number may become another's.
                    self.leader = NOBODY;
                }
            }
            if !children::are_seen() {
                children::reap_all_but(self.leader);
            }
            // The children file may skip entries while it changes; ECHILD does not lie.
            if children::childless() {
                break;
            }
            // Said at once, and in one packet with the rest where there is nothing to wait for.
            if let Some(end) = end.take() {
                self.tell(end);
            }
            sys::hurry();
            children::for_each_child(|pid| {
                children::kill(pid, libc::SIGKILL);
                if pid != self.leader {
                    if !killed.contains(&pid) {
                        killed.push(pid);
                    }
                    children::reap_if_ended(pid);
                }
            });
            if !swept_reported && sys::now_ms() >= deadline {
                let alive = children::descendants();
                for pid in alive.iter().take(DESCRIBED) {
                    self.tell(children::describe(*pid));
                }
                killed.retain(|pid| !alive.contains(pid));
                self.report_swept(None, by, [killed.len(), alive.len().max(1)]);
                swept_reported = true;
            }
            let tick = if swept_reported { 100 } else { FORCE_TICK_MS };
            sys::poll(&mut [Watch::read(self.signals)], Some(tick));
            sys::take_signals(self.signals, 0);
        }
        let heard = !swept_reported && self.report_swept(end, by, [killed.len(), 0]);
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove();
        }
        // A host that was told of survivors, or is gone, wants nothing more; one that could not be
        // told hears of it by our end.
        if !heard || !matches!(by, EndedBy::Itself | EndedBy::Host) {
            sys::exit(0)
        }
        sys::give_way();
        self.phase = Phase::Idle;
    }

    /// How many were killed and survive, in one packet with the leader's `end` if that is not told.
    fn report_swept(
        &mut self,
        end: Option<Report>,
        by: EndedBy,
        [killed, left]: [usize; 2],
    ) -> bool {
        let cgroup = self.cgroup.as_ref();
        let breach = cgroup.map_or(Breach::default(), Cgroup::breach);
        let before_us = std::mem::replace(&mut self.cpu_before_us, children::reaped_cpu_us());
        let cpu_us = self.cpu_before_us - before_us;
        let swept = Report::swept(by, killed, left, breach, cpu_us);
        match end {
            Some(end) => message::tell(self.owners.socket, [end, swept]),
            None => self.tell(swept),
        }
    }
}
