//! The guardian: starts agents for one host and outlives it just long enough to end them all.
//!
//! One thread, no allocation after start but the list of leashes, and three jobs: fork a leash per
//! request, kill what reaches it by adoption, and, once the host is gone, see that nothing is left.
//! It never touches an agent's output. The leash (`leash.rs`) owns one agent's tree.
#![cfg(target_os = "linux")]
// The guardian is a program of its own beside a library: its modules are nobody's interface.
#![allow(unreachable_pub)]

mod leader;
mod leash;
mod sys;

use sys::{Received, Watch};
use vespera_guardian::{HOST_FD, MAX_INLINE, Report, SPAWN_HEADER, Stage, hello};

/// How much longer than the longest grace the guardian leaves its leashes before it kills them.
const LEASH_MARGIN_MS: u32 = 1000;

fn main() {
    // The host names itself: comparing it with the parent closes the window in which it died
    // before we were watching. 1 is a legal host, in a container.
    let Some(host) = std::env::args()
        .nth(1)
        .and_then(|text| text.parse::<i32>().ok())
    else {
        sys::exit(2);
    };
    sys::close_from(HOST_FD + 1);
    sys::become_guardian();
    let Some(host_pidfd) = sys::pidfd_open(host) else {
        sys::exit(3)
    };
    if sys::parent() != host {
        sys::exit(4);
    }
    let Some(own_pidfd) = sys::pidfd_open(sys::pid()) else {
        sys::exit(5)
    };
    let Some(children_fd) = sys::watch_children() else {
        sys::exit(6)
    };
    sys::send(HOST_FD, &hello(sys::pid()));
    Guardian {
        host_pidfd,
        own_pidfd,
        children_fd,
        leashes: Vec::new(),
        longest_grace_ms: 0,
    }
    .serve();
}

struct Guardian {
    host_pidfd: i32,
    own_pidfd: i32,
    children_fd: i32,
    leashes: Vec<i32>,
    longest_grace_ms: u32,
}

impl Guardian {
    fn serve(mut self) -> ! {
        let mut packet = vec![0_u8; SPAWN_HEADER + MAX_INLINE];
        loop {
            let mut watches = [
                Watch::read(HOST_FD),
                Watch::read(self.host_pidfd),
                Watch::read(self.children_fd),
            ];
            sys::poll(&mut watches, None);
            if watches[2].ready() {
                sys::drain_signals(self.children_fd);
                self.reap();
            }
            if watches[1].ready() {
                self.outlive_host();
            }
            if watches[0].ready() {
                match sys::receive(HOST_FD, &mut packet) {
                    Received::Packet {
                        len,
                        fds,
                        same_user,
                    } => self.start(&packet[..len], &fds, same_user),
                    Received::Later => {}
                    // Every way a socket can end means the host is gone: a host that dies with
                    // unread data gives ECONNRESET, not end of file.
                    Received::Gone => self.outlive_host(),
                }
            }
        }
    }

    fn start(&mut self, packet: &[u8], fds: &sys::Fds, same_user: bool) {
        let Some(socket) = fds.get(0) else { return };
        let refusal = if !same_user {
            Some((libc::EPERM, Stage::Credentials))
        } else if packet.len() < SPAWN_HEADER || fds.len() < 4 {
            Some((libc::EBADMSG, Stage::Request))
        } else {
            None
        };
        if let Some((errno, stage)) = refusal {
            sys::send(socket, &Report::Failed { errno, stage }.encode());
            return;
        }
        let grace = packet
            .get(4..8)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_le_bytes);
        match sys::fork() {
            Ok(0) => {
                sys::close(HOST_FD);
                sys::close(self.children_fd);
                leash::run(packet, fds, self.host_pidfd, self.own_pidfd)
            }
            Ok(pid) => {
                self.longest_grace_ms = self.longest_grace_ms.max(grace);
                self.leashes.push(pid);
            }
            Err(errno) => sys::send(
                socket,
                &Report::Failed {
                    errno,
                    stage: Stage::Fork,
                }
                .encode(),
            ),
        }
    }

    /// Reaps; a leash that did not end by itself leaves its tree to us, and we end that tree.
    fn reap(&mut self) {
        while let Some(ended) = sys::reap_any() {
            if let Some(place) = self.leashes.iter().position(|pid| *pid == ended.pid) {
                self.leashes.swap_remove(place);
                if !ended.clean {
                    self.kill_adopted();
                }
            }
        }
    }

    /// A child of the guardian that is not a leash is a leak by construction.
    fn kill_adopted(&self) {
        sys::for_each_child(|pid| {
            if !self.leashes.contains(&pid) {
                sys::kill(pid, libc::SIGKILL);
            }
        });
    }

    fn outlive_host(&mut self) -> ! {
        let deadline = sys::now_ms() + u64::from(self.longest_grace_ms + LEASH_MARGIN_MS);
        loop {
            self.reap();
            if sys::childless() {
                sys::exit(0);
            }
            if sys::now_ms() >= deadline {
                sys::for_each_child(|pid| sys::kill(pid, libc::SIGKILL));
            } else {
                self.kill_adopted();
            }
            let mut watches = [Watch::read(self.children_fd)];
            sys::poll(&mut watches, Some(20));
            sys::drain_signals(self.children_fd);
        }
    }
}
