//! Cuts an agent's output into lines.
//!
//! Bytes are split on 0x0A only: U+2028 and U+0085 are ordinary characters inside JSON strings. A
//! line over the cap becomes [`Line::Oversize`] and is skipped; the stream lives on.

use super::blocks;
use bytes::{Buf, Bytes};
use memchr::memchr;

/// Longest line that is kept whole, in bytes: images and PDFs travel as single lines.
pub const LINE_CAP: usize = 64 * 1024 * 1024;

/// How much of an oversize line is kept to show what it was.
pub const HEAD: usize = 1024;

/// An unfinished line of this size is read on in place: it was copied once, and that is enough.
const LONG: usize = 16 * 1024;

/// Most bytes that one read appends.
pub const READ: usize = 64 * 1024;

/// One line of output, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Whole(Bytes),
    Oversize { length: usize, head: &'a [u8] },
}

/// Collects bytes until a line is whole.
#[derive(Debug)]
pub struct Framer {
    partial: Vec<u8>,
    skipped: usize,
    cap: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self::with_cap(LINE_CAP)
    }
}

impl Framer {
    /// A framer with another cap than [`LINE_CAP`].
    pub fn with_cap(cap: usize) -> Self {
        Self {
            partial: Vec::new(),
            skipped: 0,
            cap,
        }
    }

    /// Takes bytes as read and calls `each` for every line that they complete: a slice of them
    /// where the line stands in them whole.
    pub fn push(&mut self, mut bytes: Bytes, mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr(b'\n', &bytes) {
            let line = bytes.split_to(end);
            bytes.advance(1);
            if self.partial.is_empty() && self.skipped == 0 && line.len() <= self.cap {
                each(Line::Whole(line));
            } else {
                self.grow(&line);
                self.emit(&mut each);
            }
        }
        self.grow(&bytes);
    }

    /// Where a long unfinished line wants its next bytes appended; call [`Framer::appended`] then.
    pub fn long(&mut self) -> Option<&mut Vec<u8>> {
        (self.skipped == 0 && self.partial.len() >= LONG).then_some(&mut self.partial)
    }

