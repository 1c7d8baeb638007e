//! Responsible for making hits of the lines that go by: places in the line, lines around it, and no
//! more of them than wanted.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};

use grep_matcher::Matcher;
use grep_regex::RegexMatcher;

use super::Matchers;
use super::hit::{Hit, MAX_SPANS, shown, stripped};

/// The hits of one file, in the making.
pub(crate) struct Collector<'a> {
    matchers: &'a Matchers,
    emit: &'a mut dyn FnMut(Hit) -> ControlFlow<()>,
    /// Bytes of the file in front of what is searched (a byte order mark).
    base: u64,
    /// The lines just gone by, with their numbers.
    recent: VecDeque<(u64, Vec<u8>)>,
    /// Hits that still want lines after them, with the number of their last line.
    pending: VecDeque<(u64, Hit)>,
    /// How many more hits are wanted.
    left: usize,
    spans: Vec<Range<usize>>,
    lines: u64,
    matches: u64,
    ended: bool,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(
        matchers: &'a Matchers,
        emit: &'a mut dyn FnMut(Hit) -> ControlFlow<()>,
    ) -> Self {
        Self {
            matchers,
            emit,
            base: 0,
            recent: VecDeque::new(),
            pending: VecDeque::new(),
            left: matchers.query.max_per_file.unwrap_or(usize::MAX),
            spans: Vec::new(),
            lines: 0,
            matches: 0,
            ended: false,
        }
    }

    pub(crate) fn set_base(&mut self, base: u64) {
        self.base = base;
    }

    /// How many more hits are wanted.
    pub(crate) fn left(&self) -> usize {
        if self.ended { 0 } else { self.left }
    }

    /// A line that may match. The answer is whether to go on.
    pub(crate) fn candidate(&mut self, number: u64, offset: u64, line: &[u8]) -> bool {
        if self.matchers.query.count {
            let found = self.count_in(stripped(line));
            self.matches += found;
            self.lines += u64::from(found > 0);
            return true;
        }
        if self.left == 0 || !self.find_in(stripped(line)) {
            return self.passing(number, line);
        }
        let mut hit = Hit::new(number, stripped(line), self.base + offset, &self.spans);
        hit.before = self.lines_before(number);
        self.pass(number, line);
        self.add(number, hit);
        self.complete(number);
        self.goes_on()
    }

    /// A line that goes by.
    pub(crate) fn passing(&mut self, number: u64, line: &[u8]) -> bool {
        self.pass(number, line);
        self.complete(number);
        self.goes_on()
    }

    /// A block of lines that is known to match; `spans` are the places in it.
    pub(crate) fn block(
        &mut self,
        number: u64,
        offset: u64,
        block: &[u8],
        spans: &[Range<usize>],
        around: (Vec<Vec<u8>>, Vec<Vec<u8>>),
    ) -> bool {
        let mut hit = Hit::new(number, stripped(block), self.base + offset, spans);
        (hit.before, hit.after) = around;
        self.left -= 1;
        self.emit(hit);
        self.goes_on()
    }

    pub(crate) fn counted(&mut self, lines: u64, matches: u64) {
        self.lines += lines;
        self.matches += matches;
    }

    /// The file has ended: no more lines come.
    pub(crate) fn finish(&mut self) {
        while let Some((_, hit)) = self.pending.pop_front() {
            self.emit(hit);
        }
        if self.lines > 0 {
            self.emit(Hit::count(self.lines, self.matches));
        }
    }

    fn find_in(&mut self, line: &[u8]) -> bool {
        let spans = &mut self.spans;
        spans.clear();
        each_place(&self.matchers.exact, line, |place| {
            spans.push(place);
            spans.len() < MAX_SPANS
        });
        !spans.is_empty()
    }

    fn count_in(&self, line: &[u8]) -> u64 {
        let mut found = 0;
        each_place(&self.matchers.exact, line, |_| {
            found += 1;
            true
        });
        found
    }

    fn add(&mut self, last: u64, hit: Hit) {
        self.left -= 1;
        self.pending.push_back((last, hit));
    }

    fn lines_before(&self, number: u64) -> Vec<Vec<u8>> {
        let first = number.saturating_sub(self.matchers.query.before as u64);
        self.recent
            .iter()
            .filter(|(recent, _)| *recent >= first)
            .map(|(_, line)| line.clone())
            .collect()
    }

    fn pass(&mut self, number: u64, line: &[u8]) {
        let query = &self.matchers.query;
        for (last, hit) in &mut self.pending {
            if number > *last && number <= *last + query.after as u64 {
                hit.after.push(shown(stripped(line)));
            }
        }
        if query.before > 0 {
            if self.recent.len() == query.before {
                self.recent.pop_front();
            }
            self.recent.push_back((number, shown(stripped(line))));
        }
    }

    /// Hand over the hits that have all their lines, now that line `number` has gone by.
    fn complete(&mut self, number: u64) {
        while let Some((last, _)) = self.pending.front()
            && number >= *last + self.matchers.query.after as u64
            && let Some((_, hit)) = self.pending.pop_front()
        {
            self.emit(hit);
        }
    }

    fn emit(&mut self, hit: Hit) {
        if !self.ended {
            self.ended = (self.emit)(hit).is_break();
        }
    }

    fn goes_on(&self) -> bool {
        !self.ended && (self.left > 0 || !self.pending.is_empty())
    }
}

/// The places in `text`, until `found` says no. Nothing within a character is no place.
pub(crate) fn each_place(
    matcher: &RegexMatcher,
    text: &[u8],
    mut found: impl FnMut(Range<usize>) -> bool,
) {
    // This matcher cannot fail.
    let _ = matcher.find_iter(text, |place| {
        place.is_empty() && within_character(text, place.start())
            || found(place.start()..place.end())
    });
}

fn within_character(text: &[u8], at: usize) -> bool {
    if text.get(at).is_none_or(|byte| byte & 0xC0 != 0x80) {
        return false;
    }
    let first = text[..at].iter().rposition(|byte| byte & 0xC0 != 0x80);
    first.is_some_and(|first| {
        let rest = &text[first..text.len().min(first + 4)];
        let chunk = rest.utf8_chunks().next();
        chunk.is_some_and(|chunk| {
            let length = chunk.valid().chars().next().map_or(0, char::len_utf8);
            at < first + length
        })
    })
}
