//! The guardian: starts agents for one host and outlives it just long enough to end them all.
//!
//! One thread and three jobs: fork a leash per request, kill what reaches it by adoption, and, once
//! the host is gone, see that nothing is left. It never touches an agent's output. A leash
//! (`leash.rs`) owns one agent's tree after the other.
#![cfg(target_os = "linux")]
// The guardian is a program of its own beside a library: its modules are nobody's interface.
#![allow(unreachable_pub)]

mod cgroup;
mod leader;
mod leash;
mod sys;

use sys::message::{self, Packet, Received};
use sys::{Watch, children};
use vespera_guardian::{HOST_FD, Hello, Spawn, Stage};

/// How much longer than the longest grace the guardian leaves its leashes before it kills them.
const LEASH_MARGIN_MS: u64 = 1000;

/// Between two looks for what was adopted, while there is reason to expect it.
const ADOPTION_TICK_MS: i32 = 5;

fn main() {
    // The host names itself: comparing it with the parent closes the window in which it died
    // before we were watching. 1 is a legal host, in a container.
    let Some(Ok(host)) = std::env::args().nth(1).map(|text| text.parse::<i32>()) else {
        sys::exit(2)
    };
    sys::close_from(HOST_FD + 1);
    sys::become_guardian();
    // Where the kernel has no pidfd the parent's signal is the second lifeline.
    let host_pidfd = sys::pidfd_open(host).unwrap_or(-1);
    if sys::parent() != host {
        sys::exit(4);
    }
    let own_pidfd = sys::pidfd_open(sys::pid()).unwrap_or(-1);
    let Some(signals) = sys::watch_signals() else {
        sys::exit(6)
    };
    let hello = Hello::new(sys::pid(), children::look_for_own_proc());
    message::send(HOST_FD, &hello.encode());
    Guardian {
        host,
        host_pidfd,
        own_pidfd,
        signals,
        leashes: Vec::new(),
        longest_grace_ms: 0,
        adopting: false,
    }
    .serve();
}

struct Guardian {
    host: i32,
    host_pidfd: i32,
    own_pidfd: i32,
    signals: i32,
    leashes: Vec<i32>,
    longest_grace_ms: u32,
    /// A leash left a tree to us and it is not known to be gone.
    adopting: bool,
}

impl Guardian {
    fn serve(mut self) -> ! {
        loop {
            let mut watches = [
                Watch::read(HOST_FD),
                Watch::read(self.host_pidfd),
                Watch::read(self.signals),
            ];
            sys::poll(&mut watches, self.adopting.then_some(ADOPTION_TICK_MS));
            if watches[2].ready() {
                sys::take_signals(self.signals, 0);
            }
            if watches[2].ready() || self.adopting {
                self.reap();
            }
            if watches[1].ready() || sys::parent() != self.host {
                self.outlive_host();
            }
            if watches[0].ready() {
                match message::receive(HOST_FD) {
                    Received::Packet(packet) => self.start(packet),
                    Received::Later => {}
                    // Every way a socket can end means the host is gone: a host that dies with
                    // unread data gives ECONNRESET, not end of file.
                    Received::Gone => self.outlive_host(),
                }
            }
        }
    }

    fn start(&mut self, mut packet: Packet) {
        let Some(socket) = packet.fds.take_first() else {
            return;
        };
        let guardian = sys::pid();
        let forked = if packet.is_from(self.host) {
            // Whatever becomes of the request: the host counts on what it has said.
            let grace = Spawn::grace_ms_of(packet.bytes());
            self.longest_grace_ms = self.longest_grace_ms.max(grace);
            sys::fork().map_err(|errno| (errno, Stage::Fork))
        } else {
            Err((libc::EPERM, Stage::Credentials))
        };
        match forked {
            Ok(0) => {
                sys::close(HOST_FD);
                sys::close(self.signals);
                let owners = leash::Owners {
                    socket,
                    host: self.host,
                    host_pidfd: self.host_pidfd,
                    guardian,
                    guardian_pidfd: self.own_pidfd,
                };
                leash::run(packet, owners)
            }
            Ok(pid) => self.leashes.push(pid),
            Err((errno, stage)) => message::refuse(socket, errno, stage),
        }
        sys::close(socket);
    }

    /// Reaps; a leash that did not end by itself leaves its tree to us, and we end that tree.
    fn reap(&mut self) {
        while let Some(ended) = children::reap_any() {
            match self.leashes.iter().position(|pid| *pid == ended.pid) {
                Some(place) => {
                    self.leashes.swap_remove(place);
                    self.adopting |= !ended.clean;
                }
                // What was adopted leaves its own children to us.
                None => self.adopting = true,
            }
        }
        if self.adopting {
            self.adopting = self.kill_adopted();
        }
    }

    /// A child of the guardian that is not a leash is a leak by construction; true if there was
    /// one.
    fn kill_adopted(&self) -> bool {
        let mut found = false;
        children::for_each_child(|pid| {
            if !self.leashes.contains(&pid) {
                found = true;
                children::kill(pid, libc::SIGKILL);
            }
        });
        found
    }

    fn signal_leashes(&self, number: i32) {
        for leash in &self.leashes {
            children::kill(*leash, number);
        }
    }

    fn outlive_host(&mut self) -> ! {
        // Each has its own lifelines; this one needs neither pidfd nor socket.
        self.signal_leashes(sys::PARENT_SIGNAL);
        let deadline = sys::now_ms() + u64::from(self.longest_grace_ms) + LEASH_MARGIN_MS;
        loop {
            self.reap();
            if children::childless() {
                sys::exit(0);
            }
            if sys::now_ms() >= deadline {
                self.signal_leashes(libc::SIGKILL);
                children::for_each_child(|pid| children::kill(pid, libc::SIGKILL));
            } else {
                self.kill_adopted();
            }
            let mut watches = [Watch::read(self.signals)];
            sys::poll(&mut watches, Some(20));
            sys::take_signals(self.signals, 0);
        }
    }
}
