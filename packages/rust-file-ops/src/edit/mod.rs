//! Responsible for exact replacements in a text file: all of them or none.
//!
//! An edit names text that must stand in the file exactly once, unless all places are meant.
//! Several edits apply one after the other, each to the result of the one before. The file is
//! replaced atomically, and only if nobody has written it since it was read.

mod diff;
mod nearest;

use std::fmt::Write;
use std::fs::File;
use std::path::Path;

use memchr::memmem;
use serde_json::{Value, json};
use vespera_error::{Error, ErrorCode, Result};

use crate::atomic::replace;
use crate::open::open_for_reading;
use crate::place::Place;
use crate::read::{modified_ns, read_limited};
use crate::text::{Encoding, decoded};
use crate::turns::{Expect, open_alone};
use diff::Pieces;

/// An error about an ambiguous text shows no more places than this.
const MAX_SHOWN: usize = 100;

/// One replacement.
#[derive(Debug, Clone)]
pub struct Edit {
    pub old: String,
    pub new: String,
    pub replace_all: bool,
}

/// A place in the text as it was when its edit began; a byte order mark counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// In the encoding of the file.
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
    /// Whether the diff is all there: a very long one is cut.
    pub diff_complete: bool,
    /// Bytes, afterwards.
    pub size: usize,
    /// Of the file as it is now: the `expect` of the next edit.
    pub modified_ns: i128,
}

/// Make the edits. With `write` false the outcome is only told. Without an `encoding` it is the one
/// that the file's mark tells; the file keeps it. One of more than `limit` bytes is refused.
pub fn edit(
    place: Place<'_>,
    edits: &[Edit],
    expect: &Expect,
    encoding: Option<Encoding>,
    limit: Option<u64>,
    write: bool,
) -> Result<Outcome> {
    let path = place.path();
    let (locked, opened);
    let (file, metadata): (&File, _) = if write {
        locked = open_alone(place)?;
        (&locked.0, &locked.1)
    } else {
        opened = open_for_reading(place)?;
        (&opened.0, &opened.1)
    };
    let content = read_limited(path, file, metadata, limit)?;
    expect.check(path, metadata, &content)?;
    let (original, encoding) = decoded(path, content, encoding)?;
    let edited = edit_text(path, &original, edits, encoding)?;
    drop(original);
    let bytes = encoding.encode(path, &edited.text)?;
    let now = if write {
        modified_ns(&replace(place, &bytes, Some(metadata))?)
    } else {
        modified_ns(metadata)
    };
    Ok(Outcome {
        positions: edited.positions,
        diff: edited.diff,
        diff_complete: edited.diff_complete,
        size: bytes.len(),
        modified_ns: now,
    })
}

/// A text with its edits made.
#[derive(Debug)]
pub struct Edited {
    pub text: String,
    /// The places of each edit.
    pub positions: Vec<Vec<Position>>,
    pub diff: String,
    pub diff_complete: bool,
}

/// Make the edits in a text. `path` is only named; bytes are counted as `encoding` has them.
pub fn edit_text(
    path: &Path,
    original: &str,
    edits: &[Edit],
    encoding: Encoding,
) -> Result<Edited> {
    let mut pieces = Pieces::whole(original.len());
    let mut current: Option<String> = None;
    let mut positions = Vec::with_capacity(edits.len());
    for (number, one) in edits.iter().enumerate() {
        let text = current.as_deref().unwrap_or(original);
        let planned = plan(text, one, encoding)
            .map_err(|error| located(&error, path, number, edits.len()))?;
        pieces.replace(&planned.found, planned.old.len(), planned.new.len());
        current = Some(match current {
            None => planned.made(original, growth(&edits[number + 1..])),
            Some(text) => planned.made_in(text),
        });
        positions.push(planned.positions);
    }
    let text = current.unwrap_or_else(|| original.to_owned());
    let (diff, diff_complete) = pieces.unified(path, original, &text);
    Ok(Edited {
        text,
        positions,
        diff,
        diff_complete,
    })
}

fn located(error: &Error, path: &Path, number: usize, of: usize) -> Error {
    let which = if of > 1 {
        format!("edit {} of {of}: ", number + 1)
    } else {
        String::new()
    };
    let message = format!("{}: {which}{}", path.display(), error.message());
    let mut whole = Error::new(error.code(), message)
        .with_path("path", path)
        .with("edit", number);
    for (name, value) in error.context() {
        whole = whole.with(name, value.clone());
    }
    whole
}

/// Bytes that these edits add, if each is made in one place. `\r\n` may come for `\n`.
fn growth(edits: &[Edit]) -> usize {
    let added = |edit: &Edit| (edit.new.len() * 2).saturating_sub(edit.old.len());
    edits.iter().map(added).sum()
}

/// An edit that can be made: what is replaced by what, and where.
struct Planned {
    old: String,
    new: String,
    found: Vec<usize>,
    positions: Vec<Position>,
}

fn plan(text: &str, edit: &Edit, encoding: Encoding) -> Result<Planned> {
    let mut old = edit.old.clone();
    let mut new = edit.new.clone();
    let start = encoding.start_of_text(text.as_bytes());
    let body = &text.as_bytes()[start..];
    let mut found: Vec<usize> = find(body, old.as_bytes()).collect();
    if found.is_empty() && may_mean_crlf(body, &old) {
        old = with_crlf(&old);
        new = with_crlf(&new);
        found = find(body, old.as_bytes()).collect();
    } else if !old.contains('\n') && has_lone_newline(&new) && all_crlf(text) {
        new = with_crlf(&new);
    }
    if found.is_empty() {
        return Err(absent(&text[start..], &edit.old));
    }
    for at in &mut found {
        *at += start;
    }
    let positions = positions(text, &found, encoding);
    if positions.len() > 1 && !edit.replace_all {
        return Err(ambiguous(&positions));
    }
    Ok(Planned {
        old,
        new,
        found,
        positions,
    })
}

