//! Responsible for telling what a path is.

use std::ffi::OsString;
use std::fs::{FileType, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use vespera_error::Result;

use crate::place::Place;
use crate::read::modified_ns;
use crate::root::Root;
use crate::walk::origin::without_ignored;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes, as the file system counts them.
    pub size: u64,
    pub is_file: bool,
    pub is_dir: bool,
    /// `file`, `directory`, `symlink`, `fifo`, `socket` or `device`.
    pub kind: &'static str,
    /// Permissions, set-id and sticky bits.
    pub mode: u32,
    pub modified_ns: i128,
    /// Whether the path itself is a symlink.
    pub is_symlink: bool,
    pub links: u64,
    pub inode: u64,
    pub device: u64,
    pub uid: u32,
    pub gid: u32,
}

impl FileInfo {
    fn new(metadata: &Metadata, is_symlink: bool) -> Self {
        Self {
            size: metadata.len(),
            is_file: metadata.is_file(),
            is_dir: metadata.is_dir(),
            kind: kind(metadata.file_type()),
            mode: metadata.mode() & 0o7777,
            modified_ns: modified_ns(metadata),
            is_symlink,
            links: metadata.nlink(),
            inode: metadata.ino(),
            device: metadata.dev(),
            uid: metadata.uid(),
            gid: metadata.gid(),
        }
    }
}

fn kind(of: FileType) -> &'static str {
    if of.is_file() {
        "file"
    } else if of.is_dir() {
        "directory"
    } else if of.is_symlink() {
        "symlink"
    } else if of.is_fifo() {
        "fifo"
    } else if of.is_socket() {
        "socket"
    } else {
        "device"
    }
}

/// The names in a directory and what they stand for (`file`, `directory`, `symlink`, `other`),
/// sorted by bytes; symlinks are not followed. With `gitignore` without what git would leave out.
pub fn list_directory(
    root: Option<&Arc<Root>>,
    path: &Path,
    gitignore: bool,
) -> Result<Vec<(OsString, &'static str)>> {
    let mut names = Place::new(root.map(Arc::as_ref), path).list()?;
    if gitignore {
        names = without_ignored(root, path, names)?;
    }
    let mut names: Vec<_> = names
        .into_iter()
        .map(|(name, kind)| (name, kind.word()))
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Look at `path` without opening it, so a FIFO or device is safe to ask about.
pub fn get_file_info<'a>(place: impl Into<Place<'a>>) -> Result<FileInfo> {
    Ok(FileInfo::new(&place.into().metadata()?, false))
}

/// The same, and whether the path itself is a symlink, which is followed or told about.
pub fn file_info<'a>(place: impl Into<Place<'a>>, follow_symlinks: bool) -> Result<FileInfo> {
    let place = place.into();
    let itself = place.metadata_of_link()?;
    let is_symlink = itself.is_symlink();
    if is_symlink && follow_symlinks {
        return Ok(FileInfo::new(&place.metadata()?, true));
    }
    Ok(FileInfo::new(&itself, is_symlink))
}
