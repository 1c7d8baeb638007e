//! Responsible for reading whole regular files, as bytes, text or lines.
//!
//! No mmap: a file truncated by somebody else while mapped ends the process with SIGBUS.

use std::io::Read;
use std::path::Path;

use vespera_error::Result;

use crate::error::{failed, not_utf8, too_large};
use crate::open::open_for_reading;

/// The whole content of the file.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let (file, metadata) = open_for_reading(path)?;
    let mut content = Vec::new();
    // The size is a hint only: `/proc` says 0 and a log grows while it is read. A sparse file may
    // claim any size, and a failed reservation must be an error, not an abort.
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    content
        .try_reserve_exact(size)
        .map_err(|_| too_large(path, metadata.len()))?;
    // `take` keeps std from asking for the size once more: two system calls of a small read.
    file.take(u64::MAX)
        .read_to_end(&mut content)
        .map_err(failed("read", path))?;
    Ok(content)
}

/// The whole content as text. A byte order mark stays, as does every line ending.
pub fn read_file_string(path: &Path) -> Result<String> {
    String::from_utf8(read_file(path)?)
        .map_err(|error| not_utf8(path, error.utf8_error().valid_up_to()))
}

/// The lines without their endings (`\n` or `\r\n`). A final newline opens no empty line.
pub fn read_file_lines(path: &Path) -> Result<Vec<String>> {
    Ok(read_file_string(path)?.lines().map(str::to_owned).collect())
}
