//! Responsible for the lock (`flock`) on an open file: taken without waiting, and given up.

use std::fs::File;
use std::ops::Deref;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// An open file that nobody else has a lock on until this is dropped.
///
/// Closing the file would not give the lock up: a child that was forked meanwhile has the file open
/// too, and with it the lock, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Locked {
    file: File,
    held: bool,
}

impl Locked {
    /// Nothing if somebody else has the lock. Where locks do not exist, everybody has one.
    pub(crate) fn try_new(file: File) -> Option<Self> {
        let held = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK) => return None,
            Err(_) => false,
        };
        Some(Self { file, held })
    }

    /// Whether there really is a lock.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if self.held {
            let _ = flock(&self.file, FlockOperation::Unlock);
        }
    }
}
