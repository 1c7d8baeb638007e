//! Responsible for telling what a path is.

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

/// Look at `path` without opening it, so a FIFO or device is safe to ask about.
pub fn get_file_info<'a>(place: impl Into<Place<'a>>) -> Result<FileInfo> {
    let metadata = place.into().metadata()?;
    Ok(FileInfo {
        size: metadata.len(),
        is_file: metadata.is_file(),
        is_dir: metadata.is_dir(),
    })
}
