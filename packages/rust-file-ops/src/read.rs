//! Responsible for reading whole regular files, as bytes, text or lines.
//!
//! No mmap: a file truncated by somebody else while mapped ends the process with SIGBUS.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use vespera_error::Result;

use crate::error::{failed, not_utf8, too_large};
use crate::open::open_for_reading;
use crate::place::Place;

/// The whole content of the file.
pub fn read_file<'a>(place: impl Into<Place<'a>>) -> Result<Vec<u8>> {
    let place = place.into();
    let (file, metadata) = open_for_reading(place)?;
    read_all(place.path(), &file, &metadata)
}

/// All that `file`, which stands at `path`, holds from here on.
pub(crate) fn read_all(path: &Path, file: &File, metadata: &Metadata) -> Result<Vec<u8>> {
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
pub fn read_file_string<'a>(place: impl Into<Place<'a>>) -> Result<String> {
    let place = place.into();
    let path = place.path();
    String::from_utf8(read_file(place)?)
        .map_err(|error| not_utf8(path, error.utf8_error().valid_up_to()))
}

/// The lines without their endings (`\n` or `\r\n`). A final newline opens no empty line.
pub fn read_file_lines<'a>(place: impl Into<Place<'a>>) -> Result<Vec<String>> {
    Ok(read_file_string(place)?
        .lines()
        .map(str::to_owned)
        .collect())
}
