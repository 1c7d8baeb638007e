//! Responsible for telling what a path is.

use std::ffi::OsString;

use vespera_error::Result;

use crate::place::Place;

/// What a path leads to, symlinks followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes, as the file system counts them.
    pub size: u64,
    pub is_file: bool,
    pub is_dir: bool,
}

/// The names in a directory and what they stand for (`file`, `directory`, `symlink`, `other`),
/// sorted by bytes; symlinks are not followed.
pub fn list_directory<'a>(place: impl Into<Place<'a>>) -> Result<Vec<(OsString, &'static str)>> {
    let mut names: Vec<_> = place
        .into()
        .list()?
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
