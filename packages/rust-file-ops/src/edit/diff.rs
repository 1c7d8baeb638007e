//! Responsible for the unified diff of edits, made from the places that were replaced instead of
//! by comparing the texts: its cost is that of counting lines.

use std::fmt::Write;
use std::path::Path;

/// Unchanged lines shown around a change, as `diff -u` does.
const CONTEXT: usize = 3;
/// A longer diff is cut: nobody reads it, and one long line would make it twice as long as the file.
const LONGEST: usize = 1 << 20;

/// Where the current text comes from: stretches of the original, and new text between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Kept { from: usize, length: usize },
    New { length: usize },
}

impl Piece {
    fn length(self) -> usize {
        match self {
            Self::Kept { length, .. } | Self::New { length } => length,
        }
    }

    fn part(self, skip: usize, length: usize) -> Self {
        match self {
            Self::Kept { from, .. } => Self::Kept {
                from: from + skip,
                length,
            },
            Self::New { .. } => Self::New { length },
        }
    }
}

/// The current text as pieces of the original.
#[derive(Debug)]
pub(super) struct Pieces(Vec<Piece>);

/// Byte ranges, in whole lines, of the original and the edited text.
#[derive(Debug, Clone, Copy)]
struct Change {
    old: (usize, usize),
    new: (usize, usize),
}

impl Pieces {
    pub(super) fn whole(length: usize) -> Self {
        Self(vec![Piece::Kept { from: 0, length }])
    }

    /// In the current text, `old` bytes at each of `places` became `new` bytes.
    pub(super) fn replace(&mut self, places: &[usize], old: usize, new: usize) {
        let mut result = Vec::with_capacity(self.0.len() + places.len() * 2);
        let mut source = Cutter {
            pieces: &self.0,
            index: 0,
            used: 0,
        };
        let mut at = 0;
        for &place in places {
            source.take(place - at, |piece| result.push(piece));
            source.take(old, |_| {});
            result.push(Piece::New { length: new });
            at = place + old;
        }
        source.take(usize::MAX, |piece| result.push(piece));
        self.0 = result;
    }

    /// The diff, and whether it is all there.
    pub(super) fn unified(&self, path: &Path, old: &str, new: &str) -> (String, bool) {
        let changes = self.changes(old, new);
        let Some(first) = changes.first() else {
            return (String::new(), true);
        };
        let name = header_name(path);
        let mut text = Bounded::default();
        text.push(&format!("--- {name}\n+++ {name}\n"));
        let mut counted = Counted::default();
        let mut group = vec![*first];
        for &change in &changes[1..] {
            let last = group[group.len() - 1];
            let between = &old[last.old.1..change.old.0];
            if count_lines(between) <= 2 * CONTEXT {
                group.push(change);
            } else {
                hunk(&mut text, &mut counted, &group, old, new);
                group = vec![change];
            }
            if text.cut {
                break;
            }
        }
        hunk(&mut text, &mut counted, &group, old, new);
        (text.text, !text.cut)
    }

    /// What differs, widened to whole lines; neighbours that then touch are one.
    fn changes(&self, old: &str, new: &str) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        let (mut old_at, mut new_at) = (0, 0);
        let mut begun: Option<(usize, usize)> = None;
        for &piece in &self.0 {
            match piece {
                Piece::Kept { from, length } if length > 0 => {
                    if let Some(start) =
                        begun.take().or((from > old_at).then_some((old_at, new_at)))
                    {
                        add(&mut changes, (start.0, from), (start.1, new_at), old, new);
                    }
                    old_at = from + length;
                    new_at += length;
                }
                _ => {
                    begun.get_or_insert((old_at, new_at));
                    new_at += piece.length();
                }
            }
        }
        if let Some(start) = begun.or((old_at < old.len()).then_some((old_at, new_at))) {
            add(
                &mut changes,
                (start.0, old.len()),
                (start.1, new.len()),
                old,
                new,
            );
        }
        changes.retain(|change| old[change.old.0..change.old.1] != new[change.new.0..change.new.1]);
        changes
    }
}

/// The name as `git` and GNU `diff` write it, so that `patch` reads it back: in quotes where it has
/// what would end the line or the name, or a space at an end, which `patch` drops, and with a tab
/// behind it where a space could end it.
fn header_name(path: &Path) -> String {
    let mut quoted = String::new();
    let mut plain = true;
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            let letter = match character {
                '\x07' => 'a',
                '\x08' => 'b',
                '\t' => 't',
                '\n' => 'n',
                '\x0b' => 'v',
                '\x0c' => 'f',
                '\r' => 'r',
                '"' | '\\' => character,
                control if control.is_ascii_control() => {
                    plain = false;
                    let _ = write!(quoted, "\\{:03o}", u32::from(control));
                    continue;
                }
                other => {
                    quoted.push(other);
                    continue;
                }
            };
            plain = false;
            quoted.push('\\');
            quoted.push(letter);
        }
        for byte in chunk.invalid() {
            plain = false;
            let _ = write!(quoted, "\\{byte:03o}");
        }
    }
    let tab = if quoted.contains(' ') { "\t" } else { "" };
    if plain && quoted.trim_matches(' ') == quoted {
        quoted + tab
    } else {
        format!("\"{quoted}\"{tab}")
    }
}

