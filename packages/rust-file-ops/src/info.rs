//! Responsible for telling what a path is.

use std::path::Path;

use vespera_error::Result;

use crate::error::failed;

/// What a path leads to, symlinks followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileInfo {
    /// Bytes, as the file system counts them.
    pub size: u64,
    pub is_file: bool,
    pub is_dir: bool,
}

/// Look at `path` without opening it, so a FIFO or device is safe to ask about.
pub fn get_file_info(path: &Path) -> Result<FileInfo> {
    let metadata = std::fs::metadata(path).map_err(failed("stat", path))?;
    Ok(FileInfo {
        size: metadata.len(),
        is_file: metadata.is_file(),
        is_dir: metadata.is_dir(),
    })
}
