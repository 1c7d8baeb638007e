//! Responsible for which names of a tree a walk shows, and which directories it enters.

use std::ffi::OsStr;

use vespera_error::Result;

use crate::glob::globs::{Globs, Places};
use crate::place::Kind;

/// What the caller asked for.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a choice of its own that the caller has"
)]
pub struct Selection {
    /// Leave out what git would, and `.git` itself.
    pub gitignore: bool,
    /// Show names with a leading dot too.
    pub hidden: bool,
    /// Enter symlinked directories and take a symlink to a file for that file.
    pub follow: bool,
    /// Show only what one of these names; empty: everything.
    pub include: Vec<std::ffi::OsString>,
    /// Neither show nor enter what one of these names.
    pub exclude: Vec<std::ffi::OsString>,
    /// Show only files whose name one of these matches; empty: all.
    pub types: Vec<std::ffi::OsString>,
    /// How far down; 1 is the directory's own names.
    pub max_depth: Option<usize>,
    /// One after the other, by the bytes of their paths.
    pub sort: bool,
}

/// The same, compiled.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "as in `Selection`")]
pub(crate) struct Filter {
    pub(crate) gitignore: bool,
    pub(crate) follow: bool,
    pub(crate) sort: bool,
    hidden: bool,
    max_depth: usize,
    include: Globs,
    exclude: Globs,
    types: Globs,
}

/// How far the patterns have come in a directory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    include: Places,
    exclude: Places,
    types: Places,
}

impl Filter {
    pub(crate) fn new(selection: &Selection) -> Result<Self> {
        Ok(Self {
            gitignore: selection.gitignore,
            follow: selection.follow,
            sort: selection.sort,
            hidden: selection.hidden,
            max_depth: selection.max_depth.unwrap_or(usize::MAX),
            include: Globs::floating(&selection.include, false)?,
            exclude: Globs::floating(&selection.exclude, true)?,
            types: Globs::floating(&selection.types, false)?,
        })
    }

    /// For one pattern that is matched against the whole path, as `glob_files` does it.
    pub(crate) fn for_glob(pattern: &OsStr, gitignore: bool) -> Result<Self> {
        Ok(Self {
            gitignore,
            follow: false,
            sort: false,
            hidden: true,
            max_depth: usize::MAX,
            include: Globs::one(pattern)?,
            exclude: Globs::default(),
            types: Globs::default(),
        })
    }

    pub(crate) fn start(&self) -> Progress {
        Progress {
            include: self.include.start(),
            exclude: self.exclude.start(),
            types: self.types.start(),
        }
    }

    /// Whether the name is out: neither shown nor entered.
    pub(crate) fn leaves_out(&self, progress: &Progress, name: &[u8], kind: Kind) -> bool {
        !self.hidden && name.first() == Some(&b'.')
            || self.gitignore && name == b".git"
            || !progress.exclude.is_empty()
                && self
                    .exclude
                    .accepts(&progress.exclude, name, kind == Kind::Directory)
    }

    /// Whether the name, which is not out, is shown.
    pub(crate) fn shows(&self, progress: &Progress, name: &[u8], kind: Kind) -> bool {
        let directory = kind == Kind::Directory;
        (self.include.is_empty() || self.include.accepts(&progress.include, name, directory))
            && (self.types.is_empty()
                || !directory && self.types.accepts(&progress.types, name, directory))
    }

    /// The progress in the directory `name`, `None` if it need not be entered. `depth` is that of
    /// the names in it.
    pub(crate) fn enter(&self, progress: &Progress, name: &[u8], depth: usize) -> Option<Progress> {
        if depth > self.max_depth {
            return None;
        }
        let include = self.include.beneath(&progress.include, name);
        if include.is_empty() && !self.include.is_empty() {
            return None;
        }
        Some(Progress {
            include,
            exclude: self.exclude.beneath(&progress.exclude, name),
            types: self.types.beneath(&progress.types, name),
        })
    }
}
