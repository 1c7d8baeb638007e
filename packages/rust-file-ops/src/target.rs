//! Responsible for where a path's symlinks end: an open directory and a name in it.
//!
//! What is created, replaced or removed there is done in that directory, so that a symlink put into
//! the path meanwhile changes nothing.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, readlinkat, unlinkat};
use rustix::io::Errno;
use vespera_error::Result;

use crate::error::failed;
use crate::open::{is_a_directory, kind_is, require_regular};
use crate::place::{Access, Place};
use crate::root::LOOK;

/// As many as Linux follows before it says ELOOP.
const MAX_SYMLINKS: usize = 40;

/// The directory that the file is, or is to be, in, open, and its name there.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) directory: OwnedFd,
    pub(crate) name: OsString,
}

impl Target {
    /// Follow the symlinks at the end of the path; those in the middle are the kernel's.
    pub(crate) fn find(place: Place<'_>) -> Result<Self> {
        let mut path = place.path().to_path_buf();
        for _ in 0..=MAX_SYMLINKS {
            let Some(name) = file_name(&path) else {
                return Err(no_file_name(place, &path));
            };
            let directory = open_directory(place.at(&parent_of(&path)), place.path())?;
            match readlinkat(&directory, name.as_os_str(), Vec::new()) {
                Ok(next) => {
                    path = parent_of(&path).join(OsString::from_vec(next.into_bytes()));
                }
                // Not a link, or nothing there yet: this is the file.
                Err(_) => return Ok(Self { directory, name }),
            }
        }
        Err(failed("open", place.path())(Errno::LOOP.into()))
    }

    /// Make the file, which nobody else has made: `EEXIST` otherwise.
    pub(crate) fn create(&self, access: Access) -> rustix::io::Result<File> {
        let flags = access.flags() | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o666);
        openat(&self.directory, self.name.as_os_str(), flags, mode).map(File::from)
    }

    /// Take away the file that was made here; the error that made it so matters, not this one's.
    pub(crate) fn remove(&self) {
        let _ = unlinkat(&self.directory, self.name.as_os_str(), AtFlags::empty());
    }
}

/// The last name, unless it is one that only a directory can have (`name/`, `.`, `..`).
fn file_name(path: &Path) -> Option<OsString> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.last() == Some(&b'/') || bytes.ends_with(b"/.") || bytes == b"." {
        return None;
    }
    path.file_name().map(ToOwned::to_owned)
}

fn no_file_name(place: Place<'_>, path: &Path) -> vespera_error::Error {
    let missing = place.at(path).metadata();
    match missing {
        Ok(metadata) => match require_regular(place.path(), &metadata) {
            Err(error) => error,
            Ok(()) => failed("open", place.path())(Errno::NOTDIR.into()),
        },
        Err(error) if kind_is(&error, io::ErrorKind::NotFound) && !path.as_os_str().is_empty() => {
            failed("open", place.path())(is_a_directory())
        }
        // Of the path that was given, not of what its symlinks lead to.
        Err(error) => match error
            .io_failure()
            .map(|failure| failure.io_error().raw_os_error())
        {
            Some(Some(number)) => {
                failed("open", place.path())(io::Error::from_raw_os_error(number))
            }
            _ => error,
        },
    }
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// One may write in a directory without the right to read it: then it cannot be forced to disk.
fn open_directory(place: Place<'_>, shown: &Path) -> Result<OwnedFd> {
    if let Some(root) = place.root() {
        return root.open_directory(place.path(), shown);
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = match openat(CWD, place.path(), flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => openat(CWD, place.path(), flags | LOOK, Mode::empty()),
        outcome => outcome,
    };
    opened.map_err(|errno| failed("open", shown)(errno.into()))
}
