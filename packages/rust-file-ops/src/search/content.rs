//! Responsible for reading what is searched: regular files only, nothing that blocks, nothing that
//! looks binary unless it is wanted, and never mapped into memory, as a file may be cut meanwhile.
//!
//! Most files fit in one buffer, which is kept from file to file: they cost an open, a status, a
//! read and a close.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use grep_searcher::Searcher;
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, Result};

use super::collect::Collector;
use super::{Matchers, lines, multi};

/// Longer lines, and larger files where matches may cross lines, are not searched.
pub(crate) const MAX_WHOLE: usize = 64 << 20;
/// Files up to this size are searched in one piece.
const BUFFER: usize = 128 << 10;
/// A NUL in so many first bytes makes a file binary, as for git.
const LOOKED_AT: usize = 8000;
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The buffer of one thread.
#[derive(Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
}

/// What one file holds: its first bytes, and the rest if there is more.
pub(crate) struct Content<'a> {
    first: &'a [u8],
    rest: Option<File>,
}

impl Reader {
    /// Begin to read the file; `None` if it is not to be searched.
    pub(crate) fn open(
        &mut self,
        file: OwnedFd,
        max_size: u64,
        binary: bool,
    ) -> Result<Option<Content<'_>>> {
        let stat = fstat(&file)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || size > max_size {
            return Ok(None);
        }
        self.buffer.resize(BUFFER, 0);
        let mut length = 0;
        let mut whole = false;
        while length < BUFFER && !whole {
            let read = match rustix::io::read(&file, &mut self.buffer[length..]) {
                Err(Errno::INTR) => continue,
                outcome => outcome?,
            };
            length += read;
            // What the status said is enough, unless it said nothing, as in /proc.
            whole = read == 0 || size > 0 && length as u64 == size;
        }
        let first = &self.buffer[..length];
        let looked_at = &first[..length.min(LOOKED_AT)];
        if !binary && memchr::memchr(0, looked_at).is_some() {
            return Ok(None);
        }
        let rest = (!whole).then(|| file.into());
        Ok(Some(Content { first, rest }))
    }
}

impl Content<'_> {
    pub(crate) fn search(
        self,
        searcher: &mut Searcher,
        matchers: &Matchers,
        collector: &mut Collector<'_>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let (first, base) = without_mark(self.first);
        collector.set_base(base);
        let Some(rest) = self.rest else {
            if matchers.query.multiline {
                multi::search(matchers, first, collector);
                return Ok(());
            }
            return lines::search_slice(searcher, matchers, first, collector);
        };
        let mut reader = first.chain(Watched { file: rest, stop });
        if !matchers.query.multiline {
            return lines::search_reader(searcher, matchers, reader, collector);
        }
        let mut whole = Vec::new();
        reader
            .by_ref()
            .take(MAX_WHOLE as u64 + 1)
            .read_to_end(&mut whole)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if whole.len() > MAX_WHOLE {
            return Err(Errno::FBIG);
        }
        multi::search(matchers, &whole, collector);
        Ok(())
    }
}

/// The text without a byte order mark, and how many bytes that was.
pub(crate) fn without_mark(text: &[u8]) -> (&[u8], u64) {
    match text.strip_prefix(MARK) {
        Some(rest) => (rest, MARK.len() as u64),
        None => (text, 0),
    }
}

/// A file that seems to end when nothing more is wanted.
struct Watched<'a> {
    file: File,
    stop: &'a AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.file.read(buffer)
    }
}
