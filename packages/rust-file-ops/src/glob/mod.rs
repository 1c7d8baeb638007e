//! Responsible for finding the files beneath a directory that a pattern names.
//!
//! The pattern steers the walk: a directory is read only if something beneath it can still match,
//! so `src/*.rs` never looks into `target/`. Every directory is read once, whatever the pattern.
//!
//! Why not the globset crate: it matches `?` and `[é]` byte by byte, and both backends of this
//! package promise the same answer for the same names.

mod component;
pub(crate) mod globs;
mod pattern;

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use rustix::io::Errno;
use vespera_error::{Error, Result};

use crate::error::failed;
use crate::interrupt::Interrupt;
use crate::place::Kind;
use crate::root::Root;
use crate::walk::engine::{Engine, Entry, Visitor};
use crate::walk::origin::Origin;
use crate::walk::select::Filter;
use crate::walk::{threads, with_slash};

/// A tree of so few directories is walked sooner than a thread is started.
const FEW: usize = 16;
/// After so many it is time to look up: on a slow disk each takes tens of milliseconds.
const SOME: usize = 4;

/// The regular files beneath `directory` whose path relative to it matches `pattern`, each joined
/// to `directory` as given, sorted by bytes; with `gitignore` without what git would leave out.
///
/// Symlinks to files count as files; symlinked directories below `directory` are not entered.
/// Directories below it that vanish or may not be read are left out.
pub fn glob_files(
    root: Option<&Arc<Root>>,
    directory: &Path,
    pattern: &OsStr,
    gitignore: bool,
) -> Result<Vec<PathBuf>> {
    glob_files_until(root, directory, pattern, gitignore, &Interrupt::never())
}

/// The same, until it is interrupted.
pub fn glob_files_until(
    root: Option<&Arc<Root>>,
    directory: &Path,
    pattern: &OsStr,
    gitignore: bool,
    interrupt: &Interrupt<'_>,
) -> Result<Vec<PathBuf>> {
    let filter = Filter::for_glob(pattern, gitignore)?;
    let helpers = threads(&filter) - 1;
    let collecting = Collecting {
        base: with_slash(directory),
        found: Mutex::default(),
        failure: Mutex::default(),
    };
    let origin = Origin::open(root, directory)?;
    let engine = Engine::new(origin, filter, collecting, Arc::default())?;
    if engine.work(FEW) {
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                // Where the system gives no more threads, those that there are do as well.
                let helper = Builder::new().spawn_scoped(scope, || engine.work(usize::MAX));
                if helper.is_err() {
                    break;
                }
            }
            while engine.work(SOME) {
                if interrupt.check().is_err() {
                    engine.end();
                }
            }
        });
    }
    interrupt
        .check()
        .map_err(|interrupted| failed("list", directory)(interrupted.into()))?;
    let collecting = engine.visitor;
    if let Some(failure) = take(&collecting.failure) {
        return Err(failure);
    }
    let mut found = take(&collecting.found);
    // All begin with the directory.
    let base = collecting.base.len();
    found.sort_unstable_by(|one, other| one[base..].cmp(&other[base..]));
    Ok(found
        .into_iter()
        .map(|path| std::ffi::OsString::from_vec(path).into())
        .collect())
}

/// Keeps every file.
struct Collecting {
    base: Vec<u8>,
    found: Mutex<Vec<Vec<u8>>>,
    failure: Mutex<Option<Error>>,
}

impl Visitor for Collecting {
    type Local = Vec<Vec<u8>>;
    const HEAVY: bool = false;

    fn local(&self) -> Self::Local {
        Vec::new()
    }

    fn entry(&self, local: &mut Self::Local, entry: &Entry<'_>) -> ControlFlow<()> {
        let is_file = match entry.kind {
            Kind::File => true,
            // It may lead round in a circle, out of the root or into a closed directory.
            Kind::Symlink => entry.target() == Some(Kind::File),
            Kind::Directory | Kind::Other => false,
        };
        if is_file {
            let mut path = Vec::with_capacity(self.base.len() + entry.path.len());
            path.extend_from_slice(&self.base);
            path.extend_from_slice(entry.path);
            local.push(path);
        }
        ControlFlow::Continue(())
    }

    /// A tree changes while it is walked, and one closed directory must not hide the rest.
    fn problem(&self, path: PathBuf, errno: Errno) -> ControlFlow<()> {
        if matches!(errno, Errno::ACCESS | Errno::PERM | Errno::NAMETOOLONG) {
            return ControlFlow::Continue(());
        }
        let error = failed("list", &path)(errno.into());
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        ControlFlow::Break(())
    }

    fn idle(&self, local: &mut Self::Local) -> ControlFlow<()> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.append(local);
        ControlFlow::Continue(())
    }
}

fn take<T: Default>(kept: &Mutex<T>) -> T {
    std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner))
}
