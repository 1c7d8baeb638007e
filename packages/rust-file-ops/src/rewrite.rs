//! Responsible for new content in place of a whole file: atomically, over the expected file only,
//! and, for text, in the encoding and with the line endings that the file has.

use std::fs::File;
use std::io::{self, Read};

use vespera_error::Result;

use crate::atomic::replace;
use crate::error::failed;
use crate::open::{kind_is, open_for_reading};
use crate::place::Place;
use crate::read::modified_ns;
use crate::text::{Encoding, HEAD, MARK};
use crate::turns::{Expect, open_alone};

/// Line endings are told from so many bytes: enough to know a file by, and a bound.
const LOOKED_AT: u64 = 1 << 16;

/// The line endings that text is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endings {
    AsGiven,
    /// `\n` becomes `\r\n` where that is what the file has, unless the text has `\r` itself.
    Kept,
    Lf,
    CrLf,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    pub size: usize,
    pub modified_ns: i128,
    pub encoding: Encoding,
}

/// Replace the content atomically, if the file is the expected one.
pub fn replace_file(place: Place<'_>, content: &[u8], expect: &Expect) -> Result<()> {
    replace_expected(place, content, expect).map(drop)
}

/// Replace the text atomically. Without an `encoding` it is the file's, or UTF-8 for a new one.
pub fn write_text(
    place: Place<'_>,
    text: &str,
    encoding: Option<Encoding>,
    endings: Endings,
    expect: &Expect,
) -> Result<Written> {
    let path = place.path();
    let keeps = endings == Endings::Kept && text.contains('\n') && !text.contains('\r');
    let start = if encoding.is_none() || keeps {
        start_of(place, if keeps { LOOKED_AT } else { HEAD as u64 })?
    } else {
        Vec::new()
    };
    let encoding = match encoding {
        Some(asked) => asked,
        None => Encoding::of(path, &start, None)?,
    };
    let mut whole = match endings {
        Endings::Kept if keeps && ends_with_crlf(&start, encoding) => text.replace('\n', "\r\n"),
        Endings::CrLf => text.replace("\r\n", "\n").replace('\n', "\r\n"),
        Endings::Lf => text.replace("\r\n", "\n"),
        Endings::Kept | Endings::AsGiven => text.to_owned(),
    };
    if !encoding.mark().is_empty() && !whole.starts_with(MARK) {
        whole.insert(0, MARK);
    }
    let content = encoding.encode(path, &whole)?;
    let now = replace_expected(place, &content, expect)?;
    Ok(Written {
        size: content.len(),
        modified_ns: now,
        // What begins with the mark has one, whoever put it there.
        encoding: match encoding {
            Encoding::Utf8 if whole.starts_with(MARK) => Encoding::Utf8Sig,
            told => told,
        },
    })
}

/// Gives the time of change of the new file.
fn replace_expected(place: Place<'_>, content: &[u8], expect: &Expect) -> Result<i128> {
    let new = match expect {
        Expect::Anything => replace(place, content, None)?,
        Expect::ModifiedNs(_) | Expect::Sha256(_) => {
            let (file, metadata) = open_alone(place)?;
            expect.check_file(place.path(), &metadata, &file)?;
            replace(place, content, Some(&metadata))?
        }
    };
    Ok(modified_ns(&new))
}

/// The first bytes of the file; none if there is no file yet.
fn start_of(place: Place<'_>, most: u64) -> Result<Vec<u8>> {
    let file = match open_for_reading(place) {
        Ok((file, _)) => file,
        Err(error) if kind_is(&error, io::ErrorKind::NotFound) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    read_start(&file, most).map_err(failed("read", place.path()))
}

fn read_start(file: &File, most: u64) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(most).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether there are lines and all of them end with `\r\n`.
fn ends_with_crlf(start: &[u8], encoding: Encoding) -> bool {
    let return_before = |at: usize| match encoding {
        Encoding::Utf16Le => at >= 2 && start[at - 2..at] == [b'\r', 0],
        Encoding::Utf16Be => at >= 3 && start[at - 3..at - 1] == [0, b'\r'],
        _ => at >= 1 && start[at - 1] == b'\r',
    };
    let mut newlines = memchr::memchr_iter(b'\n', start)
        .filter(|&at| encoding.is_newline(start, at))
        .peekable();
    newlines.peek().is_some() && newlines.all(return_before)
}
