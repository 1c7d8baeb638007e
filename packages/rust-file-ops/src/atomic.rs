//! Responsible for replacing a file so that every reader, and every crash, sees the old content
//! whole or the new one whole.
//!
//! The new content goes to a temporary file beside the target (a rename is atomic only within
//! one file system), is forced to disk, and takes the target's name; then the directory is forced
//! to disk too, or a power failure could undo the rename. A symlink is written through: the file
//! it leads to is replaced, the link stays.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use vespera_error::Result;

use crate::error::failed;
use crate::open::{is_a_directory, require_regular};

/// As many as Linux follows before it says ELOOP.
const MAX_SYMLINKS: usize = 40;

/// Replace the content of `path`, which is created when missing. Mode and, where the system
/// allows it, owner stay as they were.
pub fn write_file_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let target = follow_symlinks(path)?;
    let old = match std::fs::symlink_metadata(&target) {
        Ok(metadata) => {
            require_regular(path, &metadata)?;
            Some(metadata)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("replace", path)(error)),
    };
    if old.is_none() && names_a_directory(&target) {
        return Err(failed("replace", path)(is_a_directory()));
    }
    let directory = parent_of(&target);
    let (temporary, file) =
        create_beside(&directory, old.is_none()).map_err(failed("replace", path))?;
    let outcome = fill(file, content, old.as_ref())
        .and_then(|()| std::fs::rename(&temporary, &target))
        .inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
        .and_then(|()| sync_directory(&directory));
    outcome.map_err(failed("replace", path))
}

/// Where the symlinks at the end of `path` lead. Those in the middle are left to the kernel.
fn follow_symlinks(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..=MAX_SYMLINKS {
        match std::fs::read_link(&target) {
            Ok(next) => target = parent_of(&target).join(next),
            // Not a link, or nothing there yet: this is the file to replace.
            Err(_) => return Ok(target),
        }
    }
    Err(failed("replace", path)(too_many_links()))
}

/// True for `name/`, `.` and `..`: names that only a directory can have.
fn names_a_directory(path: &Path) -> bool {
    let ends_with_separator = path
        .as_os_str()
        .as_encoded_bytes()
        .last()
        .is_some_and(|&last| last == b'/');
    ends_with_separator || path.file_name().is_none() && !path.as_os_str().is_empty()
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A new file with a name of its own. One that replaces another starts private, since the other's
/// mode, which may be tighter than the umask, is set only once the content is there.
fn create_beside(directory: &Path, default_mode: bool) -> io::Result<(PathBuf, File)> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if !default_mode {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    loop {
        let temporary = directory.join(temporary_name());
        match options.open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Short, so that a target whose name has the full 255 bytes works too; hidden from `*`.
fn temporary_name() -> OsString {
    // The standard library's hash keys are random per process and differ per call.
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!(".vespera-{random:016x}.tmp").into()
}

fn fill(mut file: File, content: &[u8], old: Option<&Metadata>) -> io::Result<()> {
    file.write_all(content)?;
    // After the content: a write would clear set-id bits, and until now the file was private.
    if let Some(old) = old {
        keep_owner_and_mode(&file, old)?;
    }
    file.sync_all()
}

#[cfg(unix)]
fn keep_owner_and_mode(file: &File, old: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

    let new = file.metadata()?;
    let mut mode = old.mode() & 0o7777;
    let foreign = (new.uid(), new.gid()) != (old.uid(), old.gid());
    // Only root may give a file away. Without that, set-id bits would serve the wrong owner.
    if foreign && fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        mode &= 0o777;
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn keep_owner_and_mode(file: &File, old: &Metadata) -> io::Result<()> {
    file.set_permissions(old.permissions())
}

/// Some file systems cannot sync a directory, and one may write in a directory without the right
/// to read it: both have done what they can.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    let handle = match File::open(directory) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        Err(error) => return Err(error),
    };
    match handle.sync_all() {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn too_many_links() -> io::Error {
    io::Error::from_raw_os_error(libc::ELOOP)
}

#[cfg(not(unix))]
fn too_many_links() -> io::Error {
    io::Error::other("too many levels of symbolic links")
}
