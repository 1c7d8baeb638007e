//! The pid of this process, kept: a start asks for it twenty times, to tell the host from a forked
//! child, and getpid(2) is a system call each time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// 0: not asked for yet, as in a child that was forked a moment ago.
static PID: AtomicU32 = AtomicU32::new(0);

/// The pid of this process.
pub(crate) fn own_pid() -> u32 {
    static FORKS_ARE_SEEN: OnceLock<bool> = OnceLock::new();
    let kept = PID.load(Ordering::Relaxed);
    if kept != 0 {
        return kept;
    }
    let pid = std::process::id();
    if *FORKS_ARE_SEEN.get_or_init(watch_forks) {
        PID.store(pid, Ordering::Relaxed);
    }
    pid
}

/// False without memory for the entry.
fn watch_forks() -> bool {
    extern "C" fn in_child() {
        PID.store(0, Ordering::Relaxed);
    }
    // SAFETY: the function lives as long as the program and does nothing but store a number.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forked_child_has_a_pid_of_its_own() {
        assert_eq!(own_pid(), std::process::id());
        // SAFETY: the child calls nothing that is not allowed after fork in a program with
        // threads: two loads, getpid(2) and _exit(2).
        let child = unsafe { libc::fork() };
        if child == 0 {
            let differs = own_pid() != std::process::id();
            // SAFETY: ends the child without the parent's destructors.
            unsafe { libc::_exit(i32::from(differs)) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child, into a live local.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        assert_eq!(own_pid(), std::process::id());
    }
}
