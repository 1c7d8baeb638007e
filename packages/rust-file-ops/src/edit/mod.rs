//! Responsible for exact replacements in a text file: all of them or none.
//!
//! An edit names text that must stand in the file exactly once, unless all places are meant.
//! Several edits apply one after the other, each to the result of the one before. The file is
//! replaced atomically, and only if nobody has written it since it was read.

mod diff;
mod nearest;

use std::fmt::Write;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use memchr::memmem;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Value, json};
use vespera_error::{Error, ErrorCode, Result};

use crate::atomic::replace;
use crate::error::{changed, failed, not_utf8};
use crate::hash::sha256;
use crate::open::open_for_reading;
use crate::place::Place;
use crate::read::read_all;
use diff::Pieces;

/// An error about an ambiguous text shows no more places than this.
const MAX_SHOWN: usize = 100;

/// An edit takes milliseconds; a lock that is held for so long is somebody else's, and no edit.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// One replacement.
#[derive(Debug, Clone)]
pub struct Edit {
    pub old: String,
    pub new: String,
    pub replace_all: bool,
}

/// What the caller knows of the file; an edit of anything else would lose somebody's work.
#[derive(Debug, Clone)]
pub enum Expect {
    Anything,
    /// Time of the last change, in nanoseconds since 1970.
    ModifiedNs(i128),
    /// SHA-256 of the content, in hexadecimal digits.
    Sha256(String),
}

/// A place in the text as it was when its edit began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub byte: usize,
    pub character: usize,
    /// Counted from 1.
    pub line: usize,
}

/// What was, or would be, done.
#[derive(Debug)]
pub struct Outcome {
    /// The places of each edit.
    pub positions: Vec<Vec<Position>>,
    pub diff: String,
    /// Bytes, afterwards.
    pub size: usize,
    /// Of the file as it is now: the `expect` of the next edit.
    pub modified_ns: i128,
}

/// Make the edits. With `write` false the outcome is only told.
pub fn edit(place: Place<'_>, edits: &[Edit], expect: &Expect, write: bool) -> Result<Outcome> {
    let path = place.path();
    let (file, metadata) = if write {
        open_alone(place)?
    } else {
        open_for_reading(place)?
    };
    let content = read_all(path, &file, &metadata)?;
    check(path, expect, &metadata, &content)?;
    let original = String::from_utf8(content)
        .map_err(|error| not_utf8(path, error.utf8_error().valid_up_to()))?;
    let mut pieces = Pieces::whole(original.len());
    let mut current: Option<String> = None;
    let mut positions = Vec::with_capacity(edits.len());
    for (number, one) in edits.iter().enumerate() {
        let text = current.as_deref().unwrap_or(&original);
        let (new, places) = apply(text, one, &mut pieces)
            .map_err(|error| located(&error, path, number, edits.len()))?;
        current = Some(new);
        positions.push(places);
    }
    let edited = current.as_deref().unwrap_or(&original);
    let diff = pieces.unified(path, &original, edited);
    let size = edited.len();
    let now = if write {
        drop(pieces);
        let written = replace(place, edited.as_bytes(), Some(&metadata))?;
        modified_ns(&written)
    } else {
        modified_ns(&metadata)
    };
    Ok(Outcome {
        positions,
        diff,
        size,
        modified_ns: now,
    })
}

/// Open the file when no other edit is at work on it. The lock (`flock`) is on the file itself,
/// which an edit replaces: who waited for it must look whether it is still the one.
fn open_alone(place: Place<'_>) -> Result<(File, Metadata)> {
    let began = Instant::now();
    loop {
        let (file, metadata) = open_for_reading(place)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if began.elapsed() > PATIENCE => {
                return Err(failed("lock", place.path())(Errno::WOULDBLOCK.into()));
            }
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            // A file system without locks: the look before the rename must do.
            Err(_) => return Ok((file, metadata)),
            Ok(()) => {
                let now = place.metadata()?;
                if (now.dev(), now.ino()) == (metadata.dev(), metadata.ino()) {
                    // Taken again: it may have been written in place while we waited.
                    let metadata = file.metadata().map_err(failed("stat", place.path()))?;
                    return Ok((file, metadata));
                }
            }
        }
    }
}

