//! Responsible for finding a pattern in text and in the files of a tree, line by line or across
//! lines, on ripgrep's crates for the matching and the reading of lines.
//!
//! The pattern comes in two wordings. Lines are looked for in whole buffers with `candidate`, in
//! which `$` also stands before a carriage return; what is found counts only if `exact` finds it
//! in the line without its ending.

mod collect;
mod content;
mod hit;
mod lines;
mod multi;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use rustix::io::Errno;
use vespera_error::{Error, ErrorCode, Result};

use crate::place::Kind;
use crate::root::Root;
use crate::walk::engine::{Engine, Entry, Visitor};
use crate::walk::origin::Origin;
use crate::walk::select::{Filter, Selection};
use crate::walk::stream::{Problem, Shared, Stream, Weight};
use crate::walk::{threads, with_slash};
use collect::Collector;
use content::Reader;
pub use hit::{Hit, Hits, Span};

/// Memory for one compiled pattern: what the Python half lets pass must fit.
const MAX_COMPILED: usize = 256 << 20;
/// So many bytes of results go to the consumer at once, unless it waits.
const BATCH: usize = 64 << 10;

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// The pattern as the caller wrote it, for messages.
    pub pattern: String,
    pub candidate: String,
    pub exact: String,
    /// Whether a match may cross lines.
    pub multiline: bool,
    /// Lines shown around a match.
    pub before: usize,
    pub after: usize,
    pub max_per_file: Option<usize>,
    /// Whether only numbers are wanted: of lines, and of matches in them.
    pub count: bool,
}

/// The same, compiled.
pub(crate) struct Matchers {
    query: Query,
    candidate: RegexMatcher,
    exact: RegexMatcher,
}

impl Matchers {
    pub(crate) fn new(query: &Query) -> Result<Self> {
        let terminator = (!query.multiline).then_some(b'\n');
        let candidate = compile(query, &query.candidate, terminator)?;
        let exact = if query.exact == query.candidate && terminator.is_none() {
            candidate.clone()
        } else {
            compile(query, &query.exact, None)?
        };
        Ok(Self {
            query: query.clone(),
            candidate,
            exact,
        })
    }
}

fn compile(query: &Query, pattern: &str, terminator: Option<u8>) -> Result<RegexMatcher> {
    RegexMatcherBuilder::new()
        .multi_line(true)
        .line_terminator(terminator)
        .size_limit(MAX_COMPILED)
        .build(pattern)
        .map_err(|error| {
            let reason = format!("cannot be compiled: {error}");
            let message = format!("search pattern '{}': {reason}", query.pattern);
            Error::new(ErrorCode::Pattern, message)
                .with("pattern", query.pattern.as_str())
                .with("reason", reason)
        })
}

/// The places in `text` that match.
pub fn search_text(text: &[u8], query: &Query, limit: Option<usize>) -> Result<Hits> {
    let matchers = Matchers::new(query)?;
    let mut hits = Hits::default();
    if limit == Some(0) {
        return Ok(hits);
    }
    let mut left = limit.unwrap_or(usize::MAX);
    let mut emit = |hit: Hit| {
        hits.push(None, hit);
        left -= 1;
        if left == 0 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    let mut searcher = lines::searcher(query);
    let mut collector = Collector::new(&matchers, &mut emit);
    let (text, base) = content::without_mark(text);
    collector.set_base(base);
    if query.multiline {
        multi::search(&matchers, text, &mut collector);
    } else {
        lines::search_slice(&mut searcher, &matchers, text, &mut collector)
            .map_err(|errno| Error::io("search the text", None, errno.into()))?;
    }
    collector.finish();
    Ok(hits)
}

/// Places in files, as they are found.
pub struct Search {
    stream: Stream<Hits>,
}

/// Which files are searched.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub selection: Selection,
    /// Also those that look binary: a NUL in their first 8,000 bytes.
    pub binary: bool,
    /// Larger ones are left out.
    pub max_size: Option<u64>,
}

