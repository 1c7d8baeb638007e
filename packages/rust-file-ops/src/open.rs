//! Responsible for opening regular files only, without ever blocking in `open`.
//!
//! Opening a FIFO waits for its other end and opening a device may act on it (a tape rewinds),
//! so the path is looked at first. It may be swapped between the look and the open: hence
//! `O_NONBLOCK`, and a second look at what was really opened.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use rustix::io::Errno;
use vespera_error::{Error, Result};

use crate::error::{FileKind, failed, not_regular};
use crate::place::{Access, Creation, Place};
use crate::target::Target;

/// Somebody who makes and removes the file that often is at it for ever.
const MAX_RACES: usize = 100;

/// Open an existing regular file for reading; its metadata comes with it.
pub(crate) fn open_for_reading(place: Place<'_>) -> Result<(File, Metadata)> {
    open_existing(place, Access::Read)
}

/// Whether a file that was opened for writing is a new one.
#[derive(Debug)]
pub(crate) enum Origin<'a> {
    Existing,
    Made(Place<'a>),
    /// Behind a symlink that led to nothing.
    MadeBehindLink(Target),
}

impl Origin<'_> {
    pub(crate) fn is_new(&self) -> bool {
        !matches!(self, Self::Existing)
    }

    /// Take a new file away again.
    pub(crate) fn remove(&self) {
        match self {
            Self::Existing => {}
            Self::Made(place) => place.remove(),
            Self::MadeBehindLink(target) => target.remove(),
        }
    }
}

/// Open a regular file for writing without truncating it.
pub(crate) fn open_for_writing(
    place: Place<'_>,
    access: Access,
) -> Result<(File, Metadata, Origin<'_>)> {
    for _ in 0..MAX_RACES {
        // It may be removed between the look and the opening, as a log is that is rotated.
        match open_existing(place, access) {
            Ok((file, metadata)) => return Ok((file, metadata, Origin::Existing)),
            Err(error) if kind_is(&error, io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error),
        }
        // O_EXCL tells "made by us" from "made by somebody else just now", but it does not follow
        // a dangling symlink: then the file is made where that leads.
        match open_checked(place, access, Creation::New) {
            Ok((file, metadata)) => return Ok((file, metadata, Origin::Made(place))),
            Err(error) if kind_is(&error, io::ErrorKind::AlreadyExists) => {}
            Err(error) => return Err(error),
        }
        let target = Target::find(place)?;
        match target.create(access) {
            Ok(file) => {
                let metadata = file.metadata().map_err(failed("open", place.path()))?;
                return Ok((file, metadata, Origin::MadeBehindLink(target)));
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("open", place.path())(errno.into())),
        }
    }
    Err(failed("open", place.path())(Errno::EXIST.into()))
}

/// Refuse directories with the system's own error, and what may block with ours.
pub(crate) fn require_regular(path: &Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    if metadata.is_dir() {
        return Err(failed("open", path)(is_a_directory()));
    }
    Err(not_regular(path, kind_of(metadata)))
}

pub(crate) fn kind_is(error: &Error, kind: io::ErrorKind) -> bool {
    error
        .io_failure()
        .is_some_and(|failure| failure.io_error().kind() == kind)
}

fn open_existing(place: Place<'_>, access: Access) -> Result<(File, Metadata)> {
    require_regular(place.path(), &place.metadata()?)?;
    open_checked(place, access, Creation::Existing)
}

fn open_checked(place: Place<'_>, access: Access, creation: Creation) -> Result<(File, Metadata)> {
    let file = place.open(access, creation)?;
    let metadata = file.metadata().map_err(failed("open", place.path()))?;
    require_regular(place.path(), &metadata)?;
    Ok((file, metadata))
}

#[cfg(unix)]
pub(crate) fn is_a_directory() -> io::Error {
    io::Error::from_raw_os_error(libc::EISDIR)
}

#[cfg(not(unix))]
pub(crate) fn is_a_directory() -> io::Error {
    io::ErrorKind::IsADirectory.into()
}

#[cfg(unix)]
fn kind_of(metadata: &Metadata) -> FileKind {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        FileKind::Fifo
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Device
    }
}

#[cfg(not(unix))]
fn kind_of(_: &Metadata) -> FileKind {
    FileKind::Device
}
