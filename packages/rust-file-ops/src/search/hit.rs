//! Responsible for what a search gives back: lines with the places in them, cut where a line is
//! too long to be handed to anybody.

use std::ops::Range;
use std::sync::Arc;

use crate::walk::stream::Weight;

/// More of a line is not shown.
const MAX_TEXT: usize = 64 << 10;
/// More places of one line, or one block of lines, are not told.
pub(crate) const MAX_SPANS: usize = 1000;

/// One match in the text of a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Bytes from the start of the file.
    pub byte: u64,
    pub byte_end: u64,
    /// Characters from the start of the text; a byte that is not UTF-8 counts as one.
    pub start: usize,
    pub end: usize,
}

/// A line with matches, or several lines that matches cross.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Number of the first line, from 1. Where only numbers are wanted: of lines that match.
    pub line: u64,
    /// The lines without the ending of the last.
    pub text: Vec<u8>,
    /// Whether the text is only a part of them.
    pub cut: bool,
    pub spans: Vec<Span>,
    pub before: Vec<Vec<u8>>,
    pub after: Vec<Vec<u8>>,
    /// Where only numbers are wanted: of matches.
    pub matches: u64,
}

/// Hits, each with the path of its file.
#[derive(Debug, Default)]
pub struct Hits {
    hits: Vec<(Option<Arc<[u8]>>, Hit)>,
    weight: usize,
}

impl Hits {
    pub(crate) fn push(&mut self, path: Option<Arc<[u8]>>, hit: Hit) {
        let lines = hit.before.iter().chain(&hit.after);
        self.weight += size_of::<Hit>()
            + hit.text.len()
            + hit.spans.len() * size_of::<Span>()
            + lines.map(Vec::len).sum::<usize>();
        self.hits.push((path, hit));
    }

    pub fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Option<&[u8]>, &Hit)> {
        self.hits.iter().map(|(path, hit)| (path.as_deref(), hit))
    }
}

impl Weight for Hits {
    fn weight(&self) -> usize {
        self.weight
    }
}

impl Hit {
    /// A hit in `block`, which starts at byte `offset` of the file; `found` are the places in it.
    pub(crate) fn new(line: u64, block: &[u8], offset: u64, found: &[Range<usize>]) -> Self {
        let shown = window(block, found.first().map_or(0, |first| first.start));
        let text = &block[shown.clone()];
        let (mut characters, mut counted) = (0, 0);
        let mut position = |byte: usize| {
            let byte = byte.clamp(shown.start, shown.end) - shown.start;
            if byte < counted {
                return length(&text[..byte]);
            }
            characters += length(&text[counted..byte]);
            counted = byte;
            characters
        };
        let spans = found
            .iter()
            .filter(|place| place.start <= shown.end)
            .map(|place| Span {
                byte: offset + place.start as u64,
                byte_end: offset + place.end as u64,
                start: position(place.start),
                end: position(place.end),
            })
            .collect();
        Self {
            line,
            text: text.to_vec(),
            cut: shown.len() < block.len(),
            spans,
            before: Vec::new(),
            after: Vec::new(),
            matches: 0,
        }
    }

    /// Numbers alone.
    pub(crate) fn count(lines: u64, matches: u64) -> Self {
        let mut hit = Self::new(lines, b"", 0, &[]);
        hit.matches = matches;
        hit
    }
}

/// A line of the surroundings, as much of it as is shown.
pub(crate) fn shown(line: &[u8]) -> Vec<u8> {
    line[window(line, 0)].to_vec()
}

/// The part of `block` that is shown: all, or so much around `place`, no character cut in two.
fn window(block: &[u8], place: usize) -> Range<usize> {
    if block.len() <= MAX_TEXT {
        return 0..block.len();
    }
    let mut start = place.saturating_sub(MAX_TEXT / 4);
    let mut end = block.len().min(start + MAX_TEXT);
    for _ in 0..3 {
        if start > 0 && start < end && continues(block[start]) {
            start += 1;
        }
        if end < block.len() && end > start && continues(block[end]) {
            end -= 1;
        }
    }
    start..end
}

fn continues(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// Characters, each byte that is not UTF-8 counted as one.
fn length(bytes: &[u8]) -> usize {
    if bytes.is_ascii() {
        return bytes.len();
    }
    bytes
        .utf8_chunks()
        .map(|chunk| chunk.valid().chars().count() + chunk.invalid().len())
        .sum()
}

/// The line without its ending, `\n` or `\r\n`.
pub(crate) fn stripped(line: &[u8]) -> &[u8] {
    match line.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => line,
    }
}
