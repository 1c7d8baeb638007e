//! Responsible for the search of one line at a time, on grep-searcher: it looks for a candidate in
//! a whole buffer, counts lines only where there is one, and keeps no more than a buffer of a file.

use std::io;

use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use rustix::io::{Errno, Result};

use super::collect::Collector;
use super::content::MAX_WHOLE;
use super::{Matchers, Query};

pub(crate) fn searcher(query: &Query) -> Searcher {
    let around = |lines: usize| if query.count { 0 } else { lines };
    SearcherBuilder::new()
        .line_number(true)
        .before_context(around(query.before))
        .after_context(around(query.after))
        // What is binary is decided before, by git's rule, and a byte order mark is taken off.
        .binary_detection(BinaryDetection::none())
        .bom_sniffing(false)
        .heap_limit(Some(MAX_WHOLE))
        .build()
}

/// Search what is in memory.
pub(crate) fn search_slice(
    searcher: &mut Searcher,
    matchers: &Matchers,
    content: &[u8],
    collector: &mut Collector<'_>,
) -> Result<()> {
    searcher
        .search_slice(&matchers.candidate, content, Lines(collector))
        .map_err(|error| errno_of(&error))
}

/// Search what is read as it is searched. A line that does not fit in memory is `EFBIG`.
pub(crate) fn search_reader(
    searcher: &mut Searcher,
    matchers: &Matchers,
    content: impl io::Read,
    collector: &mut Collector<'_>,
) -> Result<()> {
    searcher
        .search_reader(&matchers.candidate, content, Lines(collector))
        .map_err(|error| errno_of(&error))
}

fn errno_of(error: &io::Error) -> Errno {
    // The only error without a number is the limit of `searcher`.
    Errno::from_io_error(error).unwrap_or(Errno::FBIG)
}

struct Lines<'a, 'b>(&'a mut Collector<'b>);

impl Sink for Lines<'_, '_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        let number = found.line_number().unwrap_or_default();
        let offset = found.absolute_byte_offset();
        Ok(self.0.candidate(number, offset, found.bytes()))
    }

    fn context(&mut self, _: &Searcher, line: &SinkContext<'_>) -> io::Result<bool> {
        let number = line.line_number().unwrap_or_default();
        Ok(self.0.passing(number, line.bytes()))
    }
}