fn add(
    changes: &mut Vec<Change>,
    (old_from, old_to): (usize, usize),
    (new_from, new_to): (usize, usize),
    old: &str,
    new: &str,
) {
    // The text before and behind is the same in both, so lines begin and end alike.
    let back = old_from - line_start(old, old_from);
    let ends_line =
        |text: &str, from: usize, to: usize| to > from && text.as_bytes()[to - 1] == b'\n';
    let whole = back == 0
        && (old_from == old_to || ends_line(old, old_from, old_to))
        && (new_from == new_to || ends_line(new, new_from, new_to));
    let forward = if whole {
        0
    } else {
        line_end(old, old_to) - old_to
    };
    let (old_end, new_end) = (old_to + forward, new_to + forward);
    match changes.last_mut() {
        // Both are on one line: before this change the texts are the same only back to the last.
        Some(last) if last.old.1 >= old_from - back => {
            last.old.1 = old_end;
            last.new.1 = new_end;
        }
        _ => changes.push(Change {
            old: (old_from - back, old_end),
            new: (new_from - back, new_end),
        }),
    }
}

/// Text up to the limit of its length, cut between two characters.
#[derive(Debug, Default)]
struct Bounded {
    text: String,
    cut: bool,
}

impl Bounded {
    fn push(&mut self, part: &str) {
        if self.cut {
            return;
        }
        let room = LONGEST - self.text.len();
        self.cut = part.len() > room;
        let mut fits = room.min(part.len());
        while !part.is_char_boundary(fits) {
            fits -= 1;
        }
        self.text.push_str(&part[..fits]);
    }
}

/// Lines counted so far, so that the whole text is counted once.
#[derive(Debug, Default)]
struct Counted {
    old: (usize, usize),
    new: (usize, usize),
}

fn hunk(text: &mut Bounded, counted: &mut Counted, group: &[Change], old: &str, new: &str) {
    let (first, last) = (group[0], group[group.len() - 1]);
    let before = up(old, first.old.0);
    let after = down(old, last.old.1);
    let old_range = (before, after);
    let new_range = (
        first.new.0 - (first.old.0 - before),
        last.new.1 + (after - last.old.1),
    );
    let old_header = header(&mut counted.old, old, old_range);
    let new_header = header(&mut counted.new, new, new_range);
    text.push(&format!("@@ -{old_header} +{new_header} @@\n"));
    let mut at = before;
    for change in group {
        lines(text, " ", &old[at..change.old.0]);
        lines(text, "-", &old[change.old.0..change.old.1]);
        lines(text, "+", &new[change.new.0..change.new.1]);
        at = change.old.1;
    }
    lines(text, " ", &old[at..after]);
}

fn header(counted: &mut (usize, usize), text: &str, (from, to): (usize, usize)) -> String {
    counted.1 += memchr::memchr_iter(b'\n', &text.as_bytes()[counted.0..from]).count();
    counted.0 = from;
    match count_lines(&text[from..to]) {
        0 => format!("{},0", counted.1),
        1 => format!("{}", counted.1 + 1),
        count => format!("{},{count}", counted.1 + 1),
    }
}

fn lines(text: &mut Bounded, sign: &str, part: &str) {
    for line in part.split_inclusive('\n') {
        if text.cut {
            return;
        }
        text.push(sign);
        text.push(line);
        if !line.ends_with('\n') {
            text.push("\n\\ No newline at end of file\n");
        }
    }
}

fn count_lines(part: &str) -> usize {
    let newlines = memchr::memchr_iter(b'\n', part.as_bytes()).count();
    newlines + usize::from(!part.is_empty() && !part.ends_with('\n'))
}

fn line_start(text: &str, at: usize) -> usize {
    memchr::memrchr(b'\n', &text.as_bytes()[..at]).map_or(0, |newline| newline + 1)
}

/// Behind the newline of the line that `at` stands in.
fn line_end(text: &str, at: usize) -> usize {
    memchr::memchr(b'\n', &text.as_bytes()[at..]).map_or(text.len(), |newline| at + newline + 1)
}

fn up(text: &str, from: usize) -> usize {
    (0..CONTEXT).fold(from, |at, _| line_start(text, at.saturating_sub(1)))
}

fn down(text: &str, from: usize) -> usize {
    (0..CONTEXT).fold(from, |at, _| line_end(text, at))
}

/// Hands out pieces from the start, cutting where a stretch ends inside one.
struct Cutter<'a> {
    pieces: &'a [Piece],
    index: usize,
    used: usize,
}

impl Cutter<'_> {
    fn take(&mut self, mut bytes: usize, mut give: impl FnMut(Piece)) {
        while bytes > 0 && self.index < self.pieces.len() {
            let piece = self.pieces[self.index];
            let left = piece.length() - self.used;
            let part = left.min(bytes);
            if part > 0 {
                give(piece.part(self.used, part));
            }
            bytes -= part;
            if part == left {
                self.index += 1;
                self.used = 0;
            } else {
                self.used += part;
            }
        }
    }
}
