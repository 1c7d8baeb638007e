//! The engine's file descriptors: a forked child of the host closes them all.
//!
//! A copy in a child would keep an agent's pipes open after the host is gone, and would let the
//! child speak to the guardian in the host's name. fork(2) in a program with threads leaves the
//! child no lock that it could trust, so the set is a table of bits that needs none.

use crate::own_pid::own_pid;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::mem::ManuallyDrop;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Descriptors from this number on stay open in a forked child; `ulimit -n` is rarely that high.
const HIGHEST: usize = 1 << 20;

static OURS: [AtomicU64; HIGHEST / 64] = [const { AtomicU64::new(0) }; HIGHEST / 64];

/// True while descriptors are made that are not in the table yet: a fork waits for that.
static MAKING: AtomicBool = AtomicBool::new(false);

/// A descriptor that no forked child keeps.
#[derive(Debug)]
pub struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    owner: u32,
}

impl From<OwnedFd> for Descriptor {
    fn from(fd: OwnedFd) -> Self {
        static FORKS: Once = Once::new();
        FORKS.call_once(watch_forks);
        if let Some((word, bit)) = place(fd.as_raw_fd()) {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Self {
            fd: ManuallyDrop::new(fd),
            owner: own_pid(),
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // In a forked child it is closed already, and its number may be another's.
        if self.owner != own_pid() {
            return;
        }
        if let Some((word, bit)) = place(self.fd.as_raw_fd()) {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
        // SAFETY: dropped once, here, and not used after.
        unsafe { ManuallyDrop::drop(&mut self.fd) }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// While this lives no fork of this process completes: what is made meanwhile reaches the table.
#[derive(Debug)]
pub struct Making(());

/// Begins to make descriptors; other makers and forks wait.
pub fn making() -> Making {
    while MAKING.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
    Making(())
}

impl Drop for Making {
    fn drop(&mut self) {
        MAKING.store(false, Ordering::Release);
    }
}

fn place(fd: RawFd) -> Option<(&'static AtomicU64, u64)> {
    let number = usize::try_from(fd).ok()?;
    Some((OURS.get(number / 64)?, 1 << (number % 64)))
}

fn watch_forks() {
    extern "C" fn before() {
        std::mem::forget(making());
    }
    extern "C" fn in_parent() {
        drop(Making(()));
    }
    extern "C" fn in_child() {
        for (index, word) in (0_i32..).zip(&OURS) {
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                let number = bits.trailing_zeros();
                bits &= bits - 1;
                // SAFETY: close(2) may be called between fork and exec; the table holds only
                // numbers of open descriptors that this library owns.
                unsafe { libc::close(index * 64 + number.cast_signed()) };
            }
        }
        drop(Making(()));
    }
    // SAFETY: the three functions live as long as the program and call only what is allowed
    // around fork. Without memory for the entry a child keeps copies, and the lifeline on the
    // host's pid still works.
    unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
}
