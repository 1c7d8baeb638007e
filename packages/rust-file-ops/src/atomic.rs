//! Responsible for replacing a file so that every reader, and every crash, sees the old content
//! whole or the new one whole.
//!
//! The new content goes to a temporary file beside the target (a rename is atomic only within
//! one file system), is forced to disk, and takes the target's name; then the directory is forced
//! to disk too, or a power failure could undo the rename. A symlink is written through: the file
//! it leads to is replaced, the link stays. All of it is done in one open directory, so that a
//! symlink put into the path meanwhile changes nothing.

use std::ffi::{CStr, CString, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, XattrFlags, fgetxattr, flistxattr, fsetxattr, openat, readlinkat,
    renameat, unlinkat,
};
use rustix::io::Errno;
use vespera_error::Result;

use crate::error::{changed, failed, no_new_files};
use crate::open::{is_a_directory, kind_is, require_regular};
use crate::place::Place;
use crate::root::LOOK;
use crate::temporary;

/// As many as Linux follows before it says ELOOP.
const MAX_SYMLINKS: usize = 40;

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
    let old = target.look(path)?;
    let (temporary, file) = temporary::create(&target.directory, &target.name, old.is_none())
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if old.is_some() => no_new_files(path),
            _ => failed("replace", path)(error),
        })?;
    let remove = || {
        let _ = unlinkat(&target.directory, temporary.as_os_str(), AtFlags::empty());
    };
    let attributes = old.as_ref().map_or_else(Vec::new, |_| target.attributes());
    let filled = fill(&file, content, old.as_ref(), &attributes).map_err(failed("replace", path));
    let ready = filled.and_then(|()| match (read, target.look(path)) {
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

/// Name and value of an extended attribute.
type Attribute = (CString, Vec<u8>);

/// Linux allows neither a list of names nor a value to be longer.
const MAX_ATTRIBUTES: usize = 1 << 16;
const FEW_ATTRIBUTES: usize = 1 << 8;

/// Ask with little room, which nearly always does, then with all that there can be: the system
/// makes room for as much as it is asked for, each time.
fn grown(
    room: &mut Vec<u8>,
    ask: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>,
) -> rustix::io::Result<usize> {
    room.reserve_exact(FEW_ATTRIBUTES);
    match ask(room) {
        Err(Errno::RANGE) => {
            room.reserve_exact(MAX_ATTRIBUTES);
            ask(room)
        }
        outcome => outcome,
    }
}

/// The directory of the file to replace, open, and its name there.
struct Target {
    directory: OwnedFd,
    name: OsString,
}

impl Target {
    /// Follow the symlinks at the end of the path; those in the middle are the kernel's.
    fn find(place: Place<'_>) -> Result<Self> {
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
                // Not a link, or nothing there yet: this is the file to replace.
                Err(_) => return Ok(Self { directory, name }),
            }
        }
        Err(failed("replace", place.path())(Errno::LOOP.into()))
    }

    /// The extended attributes, ACLs among them. One that may not be read cannot be kept.
    fn attributes(&self) -> Vec<Attribute> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(&self.directory, self.name.as_os_str(), flags, Mode::empty()) else {
            return Vec::new();
        };
        let mut names = Vec::new();
        if grown(&mut names, |room| flistxattr(&file, spare_capacity(room))).is_err() {
            return Vec::new();
        }
        let mut found = Vec::new();
        for name in names.split_inclusive(|&byte| byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else {
                continue;
            };
            let mut value = Vec::new();
            if grown(&mut value, |room| {
                fgetxattr(&file, name, spare_capacity(room))
            })
            .is_ok()
            {
                found.push((name.to_owned(), value));
            }
        }
        found
    }

    fn look(&self, path: &Path) -> Result<Option<Metadata>> {
        let flags = LOOK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match openat(&self.directory, self.name.as_os_str(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            outcome => outcome
                .map_err(io::Error::from)
                .and_then(|descriptor| {
                    let file = File::from(descriptor);
                    let metadata = file.metadata()?;
                    Ok(metadata)
                })
                .map_err(failed("replace", path))?,
        };
        require_regular(path, &found)?;
        Ok(Some(found))
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
            Ok(()) => failed("replace", place.path())(Errno::NOTDIR.into()),
        },
        Err(error) if kind_is(&error, io::ErrorKind::NotFound) && !path.as_os_str().is_empty() => {
            failed("replace", place.path())(is_a_directory())
        }
        Err(error) => error,
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
    opened.map_err(|errno| failed("replace", shown)(errno.into()))
}

fn fill(
    mut file: &File,
    content: &[u8],
    old: Option<&Metadata>,
    attributes: &[Attribute],
) -> io::Result<()> {
    file.write_all(content)?;
    for (name, value) in attributes {
        // Some belong to the system alone (labels, capabilities): kept where we may.
        let _ = fsetxattr(file, name.as_c_str(), value, XattrFlags::empty());
    }
    // After the content: a write would clear set-id bits, and until now the file was private.
    // After an ACL too, whose mask is the mode's group bits.
    if let Some(old) = old {
        keep_owner_and_mode(file, old)?;
    }
    file.sync_all()
}

fn keep_owner_and_mode(file: &File, old: &Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let mut mode = old.mode() & 0o7777;
    let foreign = (new.uid(), new.gid()) != (old.uid(), old.gid());
    // Only root may give a file away. Without that, set-id bits would serve the wrong owner.
    if foreign && fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        mode &= 0o777;
    }
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

/// Some file systems cannot sync a directory, and one may lack the right to read it: both have
/// done what they can.
fn sync_directory(directory: &OwnedFd) -> io::Result<()> {
    match rustix::fs::fsync(directory) {
        Err(Errno::INVAL | Errno::BADF) | Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}