impl Planned {
    /// The new text, with `room` to grow: growing it later may move the whole of it.
    fn made(&self, text: &str, room: usize) -> String {
        let added = self.found.len() * self.new.len() + room;
        let mut result =
            String::with_capacity(text.len() - self.found.len() * self.old.len() + added);
        let mut from = 0;
        for &at in &self.found {
            result.push_str(&text[from..at]);
            result.push_str(&self.new);
            from = at + self.old.len();
        }
        result.push_str(&text[from..]);
        result
    }

    /// The same in the text's own memory: beside the original there is never more than one other.
    fn made_in(&self, mut text: String) -> String {
        if let [only] = self.found[..] {
            text.replace_range(only..only + self.old.len(), &self.new);
            return text;
        }
        let mut bytes = text.into_bytes();
        if self.new.len() > self.old.len() {
            self.widen(&mut bytes);
        } else {
            self.narrow(&mut bytes);
        }
        // Text for text: checking that costs less than the copy that is saved.
        String::from_utf8(bytes).expect("whole characters were replaced by whole characters")
    }

    /// From the start on: what is moved comes to stand further ahead.
    fn narrow(&self, bytes: &mut Vec<u8>) {
        let (mut from, mut to) = (0, 0);
        for &at in &self.found {
            bytes.copy_within(from..at, to);
            to += at - from;
            bytes[to..to + self.new.len()].copy_from_slice(self.new.as_bytes());
            to += self.new.len();
            from = at + self.old.len();
        }
        let rest = bytes.len() - from;
        bytes.copy_within(from.., to);
        bytes.truncate(to + rest);
    }

    /// From the end on: what is moved comes to stand further behind.
    fn widen(&self, bytes: &mut Vec<u8>) {
        let mut from = bytes.len();
        let mut to = from + self.found.len() * (self.new.len() - self.old.len());
        bytes.resize(to, 0);
        for &at in self.found.iter().rev() {
            let behind = at + self.old.len();
            to -= from - behind;
            bytes.copy_within(behind..from, to);
            to -= self.new.len();
            bytes[to..to + self.new.len()].copy_from_slice(self.new.as_bytes());
            from = at;
        }
    }
}

fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\n', "\r\n")
}

fn has_lone_newline(text: &str) -> bool {
    lone_newlines(text).next().is_some()
}

/// Whether there are lines and each of them ends with `\r\n`.
fn all_crlf(text: &str) -> bool {
    text.contains("\r\n") && !has_lone_newline(text)
}

fn lone_newlines(text: &str) -> impl Iterator<Item = usize> {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'\n', bytes).filter(move |&at| at == 0 || bytes[at - 1] != b'\r')
}

/// The file's line endings are kept: who asks with `\n` for what is not there means the file's own.
fn may_mean_crlf(text: &[u8], old: &str) -> bool {
    old.contains('\n') && !old.contains('\r') && memmem::find(text, b"\r\n").is_some()
}

/// Where `old` stands, from the start on, places that overlap told once. One with `\n` alone does not
/// begin inside a `\r\n`: replacing it there would leave half a line ending.
fn find<'a>(text: &'a [u8], old: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let finder = memmem::Finder::new(old);
    let lone = old.first() == Some(&b'\n') && !old.contains(&b'\r');
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + finder.find(&text[from..])?;
            if lone && at > 0 && text[at - 1] == b'\r' {
                from = at + 1;
                continue;
            }
            from = at + old.len();
            return Some(at);
        }
    })
}

/// How many places an edit of `old` would replace, places that overlap counted once.
fn count_in(text: &[u8], old: &str) -> usize {
    let count = find(text, old.as_bytes()).count();
    if count == 0 && may_mean_crlf(text, old) {
        return find(text, with_crlf(old).as_bytes()).count();
    }
    count
}

/// How often `old` stands in the file, as an edit of it would see it. One of more than `limit`
/// bytes is refused.
pub fn count(
    place: Place<'_>,
    old: &str,
    encoding: Option<Encoding>,
    limit: Option<u64>,
) -> Result<usize> {
    let (file, metadata) = open_for_reading(place)?;
    let content = read_limited(place.path(), &file, &metadata, limit)?;
    let encoding = match encoding {
        // Any bytes will do for UTF-8: what is no text is not there.
        None => Encoding::of(place.path(), &content, None)?,
        Some(encoding) => encoding,
    };
    if matches!(encoding, Encoding::Utf8 | Encoding::Utf8Sig) {
        let start = encoding.start_of_text(&content);
        return Ok(count_in(&content[start..], old));
    }
    let (text, _) = decoded(place.path(), content, Some(encoding))?;
    let start = encoding.start_of_text(text.as_bytes());
    Ok(count_in(&text.as_bytes()[start..], old))
}

fn positions(text: &str, found: &[usize], encoding: Encoding) -> Vec<Position> {
    let utf8 = matches!(encoding, Encoding::Utf8 | Encoding::Utf8Sig);
    let mut from = 0;
    let mut place = Position {
        byte: 0,
        character: 0,
        line: 1,
    };
    let mut places = Vec::with_capacity(found.len());
    for &at in found {
        let between = &text[from..at];
        place.character += between.chars().count();
        place.line += memchr::memchr_iter(b'\n', between.as_bytes()).count();
        place.byte += if utf8 {
            between.len()
        } else {
            between.chars().map(|one| encoding.width(one)).sum()
        };
        from = at;
        places.push(place);
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