fn modified_ns(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

fn check(path: &Path, expect: &Expect, metadata: &Metadata, content: &[u8]) -> Result<()> {
    match expect {
        Expect::ModifiedNs(wanted) if *wanted != modified_ns(metadata) => {
            Err(changed(path, "its time of change is not the expected one"))
        }
        Expect::Sha256(wanted) if *wanted != sha256(content) => {
            Err(changed(path, "its hash is not the expected one"))
        }
        _ => Ok(()),
    }
}

fn located(error: &Error, path: &Path, number: usize, of: usize) -> Error {
    let which = if of > 1 {
        format!("edit {} of {of}: ", number + 1)
    } else {
        String::new()
    };
    let message = format!("{}: {which}{}", path.display(), error.message());
    let mut whole = Error::new(error.code(), message)
        .with("path", path.to_string_lossy())
        .with("edit", number);
    for (name, value) in error.context() {
        whole = whole.with(name, value.clone());
    }
    whole
}

fn apply(text: &str, edit: &Edit, pieces: &mut Pieces) -> Result<(String, Vec<Position>)> {
    let mut old = edit.old.clone();
    let mut new = edit.new.clone();
    let mut found = find(text, &old);
    if found.is_empty() && text.contains("\r\n") && !old.contains('\r') && old.contains('\n') {
        // The file's line endings are kept: who asks with `\n` means the file's own.
        old = old.replace('\n', "\r\n");
        new = new.replace("\r\n", "\n").replace('\n', "\r\n");
        found = find(text, &old);
    }
    if found.is_empty() {
        return Err(absent(text, &edit.old));
    }
    let places = positions(text, &found);
    if places.len() > 1 && !edit.replace_all {
        return Err(ambiguous(&places));
    }
    pieces.replace(&found, old.len(), new.len());
    let grown = text.len() + found.len() * new.len();
    let mut result = String::with_capacity(grown - found.len() * old.len());
    let mut from = 0;
    for at in found {
        result.push_str(&text[from..at]);
        result.push_str(&new);
        from = at + old.len();
    }
    result.push_str(&text[from..]);
    Ok((result, places))
}

fn find(text: &str, old: &str) -> Vec<usize> {
    memmem::find_iter(text.as_bytes(), old.as_bytes()).collect()
}

/// How often `old` stands in the file, places that overlap counted once.
pub fn count(place: Place<'_>, old: &str) -> Result<usize> {
    let (file, metadata) = open_for_reading(place)?;
    let content = read_all(place.path(), &file, &metadata)?;
    Ok(memmem::find_iter(&content, old.as_bytes()).count())
}

fn positions(text: &str, found: &[usize]) -> Vec<Position> {
    let mut from = 0;
    let mut character = 0;
    let mut line = 1;
    let mut places = Vec::with_capacity(found.len());
    for &byte in found {
        let between = &text[from..byte];
        character += between.chars().count();
        line += memchr::memchr_iter(b'\n', between.as_bytes()).count();
        from = byte;
        places.push(Position {
            byte,
            character,
            line,
        });
    }
    places
}

fn absent(text: &str, old: &str) -> Error {
    let mut message = "the text to replace is not there".to_owned();
    let near = nearest::nearest(text, old);
    if let Some((line, shown)) = &near {
        let quoted = Value::from(shown.as_str());
        let _ = write!(message, "; the nearest is at line {line}: {quoted}");
    }
    Error::new(ErrorCode::StringNotFound, message)
        .with("nearest_line", near.as_ref().map(|(line, _)| *line))
        .with("nearest", near.map(|(_, shown)| shown))
}

fn ambiguous(places: &[Position]) -> Error {
    let lines: Vec<String> = places
        .iter()
        .take(MAX_SHOWN)
        .map(|place| place.line.to_string())
        .collect();
    let more = if places.len() > MAX_SHOWN {
        ", …"
    } else {
        ""
    };
    let message = format!(
        "the text to replace is there {} times, at lines {}{more}; \
         give more of what stands around it, or replace_all=True",
        places.len(),
        lines.join(", ")
    );
    let shown: Vec<_> = places
        .iter()
        .take(MAX_SHOWN)
        .map(|place| json!({"byte": place.byte, "character": place.character, "line": place.line}))
        .collect();
    Error::new(ErrorCode::AmbiguousMatch, message)
        .with("count", places.len())
        .with("places", shown)
}
