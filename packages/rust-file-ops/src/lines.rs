//! Responsible for a range of lines: the file is read up to the end of the range and no further,
//! and nothing before the range is kept.
//!
//! Only a newline ends a line, as in `read_file_lines`; the endings stay in the text.

use std::fs::File;
use std::io::{self, Read};

use vespera_error::Result;

use crate::error::{failed, over_limit};
use crate::open::open_for_reading;
use crate::place::Place;
use crate::text::{Encoding, HEAD};

/// Stays in the cache, and is even: the halves of a UTF-16 unit come together.
const BLOCK: usize = 1 << 16;

/// Lines of a file, and where they stand.
#[derive(Debug, PartialEq, Eq)]
pub struct LineRange {
    pub text: String,
    /// Bytes of the file in front of the text, and up to its end.
    pub bytes: (u64, u64),
    /// Whether the file ends with this text.
    pub end_of_file: bool,
    pub encoding: Encoding,
}

/// `count` lines, or all, from line `start` (counted from 1) on.
pub fn read_lines(
    place: Place<'_>,
    start: u64,
    count: Option<u64>,
    encoding: Option<Encoding>,
    max_bytes: Option<u64>,
) -> Result<LineRange> {
    let path = place.path();
    let (file, _) = open_for_reading(place)?;
    let mut source = Blocks::new(&file).map_err(failed("read", path))?;
    let encoding = Encoding::of(path, &source.block[..source.filled.min(HEAD)], encoding)?;
    // The mark belongs to no line.
    source.used = encoding.mark().len();
    source
        .pass_lines(start.saturating_sub(1), encoding, None)
        .map_err(failed("read", path))?;
    let from = source.position();
    let mut taken = Vec::new();
    let limit = max_bytes.map_or(u64::MAX, |limit| limit.saturating_add(1));
    let mut sink = Sink {
        taken: &mut taken,
        limit,
    };
    source
        .pass_lines(count.unwrap_or(u64::MAX), encoding, Some(&mut sink))
        .map_err(failed("read", path))?;
    if let Some(limit) = max_bytes
        && taken.len() as u64 > limit
    {
        return Err(over_limit(path, None, limit));
    }
    let to = from + taken.len() as u64;
    let end_of_file = source.at_end().map_err(failed("read", path))?;
    let text = encoding.decode(path, taken, usize::try_from(from).unwrap_or(usize::MAX))?;
    Ok(LineRange {
        text,
        bytes: (from, to),
        end_of_file,
        encoding,
    })
}

/// Where passed bytes go, and how many may.
struct Sink<'a> {
    taken: &'a mut Vec<u8>,
    limit: u64,
}

/// The file, block by block.
struct Blocks<'a> {
    file: &'a File,
    block: Vec<u8>,
    filled: usize,
    used: usize,
    /// Bytes of the blocks before this one.
    before: u64,
}

impl<'a> Blocks<'a> {
    fn new(file: &'a File) -> io::Result<Self> {
        let mut blocks = Self {
            file,
            block: vec![0; BLOCK],
            filled: 0,
            used: 0,
            before: 0,
        };
        blocks.fill()?;
        Ok(blocks)
    }

    fn position(&self) -> u64 {
        self.before + self.used as u64
    }

    /// The next block, full unless the file ends in it.
    fn fill(&mut self) -> io::Result<()> {
        self.before += self.filled as u64;
        self.filled = 0;
        self.used = 0;
        while self.filled < BLOCK {
            match self.file.read(&mut self.block[self.filled..]) {
                Ok(0) => break,
                Ok(count) => self.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn at_end(&mut self) -> io::Result<bool> {
        if self.used == self.filled {
            self.fill()?;
        }
        Ok(self.filled == 0)
    }

    /// Go behind the next `lines` newlines, or to the end of the file.
    fn pass_lines(
        &mut self,
        mut lines: u64,
        encoding: Encoding,
        mut sink: Option<&mut Sink<'_>>,
    ) -> io::Result<()> {
        while lines > 0 && !self.at_end()? {
            let block = &self.block[..self.filled];
            let mut end = self.filled;
            for found in memchr::memchr_iter(b'\n', &block[self.used..]) {
                let at = self.used + found;
                if encoding.is_newline(block, at) {
                    lines -= 1;
                    if lines == 0 {
                        end = at + 1 + usize::from(encoding == Encoding::Utf16Le);
                        break;
                    }
                }
            }
            if let Some(sink) = &mut sink {
                let room = sink.limit - sink.taken.len() as u64;
                let part = &block[self.used..end];
                let fits = usize::try_from(room).unwrap_or(usize::MAX).min(part.len());
                sink.taken.extend_from_slice(&part[..fits]);
                if fits < part.len() || sink.taken.len() as u64 == sink.limit {
                    return Ok(());
                }
            }
            self.used = end;
        }
        Ok(())
    }
}
