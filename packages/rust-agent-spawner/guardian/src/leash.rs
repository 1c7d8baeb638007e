//! The leash: one process per agent that owns the agent's whole tree.
//!
//! It is the subreaper of the tree, so every orphan becomes its direct child, and it kills only
//! direct children: whoever has not reaped a child owns its number, so no stranger is ever hit.
//! It ends when the tree is empty, and only then.

use crate::cgroup::Cgroup;
use crate::leader;
use crate::sys::message::{self, Fds, Received};
use crate::sys::{self, Buffer, Watch, children};
use vespera_guardian::{Breach, EndedBy, MAX_INLINE, Order, Report, SPAWN_HEADER, Spawn, Stage};

/// After this many milliseconds of force, what still lives is reported as a survivor.
const FORCE_DEADLINE_MS: u64 = 5000;

/// Pause between two looks at a tree that is being killed.
const FORCE_TICK_MS: i32 = 2;

/// The leader's number once it was reaped: no process has it, and waiting for it fails.
const NOBODY: i32 = i32::MAX;

/// So many survivors are described; more are counted.
const DESCRIBED: usize = 8;

/// A request as it came.
pub struct Packet {
    pub buffer: Buffer,
    pub len: usize,
}

/// Runs the leash for one request; the process never returns to the guardian's code.
pub fn run(packet: Packet, fds: &Fds, host_pidfd: i32, guardian: i32, guardian_pidfd: i32) -> ! {
    sys::become_leash();
    let (Some(socket), Some(stdin), Some(stdout), Some(stderr)) =
        (fds.get(0), fds.get(1), fds.get(2), fds.get(3))
    else {
        sys::exit(7)
    };
    let failed = |errno, stage| -> ! {
        message::refuse(socket, errno, stage);
        sys::exit(0)
    };
    let bytes = &packet.buffer[..packet.len];
    let header = &bytes[..SPAWN_HEADER];
    let spilled = match (fds.get(4), Spawn::strings_len(header)) {
        (Some(memfd), Some(length)) if length > MAX_INLINE => message::read_exact(memfd, length),
        _ => None,
    };
    let strings = spilled.as_deref().unwrap_or(&bytes[SPAWN_HEADER..]);
    let Some(request) = Spawn::decode(header, strings) else {
        failed(libc::EBADMSG, Stage::Request)
    };
    let Some(signals) = sys::watch_signals() else {
        failed(sys::errno(), Stage::Fork)
    };
    let cgroup = match request.cgroup {
        [] => None,
        path => match Cgroup::make(path, &request.limits) {
            Ok(made) => Some(made),
            Err(errno) => failed(errno, Stage::Cgroup),
        },
    };
    let pid = match leader::start(&request, cgroup.as_ref(), [stdin, stdout, stderr]) {
        Ok(pid) => pid,
        Err((errno, stage)) => {
            if let Some(cgroup) = &cgroup {
                cgroup.remove();
            }
            failed(errno, stage)
        }
    };
    // Holding a copy of the agent's pipes would hide its end of file from the host.
    (1..fds.len())
        .filter_map(|place| fds.get(place))
        .for_each(sys::close);
    let leash = sys::pid();
    message::send(socket, &Report::Started { pid, leash }.encode());
    let grace_ms = u64::from(request.grace_ms);
    drop(spilled);
    drop(packet);
    Leash {
        socket,
        host_pidfd,
        guardian,
        guardian_pidfd,
        signals,
        cgroup,
        leader: pid,
        grace_ms,
        phase: Phase::Running,
    }
    .serve()
}

/// Where the tree is on its way to its end; it only moves downwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// The host is gone; SIGTERM was sent and force follows at this time.
    Grace {
        force_at: u64,
    },
}

struct Leash {
    socket: i32,
    host_pidfd: i32,
    guardian: i32,
    guardian_pidfd: i32,
    signals: i32,
    cgroup: Option<Cgroup>,
    leader: i32,
    grace_ms: u64,
    phase: Phase,
}

