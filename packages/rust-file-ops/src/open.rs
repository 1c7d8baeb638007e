//! Responsible for opening regular files only, without ever blocking in `open`.
//!
//! Opening a FIFO waits for its other end and opening a device may act on it (a tape rewinds),
//! so the path is looked at first. It may be swapped between the look and the open: hence
//! `O_NONBLOCK`, and a second look at what was really opened.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

use vespera_error::{Error, Result};

use crate::error::{FileKind, failed, not_regular};

/// Open an existing regular file for reading; its metadata comes with it.
pub(crate) fn open_for_reading(path: &Path) -> Result<(File, Metadata)> {
    let metadata = std::fs::metadata(path).map_err(failed("open", path))?;
    require_regular(path, &metadata)?;
    open_checked(path, OpenOptions::new().read(true))
}

/// Open a regular file for writing without truncating it. The flag tells whether it is new.
pub(crate) fn open_for_writing(path: &Path, append: bool) -> Result<(File, Metadata, bool)> {
    let mut options = OpenOptions::new();
    if append {
        options.append(true);
    } else {
        options.write(true);
    }
    match std::fs::metadata(path) {
        Ok(metadata) => {
            require_regular(path, &metadata)?;
            let (file, metadata) = open_checked(path, &mut options)?;
            Ok((file, metadata, false))
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            // O_EXCL tells "made by us" from "made by somebody else just now", but it does not
            // follow a dangling symlink: then, and in that race, open it the plain way.
            match open_checked(path, options.clone().create_new(true)) {
                Ok((file, metadata)) => Ok((file, metadata, true)),
                Err(error) if kind_is(&error, io::ErrorKind::AlreadyExists) => {
                    let (file, metadata) = open_checked(path, options.create(true))?;
                    Ok((file, metadata, false))
                }
                Err(other) => Err(other),
            }
        }
        Err(other) => Err(failed("open", path)(other)),
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

fn kind_is(error: &Error, kind: io::ErrorKind) -> bool {
    error
        .io_failure()
        .is_some_and(|failure| failure.io_error().kind() == kind)
}

fn open_checked(path: &Path, options: &mut OpenOptions) -> Result<(File, Metadata)> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path).map_err(failed("open", path))?;
    let metadata = file.metadata().map_err(failed("open", path))?;
    require_regular(path, &metadata)?;
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
