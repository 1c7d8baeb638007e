//! Responsible for telling what a path is.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use vespera_error::Result;

use crate::place::Place;
use crate::root::Root;
use crate::walk::origin::without_ignored;

/// What a path leads to, symlinks followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes, as the file system counts them.
    pub size: u64,
    pub is_file: bool,
    pub is_dir: bool,
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
    let metadata = place.into().metadata()?;
    Ok(FileInfo {
        size: metadata.len(),
        is_file: metadata.is_file(),
        is_dir: metadata.is_dir(),
    })
}