impl Leash {
    fn serve(mut self) -> ! {
        loop {
            let mut watches = [
                Watch::read(self.signals),
                Watch::read(self.guardian_pidfd),
                Watch::read(self.host_pidfd),
                Watch::read(self.socket),
            ];
            let mut wait = None;
            if let Phase::Grace { force_at } = self.phase {
                // Both lifelines stay readable once the host is dead: watching them would spin.
                watches[2].disable();
                watches[3].disable();
                let left = force_at.saturating_sub(sys::now_ms());
                if left == 0 {
                    self.force(EndedBy::HostDeath);
                }
                wait = Some(i32::try_from(left).unwrap_or(i32::MAX));
            }
            sys::poll(&mut watches, wait);
            let told = watches[0].ready() && sys::take_signals(self.signals, self.guardian);
            if watches[0].ready() && self.reap_adopted() {
                let by = if self.phase == Phase::Running {
                    EndedBy::Itself
                } else {
                    EndedBy::HostDeath
                };
                self.force(by);
            }
            if watches[1].ready() || sys::parent() != self.guardian {
                self.force(EndedBy::GuardianDeath);
            }
            if watches[2].ready() || told {
                self.host_died();
            }
            if watches[3].ready() && self.phase == Phase::Running {
                let mut packet = [0_u8; 16];
                match message::receive(self.socket, &mut packet) {
                    Received::Packet { len, .. } => self.obey(&packet[..len]),
                    Received::Later => {}
                    Received::Gone => self.host_died(),
                }
            }
        }
    }

    fn obey(&mut self, packet: &[u8]) {
        match Order::decode(packet) {
            Some(Order::Signal(number)) => self.signal(i32::from(number)),
            Some(Order::Kill) => self.force(EndedBy::Host),
            None => {}
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
        if self.phase != Phase::Running {
            return;
        }
        if self.grace_ms == 0 {
            self.force(EndedBy::HostDeath);
        }
        self.signal(libc::SIGTERM);
        self.phase = Phase::Grace {
            force_at: sys::now_ms() + self.grace_ms,
        };
    }

    /// Reaps what was adopted and has ended; true when the leader, left unreaped, has ended too.
    fn reap_adopted(&self) -> bool {
        while let Some(pid) = children::peek_ended() {
            if pid == self.leader {
                return true;
            }
            children::reap(pid);
        }
        false
    }

    /// Ends the tree: SIGKILL to direct children until none is left, then says so and exits.
    fn force(&mut self, by: EndedBy) -> ! {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        if !children::has_ended(self.leader) {
            children::kill(-self.leader, libc::SIGKILL);
        }
        let mut killed = Vec::new();
        let deadline = sys::now_ms() + FORCE_DEADLINE_MS;
        let mut swept_reported = false;
        loop {
            self.reap_leader();
            // The children file may skip entries while it changes; ECHILD does not lie.
            if children::childless() {
                break;
            }
            let mut others = 0_u32;
            let mut alive = [0_i32; DESCRIBED];
            children::for_each_child(|pid| {
                children::kill(pid, libc::SIGKILL);
                if pid != self.leader {
                    if let Some(place) = alive.get_mut(others as usize) {
                        *place = pid;
                    }
                    others += 1;
                    if !killed.contains(&pid) {
                        killed.push(pid);
                    }
                    children::reap_if_ended(pid);
                }
            });
            if !swept_reported && sys::now_ms() >= deadline {
                for pid in alive.into_iter().filter(|pid| *pid != 0) {
                    message::send(self.socket, &children::describe(pid).encode());
                }
                self.report_swept(by, &killed, others);
                swept_reported = true;
            }
            let tick = if swept_reported { 100 } else { FORCE_TICK_MS };
            sys::poll(&mut [Watch::read(self.signals)], Some(tick));
            sys::take_signals(self.signals, 0);
        }
        if !swept_reported {
            self.report_swept(by, &killed, 0);
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.remove();
        }
        sys::exit(0)
    }

    /// Tells how the leader ended and reaps it. From here on nothing is sent to its group, so its
    /// number may become another's.
    fn reap_leader(&mut self) {
        if let Some(end) = children::peek_status(self.leader) {
            message::send(self.socket, &end.encode());
            children::reap(self.leader);
            self.leader = NOBODY;
        }
    }

    fn report_swept(&self, by: EndedBy, killed: &[i32], survivors: u32) {
        let report = Report::Swept {
            by,
            killed: u32::try_from(killed.len()).unwrap_or(u32::MAX),
            survivors,
            breach: self
                .cgroup
                .as_ref()
                .map_or(Breach::default(), Cgroup::breach),
            cpu_us: children::reaped_cpu_us(),
        };
        message::send(self.socket, &report.encode());
    }
}
