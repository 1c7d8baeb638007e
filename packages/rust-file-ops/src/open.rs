//! Responsible for opening regular files only, without ever blocking in `open`.
//!
//! Opening a FIFO waits for its other end and opening a device may act on it (a tape rewinds),
//! so the path is looked at first. It may be swapped between the look and the open: hence
//! `O_NONBLOCK`, and a second look at what was really opened.

use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

use vespera_error::{Error, Result};

use crate::error::{FileKind, failed, not_regular};
use crate::place::{Access, Creation, Place};

/// Open an existing regular file for reading; its metadata comes with it.
pub(crate) fn open_for_reading(place: Place<'_>) -> Result<(File, Metadata)> {
    require_regular(place.path(), &place.metadata()?)?;
    open_checked(place, Access::Read, Creation::Existing)
}

/// Open a regular file for writing without truncating it. The flag tells whether it is new.
pub(crate) fn open_for_writing(place: Place<'_>, append: bool) -> Result<(File, Metadata, bool)> {
    let access = if append {
        Access::Append
    } else {
        Access::Write
    };
    match place.metadata() {
        Ok(metadata) => {
            require_regular(place.path(), &metadata)?;
            let (file, metadata) = open_checked(place, access, Creation::Existing)?;
            Ok((file, metadata, false))
        }
        Err(missing) if kind_is(&missing, io::ErrorKind::NotFound) => {
            // O_EXCL tells "made by us" from "made by somebody else just now", but it does not
            // follow a dangling symlink: then, and in that race, open it the plain way.
            match open_checked(place, access, Creation::New) {
                Ok((file, metadata)) => Ok((file, metadata, true)),
                Err(error) if kind_is(&error, io::ErrorKind::AlreadyExists) => {
                    let (file, metadata) = open_checked(place, access, Creation::OrNew)?;
                    Ok((file, metadata, false))
                }
                Err(other) => Err(other),
            }
        }
        Err(other) => Err(other),
    }
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
