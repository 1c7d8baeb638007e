//! Responsible for walking a tree: by several threads, in bounded memory, contained where a
//! workspace asks for it, with what git ignores left out where the caller does.
//!
//! It knows nothing of what is done with a name: `glob_files` collects, a search opens and reads,
//! [`walk`] hands the names to one consumer as they come.
//!
//! Why not the walker of the ignore crate: it opens every directory by its path, so a symlink
//! that is put in the way leads it out of a workspace, and it keeps an object per name.

mod directory;
pub(crate) mod engine;
mod listing;
pub(crate) mod origin;
pub(crate) mod select;
pub(crate) mod stream;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use vespera_error::Result;

use crate::place::Kind;
use crate::root::Root;
use engine::{Engine, Entry, Visitor};
use origin::Origin;
use select::Filter;
pub use select::Selection;
pub use stream::Problem;
use stream::{Shared, Stream, Weight};

/// So many threads at most: beyond, they wait for the kernel's locks on directories.
const MAX_THREADS: usize = 12;
/// So many names go to the consumer at once, unless it waits.
const BATCH: usize = 256;

/// Names beneath a directory, as they are found.
pub struct Walk {
    stream: Stream<Found>,
}

/// Some names that were found: paths, the directory's as it was given in front, and kinds.
#[derive(Debug, Default)]
pub struct Found {
    bytes: Vec<u8>,
    ends: Vec<(usize, Kind)>,
}

impl Found {
    /// Each path and what it is: `file`, `directory`, `symlink` or `other`.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &'static str)> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, kind)| {
            let path = &self.bytes[start..end];
            start = end;
            (path, kind.word())
        })
    }
}

impl Weight for Found {
    fn weight(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<(usize, Kind)>()
    }
}

/// Start to walk `directory`, beneath `root` if there is one.
pub fn walk(root: Option<&Arc<Root>>, directory: &Path, selection: &Selection) -> Result<Walk> {
    let filter = Filter::new(selection)?;
    let threads = threads(&filter);
    let shared = Arc::new(Shared::new());
    let visitor = Showing {
        base: with_slash(directory),
        shared: Arc::clone(&shared),
    };
    let origin = Origin::open(root, directory)?;
    let engine = Engine::new(origin, filter, visitor, Arc::clone(shared.stop()))?;
    Ok(Walk {
        stream: Stream::start(engine, shared, threads)?,
    })
}

impl Walk {
    pub(crate) fn stream(&self) -> &Stream<Found> {
        &self.stream
    }

    /// What could not be read so far: the first thousand, and how many there were.
    pub fn problems(&self) -> Result<(Vec<Problem>, usize)> {
        self.stream.problems()
    }
}

impl Iterator for Walk {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        self.stream.next(|error| error, || Ok(())).transpose()
    }
}

/// As many as the machine has processors; one where the order counts.
pub(crate) fn threads(filter: &Filter) -> usize {
    if filter.sort {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |number| number.get().min(MAX_THREADS))
}

/// The directory as it was given, ready for a name behind it.
pub(crate) fn with_slash(directory: &Path) -> Vec<u8> {
    directory.join("").into_os_string().into_encoded_bytes()
}

/// Sends every name.
struct Showing {
    base: Vec<u8>,
    shared: Arc<Shared<Found>>,
}

impl Visitor for Showing {
    type Local = Found;
    const HEAVY: bool = false;

    fn local(&self) -> Found {
        Found::default()
    }

    fn entry(&self, local: &mut Found, entry: &Entry<'_>) -> ControlFlow<()> {
        local.bytes.extend_from_slice(&self.base);
        local.bytes.extend_from_slice(entry.path);
        local.ends.push((local.bytes.len(), entry.kind));
        if local.ends.len() >= BATCH || self.shared.is_hungry() {
            return self.shared.send(std::mem::take(local));
        }
        ControlFlow::Continue(())
    }

    fn problem(&self, path: PathBuf, errno: Errno) -> ControlFlow<()> {
        self.shared.problem(path, errno);
        ControlFlow::Continue(())
    }

    fn idle(&self, local: &mut Found) -> ControlFlow<()> {
        if local.ends.is_empty() {
            return ControlFlow::Continue(());
        }
        self.shared.send(std::mem::take(local))
    }
}
