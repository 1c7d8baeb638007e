//! Responsible for matches that may cross lines: the whole text is looked at, and matches that
//! share a line come together in one hit.

use std::ops::Range;

use super::Matchers;
use super::collect::{Collector, each_place};
use super::hit::{MAX_SPANS, shown, stripped};

/// Lines that match, and the places in them, from the start of the text.
#[derive(Default)]
struct Block {
    lines: Range<usize>,
    spans: Vec<Range<usize>>,
}

pub(crate) fn search(matchers: &Matchers, text: &[u8], collector: &mut Collector<'_>) {
    let mut seen = Lines::default();
    let mut block: Option<Block> = None;
    let mut number = 0;
    each_place(&matchers.candidate, text, |place| {
        // There is no line behind the last line's ending.
        if place.start == text.len() && text.last().is_none_or(|&byte| byte == b'\n') {
            return false;
        }
        number += 1;
        let end = end_of_line(text, place.end.saturating_sub(1).max(place.start));
        match &mut block {
            Some(block) if place.start < block.lines.end => {
                block.lines.end = block.lines.end.max(end);
                if block.spans.len() < MAX_SPANS {
                    block.spans.push(place);
                }
                true
            }
            other => {
                let start = memchr::memrchr(b'\n', &text[..place.start]).map_or(0, |at| at + 1);
                let next = Block {
                    lines: start..end,
                    spans: vec![place],
                };
                match other.replace(next) {
                    Some(done) => tell(matchers, text, &mut seen, &done, collector),
                    None => collector.left() > 0,
                }
            }
        }
    });
    if collector.left() > 0
        && let Some(last) = block
    {
        tell(matchers, text, &mut seen, &last, collector);
    }
    if matchers.query.count {
        collector.counted(seen.matching, number);
    }
}

/// Lines counted so far.
#[derive(Default)]
struct Lines {
    upto: usize,
    number: u64,
    matching: u64,
}

fn tell(
    matchers: &Matchers,
    text: &[u8],
    seen: &mut Lines,
    block: &Block,
    collector: &mut Collector<'_>,
) -> bool {
    let lines = &text[block.lines.clone()];
    if matchers.query.count {
        let endings = memchr::memchr_iter(b'\n', lines).count() as u64;
        seen.matching += endings + u64::from(!lines.ends_with(b"\n"));
        return true;
    }
    let between = &text[seen.upto..block.lines.start];
    seen.number += memchr::memchr_iter(b'\n', between).count() as u64;
    seen.upto = block.lines.start;
    let spans: Vec<_> = block
        .spans
        .iter()
        .map(|place| place.start - block.lines.start..place.end - block.lines.start)
        .collect();
    let around = (
        lines_before(text, block.lines.start, matchers.query.before),
        lines_after(text, block.lines.end, matchers.query.after),
    );
    let offset = block.lines.start as u64;
    collector.block(seen.number + 1, offset, lines, &spans, around)
}

/// Where the line with the byte at `at` ends, its ending included.
fn end_of_line(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |ending| at + ending + 1)
}

fn lines_before(text: &[u8], end: usize, number: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut end = end;
    while found.len() < number && end > 0 {
        let start = memchr::memrchr(b'\n', &text[..end - 1]).map_or(0, |at| at + 1);
        found.push(shown(stripped(&text[start..end])));
        end = start;
    }
    found.reverse();
    found
}

fn lines_after(text: &[u8], start: usize, number: usize) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut start = start;
    while found.len() < number && start < text.len() {
        let end = end_of_line(text, start);
        found.push(shown(stripped(&text[start..end])));
        start = end;
    }
    found
}
