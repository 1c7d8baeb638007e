//! Responsible for reading whole regular files, as bytes, text or lines.
//!
//! No mmap: a file truncated by somebody else while mapped ends the process with SIGBUS.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use vespera_error::Result;

use crate::error::{failed, not_utf8, over_limit, too_large};
use crate::open::open_for_reading;
use crate::place::Place;
use crate::text::{Encoding, MARK, Newline, decoded};

/// Room for the first read of a file that tells no size.
const FIRST: usize = 1 << 13;

/// So many bytes fit into every machine: what there is of memory is not asked for.
const LARGE: u64 = 1 << 26;

/// The whole content of the file.
pub fn read_file<'a>(place: impl Into<Place<'a>>) -> Result<Vec<u8>> {
    read_file_up_to(place, None)
}

/// The whole content of the file, if it has no more than `limit` bytes.
pub fn read_file_up_to<'a>(place: impl Into<Place<'a>>, limit: Option<u64>) -> Result<Vec<u8>> {
    let place = place.into();
    let (file, metadata) = open_for_reading(place)?;
    read_limited(place.path(), &file, &metadata, limit)
}

/// All that `file`, which stands at `path`, holds from here on, if that is no more than `limit`.
pub(crate) fn read_limited(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    limit: Option<u64>,
) -> Result<Vec<u8>> {
    check_limit(path, metadata, limit)?;
    let mut content = Vec::new();
    // The size is a hint only: `/proc` says 0 and a log grows while it is read. A sparse file may
    // claim any size, and a failed reservation must be an error, not an abort. One byte more than
    // the size, so that a read that ends there has seen the end.
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    content
        .try_reserve_exact(size.saturating_add(1))
        .map_err(|_| too_large(path, metadata.len()))?;
    rest(path, file, &mut content, size, limit)?;
    Ok(content)
}

/// Memory and swap of the machine, in bytes. Where more is promised than there is
/// (`vm.overcommit_memory=1`) no reservation fails, and who fills it is killed.
#[cfg(target_os = "linux")]
fn all_memory() -> u64 {
    let told = rustix::system::sysinfo();
    (told.totalram as u64)
        .saturating_add(told.totalswap as u64)
        .saturating_mul(u64::from(told.mem_unit.max(1)))
}

#[cfg(not(target_os = "linux"))]
fn all_memory() -> u64 {
    u64::MAX
}

/// Refuse by the size alone what would be refused in the end.
pub(crate) fn check_limit(path: &Path, metadata: &Metadata, limit: Option<u64>) -> Result<()> {
    match limit {
        Some(limit) if metadata.len() > limit => Err(over_limit(path, Some(metadata.len()), limit)),
        _ if metadata.len() > LARGE && metadata.len() > all_memory() => {
            Err(too_large(path, metadata.len()))
        }
        _ => Ok(()),
    }
}

/// Add what is left of the file to `content`, whose file claims `size` bytes, 0 if that tells
/// nothing. A read of more than that which gives just that has seen the end: another, only to be
/// told so, is a third of what a small file costs.
pub(crate) fn rest(
    path: &Path,
    file: &File,
    content: &mut Vec<u8>,
    size: usize,
    limit: Option<u64>,
) -> Result<()> {
    loop {
        if content.len() == content.capacity() {
            // By doubling, so that a file of unknown size is read in linear time.
            content
                .try_reserve(content.len().max(FIRST))
                .map_err(|_| too_large(path, content.len() as u64))?;
        }
        match rustix::io::read(file, spare_capacity(content)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failed("read", path)(errno.into())),
        }
        if let Some(limit) = limit
            && content.len() as u64 > limit
        {
            return Err(over_limit(path, None, limit));
        }
        if size > 0 && content.len() == size && content.capacity() > size {
            return Ok(());
        }
    }
}

/// The whole content as text. A byte order mark stays, as does every line ending.
pub fn read_file_string<'a>(place: impl Into<Place<'a>>) -> Result<String> {
    read_file_string_up_to(place, None)
}

/// The same, if the file has no more than `limit` bytes.
pub fn read_file_string_up_to<'a>(
    place: impl Into<Place<'a>>,
    limit: Option<u64>,
) -> Result<String> {
    let place = place.into();
    let path = place.path();
    String::from_utf8(read_file_up_to(place, limit)?)
        .map_err(|error| not_utf8(path, error.utf8_error().valid_up_to()))
}

/// The lines without their endings (`\n` or `\r\n`). A final newline opens no empty line.
pub fn read_file_lines<'a>(place: impl Into<Place<'a>>) -> Result<Vec<String>> {
    read_file_lines_up_to(place, None)
}

/// The same, if the file has no more than `limit` bytes.
pub fn read_file_lines_up_to<'a>(
    place: impl Into<Place<'a>>,
    limit: Option<u64>,
) -> Result<Vec<String>> {
    Ok(read_file_string_up_to(place, limit)?
        .lines()
        .map(str::to_owned)
        .collect())
}

/// The text of a file and what a write needs to know to leave the rest as it is.
#[derive(Debug)]
pub struct TextFile {
    /// The text behind the mark, if there is one.
    content: String,
    pub encoding: Encoding,
    pub newline: Newline,
    pub size: u64,
    pub modified_ns: i128,
}

impl TextFile {
    /// The text, without the mark.
    pub fn text(&self) -> &str {
        if self.encoding.mark().is_empty() {
            &self.content
        } else {
            &self.content[MARK.len_utf8()..]
        }
    }
}

/// The text of the file, in the encoding asked for or the one its mark tells.
pub fn read_text(
    place: Place<'_>,
    encoding: Option<Encoding>,
    limit: Option<u64>,
) -> Result<TextFile> {
    let (file, metadata) = open_for_reading(place)?;
    let bytes = read_limited(place.path(), &file, &metadata, limit)?;
    let size = bytes.len() as u64;
    let (content, encoding) = decoded(place.path(), bytes, encoding)?;
    Ok(TextFile {
        newline: Newline::of(&content),
        content,
        encoding,
        size,
        modified_ns: modified_ns(&metadata),
    })
}

/// Time of the last change, in nanoseconds since 1970.
pub(crate) fn modified_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use vespera_error::ErrorCode;

    #[test]
    fn more_than_there_is_of_memory_is_refused_by_the_size_alone() {
        let path = std::env::temp_dir().join(format!("vespera-sparse-{}", std::process::id()));
        let file = File::create(&path).expect("a file");
        for (size, fits) in [(LARGE + 1, true), (all_memory() + 1, false)] {
            file.set_len(size).expect("a sparse file");
            let metadata = file.metadata().expect("its size");
            for limit in [None, Some(u64::MAX)] {
                match check_limit(&path, &metadata, limit) {
                    Ok(()) => assert!(fits),
                    Err(error) => {
                        assert!(!fits);
                        assert_eq!(error.code(), ErrorCode::FileTooLarge);
                    }
                }
            }
        }
        std::fs::remove_file(&path).expect("it is there");
    }
}