    /// So many bytes were appended to what [`Framer::long`] gave.
    pub fn appended(&mut self, count: usize, mut each: impl FnMut(Line<'_>)) {
        let old = self.partial.len().saturating_sub(count);
        let end = memchr(b'\n', &self.partial[old..]);
        let rest = end.map(|end| self.rest(old + end + 1));
        self.partial
            .truncate(end.map_or(usize::MAX, |end| old + end));
        if self.partial.len() > self.cap {
            self.skip(&[]);
        }
        if let Some(rest) = rest {
            self.emit(&mut each);
            if rest.len() >= LONG && rest.len() <= self.cap && memchr(b'\n', &rest).is_none() {
                self.partial = rest;
            } else {
                self.push(rest.into(), each);
            }
        }
    }

    /// A copy of what comes after a line, with room for more: it is most likely the beginning of
    /// another long line.
    fn rest(&self, start: usize) -> Vec<u8> {
        let rest = &self.partial[start..];
        let mut copy = if rest.len() < LONG || rest.len() > READ {
            Vec::with_capacity(rest.len())
        } else {
            blocks::take()
        };
        copy.extend_from_slice(rest);
        copy
    }

    /// The stream ended: what is left is a line too.
    pub fn finish(&mut self, mut each: impl FnMut(Line<'_>)) {
        if !self.partial.is_empty() {
            self.emit(&mut each);
        }
    }

    fn grow(&mut self, bytes: &[u8]) {
        if self.skipped == 0 && self.partial.len() + bytes.len() <= self.cap {
            self.partial.extend_from_slice(bytes);
        } else {
            self.skip(bytes);
        }
    }

    /// The line is over the cap: only its head and its length are kept.
    fn skip(&mut self, bytes: &[u8]) {
        if self.skipped == 0 {
            let missing = HEAD.saturating_sub(self.partial.len()).min(bytes.len());
            self.skipped = self.partial.len() + bytes.len();
            self.partial.extend_from_slice(&bytes[..missing]);
            self.partial.truncate(HEAD);
            self.partial.shrink_to(HEAD);
        } else {
            self.skipped += bytes.len();
        }
    }

    fn emit(&mut self, each: &mut impl FnMut(Line<'_>)) {
        if self.skipped > 0 {
            each(Line::Oversize {
                length: self.skipped,
                head: &self.partial,
            });
            self.partial.clear();
        } else if self.partial.len() >= LONG && self.partial.capacity() <= 2 * self.partial.len() {
            each(Line::Whole(blocks::freeze(std::mem::take(
                &mut self.partial,
            ))));
        } else {
            each(Line::Whole(Bytes::copy_from_slice(&self.partial)));
            self.partial.clear();
        }
        self.skipped = 0;
        // One huge line must not pin its size for the life of the agent.
        if self.partial.capacity() > READ {
            blocks::give_back(std::mem::take(&mut self.partial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(framer: &mut Framer, chunks: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut note = |line: Line<'_>| {
            seen.push(match line {
                Line::Whole(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Line::Oversize { length, head } => format!("oversize {length} {}", head.len()),
            });
        };
        for chunk in chunks {
            framer.push(Bytes::copy_from_slice(chunk), &mut note);
        }
        framer.finish(&mut note);
        seen
    }

    #[test]
    fn any_split_of_the_bytes_gives_the_same_lines() {
        let text = "{\"a\":\"\u{2028}\u{85}é\"}\n\n{\"b\":1}\ntail".as_bytes();
        let whole = lines(&mut Framer::default(), &[text]);
        assert_eq!(
            whole,
            ["{\"a\":\"\u{2028}\u{85}é\"}", "", "{\"b\":1}", "tail"]
        );
        for cut in 0..=text.len() {
            assert_eq!(
                lines(&mut Framer::default(), &[&text[..cut], &text[cut..]]),
                whole,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_line_over_the_cap_is_told_and_the_stream_lives_on() {
        let long = vec![b'x'; 10_000];
        for size in [1, 7, 3_000, 10_000] {
            let mut chunks: Vec<&[u8]> = long.chunks(size).collect();
            chunks.push(b"\nnext\n");
            assert_eq!(
                lines(&mut Framer::with_cap(5_000), &chunks),
                ["oversize 10000 1024", "next"],
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn a_line_of_exactly_the_cap_is_whole() {
        assert_eq!(
            lines(&mut Framer::with_cap(4), &[b"abcd\nabcde\n"]),
            ["abcd", "oversize 5 5"]
        );
    }

    #[test]
    fn a_long_line_that_is_read_in_place_is_the_same_line() {
        let text: Vec<u8> = (0..200_000_u32)
            .map(|n| {
                if n % 70_001 == 70_000 {
                    b'\n'
                } else {
                    b'a' + (n % 26) as u8
                }
            })
            .collect();
        let whole = lines(&mut Framer::default(), &[&text]);
        for size in [1_000, 20_000, 65_536] {
            let mut framer = Framer::default();
            let mut seen = Vec::new();
            let mut note = |line: Line<'_>| match line {
                Line::Whole(bytes) => seen.push(String::from_utf8_lossy(&bytes).into_owned()),
                Line::Oversize { .. } => panic!("no line is over the cap"),
            };
            for chunk in text.chunks(size) {
                if let Some(long) = framer.long() {
                    long.extend_from_slice(chunk);
                    framer.appended(chunk.len(), &mut note);
                } else {
                    framer.push(Bytes::copy_from_slice(chunk), &mut note);
                }
            }
            framer.finish(&mut note);
            assert_eq!(seen, whole, "chunks of {size}");
        }
    }

    #[test]
    fn a_long_line_that_is_read_in_place_keeps_to_the_cap() {
        let mut framer = Framer::with_cap(40_000);
        framer.push(Bytes::from(vec![b'x'; 30_000]), |_| panic!("no line yet"));
        framer
            .long()
            .expect("a long line")
            .extend(vec![b'y'; 20_000]);
        framer.appended(20_000, |_| panic!("no line yet"));
        assert!(framer.long().is_none());
        let mut seen = Vec::new();
        framer.push(Bytes::from_static(b"z\nnext\n"), |line| {
            seen.push(match line {
                Line::Whole(bytes) => bytes.len(),
                Line::Oversize { length, .. } => length,
            });
        });
        assert_eq!(seen, [50_001, 4]);
    }
}
