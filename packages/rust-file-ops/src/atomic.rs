//! Responsible for replacing a file so that every reader, and every crash, sees the old content
//! whole or the new one whole.
//!
//! The new content goes to a temporary file beside the target (a rename is atomic only within
//! one file system), is forced to disk, and takes the target's name; then the directory is forced
//! to disk too, or a power failure could undo the rename. A symlink is written through: the file
//! it leads to is replaced, the link stays. All of it is done in one open directory, so that a
//! symlink put into the path meanwhile changes nothing.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use vespera_error::Result;

use crate::attributes::{Attributes, keep};
use crate::error::{changed, failed, no_new_files};
use crate::open::require_regular;
use crate::place::Place;
use crate::root::LOOK;
use crate::target::Target;
use crate::temporary;

/// Replace the content of the file, which is created when missing. Mode, extended attributes
/// (ACLs are among them) and, where the system allows it, owner stay as they were.
pub fn write_file_atomic<'a>(place: impl Into<Place<'a>>, content: &[u8]) -> Result<()> {
    replace(place.into(), content, None).map(drop)
}

/// Replace the content, unless the file is no longer the one that `read` describes. Gives the
/// metadata of the new file.
pub(crate) fn replace(
    place: Place<'_>,
    content: &[u8],
    read: Option<&Metadata>,
) -> Result<Metadata> {
    let path = place.path();
    let target = Target::find(place)?;
    let old = look(&target, path)?;
    let (temporary, file) = temporary::create(&target.directory, &target.name, old.is_none())
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if old.is_some() => no_new_files(path),
            _ => failed("replace", path)(error),
        })?;
    let remove = || {
        let _ = unlinkat(&target.directory, temporary.as_os_str(), AtFlags::empty());
    };
    let attributes = old
        .as_ref()
        .and_then(|_| Attributes::of(&target.directory, &target.name));
    let filled =
        fill(&file, content, old.as_ref(), attributes.as_ref()).map_err(failed("replace", path));
    let ready = filled.and_then(|()| match (read, look(&target, path)) {
        (None, _) => Ok(()),
        (Some(read), Ok(Some(now))) if same(read, &now) => Ok(()),
        (Some(_), Ok(_)) => Err(changed(path, "it was written while it was edited")),
        (Some(_), Err(error)) => Err(error),
    });
    let renamed = ready.and_then(|()| {
        renameat(
            &target.directory,
            temporary.as_os_str(),
            &target.directory,
            target.name.as_os_str(),
        )
        .map_err(|errno| failed("replace", path)(errno.into()))
    });
    renamed.inspect_err(|_| remove())?;
    sync_directory(&target.directory).map_err(failed("replace", path))?;
    file.metadata().map_err(failed("replace", path))
}

/// True while nobody has written the file since `one` was taken.
pub(crate) fn same(one: &Metadata, other: &Metadata) -> bool {
    let facts = |of: &Metadata| (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec());
    facts(one) == facts(other)
}

fn look(target: &Target, path: &Path) -> Result<Option<Metadata>> {
    let flags = LOOK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = match openat(
        &target.directory,
        target.name.as_os_str(),
        flags,
        Mode::empty(),
    ) {
        Err(Errno::NOENT) => return Ok(None),
        outcome => outcome
            .map_err(io::Error::from)
            .and_then(|descriptor| File::from(descriptor).metadata())
            .map_err(failed("replace", path))?,
    };
    require_regular(path, &found)?;
    Ok(Some(found))
}

/// A file that replaces none keeps what its directory gives new files.
fn fill(
    mut file: &File,
    content: &[u8],
    old: Option<&Metadata>,
    attributes: Option<&Attributes>,
) -> io::Result<()> {
    file.write_all(content)?;
    if let Some(old) = old {
        keep(file, old, attributes)?;
    }
    file.sync_all()
}

/// Some file systems cannot sync a directory, and one may lack the right to read it: both have
/// done what they can.
fn sync_directory(directory: &OwnedFd) -> io::Result<()> {
    match rustix::fs::fsync(directory) {
        Err(Errno::INVAL | Errno::BADF) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
