//! Responsible for the temporary file of an atomic replace: its name, and what a crashed writer
//! left there.
//!
//! The name follows from the target's name, so the next writer of the same target comes across
//! what a dead one left. Who writes holds a lock (`flock`) on the file, which dies with the
//! process: without a lock it is a leftover. A writer that is alive makes the next one take the
//! next number.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::lock::Locked;

/// More writers of one file at one time than this is a mistake.
const MAX_WRITERS: u32 = 4096;

/// A new, locked file beside the target called `name`. One that replaces another starts private,
/// since the other's mode, which may be tighter than the umask, is set once the content is there.
pub(crate) fn create(
    directory: &OwnedFd,
    name: &OsStr,
    default_mode: bool,
) -> io::Result<(OsString, Locked)> {
    let mode = Mode::from_raw_mode(if default_mode { 0o666 } else { 0o600 });
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    for number in 0..MAX_WRITERS {
        let temporary = temporary_name(name, number);
        for _ in 0..3 {
            match openat(directory, temporary.as_os_str(), flags, mode) {
                Ok(descriptor) => {
                    if let Some(file) = Locked::try_new(descriptor.into())
                        && still_there(directory, &temporary, &file)
                    {
                        clean_after(directory, name, number);
                        return Ok((temporary, file));
                    }
                    // Somebody took it for a leftover before it was locked: theirs to remove.
                    break;
                }
                Err(Errno::EXIST) if remove_leftover(directory, &temporary) => {}
                Err(Errno::EXIST) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Err(Errno::EXIST.into())
}

/// FNV-1a of the name: short, so that a target whose name has the full 255 bytes works too.
fn temporary_name(name: &OsStr, number: u32) -> OsString {
    let hash = name
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!(".vespera-{hash:016x}-{number}.tmp").into()
}

fn still_there(directory: &OwnedFd, name: &OsStr, file: &File) -> bool {
    match (
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW),
        fstat(file),
    ) {
        (Ok(there), Ok(ours)) => (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino),
        _ => false,
    }
}

/// True when the way is free: what stood there belonged to nobody alive and is gone.
fn remove_leftover(directory: &OwnedFd, name: &OsStr) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(errno) => return errno == Errno::NOENT,
    };
    // Only its maker renames it, and only under the lock: while we hold it the name stays. Where
    // locks do not exist nothing can be told from a leftover, and nothing is removed as one.
    Locked::try_new(file).is_some_and(|file| {
        file.is_held()
            && still_there(directory, name, &file)
            && unlinkat(directory, name, AtFlags::empty()).is_ok()
    })
}

/// Several writers may have died at once, each with a number of its own.
fn clean_after(directory: &OwnedFd, name: &OsStr, number: u32) {
    for next in number + 1..MAX_WRITERS {
        let temporary = temporary_name(name, next);
        if statat(directory, temporary.as_os_str(), AtFlags::SYMLINK_NOFOLLOW).is_err() {
            return;
        }
        remove_leftover(directory, &temporary);
    }
}