/// Start to search the files of `directory`, or the one file that it is.
pub fn search_files(
    root: Option<&Arc<Root>>,
    directory: &Path,
    query: &Query,
    files: &Files,
) -> Result<Search> {
    let filter = Filter::new(&files.selection)?;
    let threads = threads(&filter);
    let shared = Arc::new(Shared::new());
    let visitor = Searching {
        base: with_slash(directory),
        matchers: Matchers::new(query)?,
        binary: files.binary,
        max_size: files.max_size.unwrap_or(u64::MAX),
        shared: Arc::clone(&shared),
    };
    let origin = Origin::open(root, directory)?;
    let engine = Engine::new(origin, filter, visitor, Arc::clone(shared.stop()))?;
    Ok(Search {
        stream: Stream::start(engine, shared, threads)?,
    })
}

impl Search {
    pub(crate) fn stream(&self) -> &Stream<Hits> {
        &self.stream
    }

    /// What could not be read so far: the first thousand, and how many there were.
    pub fn problems(&self) -> Result<(Vec<Problem>, usize)> {
        self.stream.problems()
    }
}

impl Iterator for Search {
    type Item = Result<Hits>;

    fn next(&mut self) -> Option<Self::Item> {
        self.stream.next(|error| error, || Ok(())).transpose()
    }
}

/// Searches every file.
struct Searching {
    base: Vec<u8>,
    matchers: Matchers,
    binary: bool,
    max_size: u64,
    shared: Arc<Shared<Hits>>,
}

/// What one thread searches with.
struct Tools {
    searcher: grep_searcher::Searcher,
    reader: Reader,
    hits: Hits,
}

impl Visitor for Searching {
    type Local = Tools;
    const HEAVY: bool = true;

    fn local(&self) -> Tools {
        Tools {
            searcher: lines::searcher(&self.matchers.query),
            reader: Reader::default(),
            hits: Hits::default(),
        }
    }

    fn entry(&self, tools: &mut Tools, entry: &Entry<'_>) -> ControlFlow<()> {
        if entry.kind != Kind::File {
            return ControlFlow::Continue(());
        }
        let searched = self.search(tools, entry);
        if self
            .shared
            .stop()
            .load(std::sync::atomic::Ordering::Relaxed)
        {
            return ControlFlow::Break(());
        }
        match searched {
            // It has vanished, or was swapped for something else.
            Ok(()) | Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::XDEV) => {}
            Err(errno) => self.shared.problem(entry.origin.shown(entry.path), errno),
        }
        if self.shared.is_hungry() {
            return self.idle(tools);
        }
        ControlFlow::Continue(())
    }

    fn problem(&self, path: PathBuf, errno: Errno) -> ControlFlow<()> {
        self.shared.problem(path, errno);
        ControlFlow::Continue(())
    }

    fn idle(&self, tools: &mut Tools) -> ControlFlow<()> {
        if tools.hits.is_empty() {
            return ControlFlow::Continue(());
        }
        self.shared.send(std::mem::take(&mut tools.hits))
    }
}

impl Searching {
    fn search(&self, tools: &mut Tools, entry: &Entry<'_>) -> rustix::io::Result<()> {
        let Tools {
            searcher,
            reader,
            hits,
        } = tools;
        let stop = self.shared.stop();
        let Some(content) = reader.open(entry.open()?, self.max_size, self.binary)? else {
            return Ok(());
        };
        let mut path: Option<Arc<[u8]>> = None;
        let mut emit = |hit: Hit| {
            let path = path.get_or_insert_with(|| [&self.base, entry.path].concat().into());
            hits.push(Some(Arc::clone(path)), hit);
            if hits.weight() >= BATCH || self.shared.is_hungry() {
                return self.shared.send(std::mem::take(hits));
            }
            ControlFlow::Continue(())
        };
        let mut collector = Collector::new(&self.matchers, &mut emit);
        content.search(searcher, &self.matchers, &mut collector, stop)?;
        collector.finish();
        Ok(())
    }
}
