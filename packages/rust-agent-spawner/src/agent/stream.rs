//! Cuts an agent's output into lines.
//!
//! Bytes are split on 0x0A only: U+2028 and U+0085 are ordinary characters inside JSON strings. A
//! line over the cap becomes [`Line::Oversize`] and is skipped; the stream lives on.

use memchr::memchr;

/// Longest line that is kept whole, in bytes: images and PDFs travel as single lines.
pub const LINE_CAP: usize = 64 * 1024 * 1024;

/// How much of an oversize line is kept to show what it was.
const HEAD: usize = 256;

/// One line of output, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Whole(&'a [u8]),
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

    /// Takes bytes as read and calls `each` for every line that they complete.
    pub fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            if self.partial.is_empty() && self.skipped == 0 && line.len() <= self.cap {
                each(Line::Whole(line));
            } else {
                self.grow(line);
                self.emit(&mut each);
            }
            bytes = &rest[1..];
        }
        self.grow(bytes);
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
            return;
        }
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
        if self.skipped == 0 {
            each(Line::Whole(&self.partial));
        } else {
            each(Line::Oversize {
                length: self.skipped,
                head: &self.partial,
            });
        }
        self.partial.clear();
        self.skipped = 0;
        // One huge line must not pin its size for the life of the agent.
        self.partial.shrink_to(64 * 1024);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(framer: &mut Framer, chunks: &[&[u8]]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut note = |line: Line<'_>| {
            seen.push(match line {
                Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Line::Oversize { length, head } => format!("oversize {length} {}", head.len()),
            });
        };
        for chunk in chunks {
            framer.push(chunk, &mut note);
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
        let long = vec![b'x'; 1000];
        for size in [1, 7, 300, 1000] {
            let mut chunks: Vec<&[u8]> = long.chunks(size).collect();
            chunks.push(b"\nnext\n");
            assert_eq!(
                lines(&mut Framer::with_cap(500), &chunks),
                ["oversize 1000 256", "next"],
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
}
