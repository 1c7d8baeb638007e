//! Responsible for `.gitignore`: which names of a walked tree git would leave out.
//!
//! A walk carries a chain of levels, one per `.gitignore` on the way down; the deepest one with an
//! opinion decides, and within it the last line that matches. An ignored directory is not entered,
//! so nothing beneath it can come back, as in git.
//!
//! Why not the ignore crate: it takes `{a,b}` for alternatives where git takes the characters
//! themselves, and it walks by path, which a workspace cannot allow (see `walk`).

mod pattern;
mod rules;

use std::sync::Arc;

pub(crate) use rules::Rules;

/// The rules of one directory, and those that hold where they say nothing.
#[derive(Debug)]
pub(crate) struct Level {
    rules: Rules,
    /// Bytes of a walked path that lead to this directory, its slash included.
    base: usize,
    /// The way from this directory down to where the walk starts; empty at and below the start.
    prefix: Vec<u8>,
    parent: Option<Arc<Level>>,
}

impl Level {
    /// The level of a directory that is walked: `directory` is its path from the start, "" or with
    /// no slash at its end. Without any rules there is no new level.
    pub(crate) fn below(
        parent: Option<Arc<Level>>,
        directory: &[u8],
        rules: Rules,
    ) -> Option<Arc<Level>> {
        if rules.is_empty() {
            return parent;
        }
        let base = if directory.is_empty() {
            0
        } else {
            directory.len() + 1
        };
        Some(Arc::new(Level {
            rules,
            base,
            prefix: Vec::new(),
            parent,
        }))
    }

    /// The level of a directory above the start, which lies `prefix` (`a/b/`) beneath it.
    pub(crate) fn above(
        parent: Option<Arc<Level>>,
        prefix: &[u8],
        rules: Rules,
    ) -> Option<Arc<Level>> {
        if rules.is_empty() {
            return parent;
        }
        Some(Arc::new(Level {
            rules,
            base: 0,
            prefix: prefix.to_vec(),
            parent,
        }))
    }

    /// Whether git would leave out `path` (from the start of the walk), whose last name is `name`.
    pub(crate) fn ignores(&self, path: &[u8], name: &[u8], is_directory: bool) -> bool {
        let mut level = Some(self);
        while let Some(here) = level {
            let opinion = if here.prefix.is_empty() {
                here.rules.judge(&path[here.base..], name, is_directory)
            } else if here.rules.look_at_paths() {
                let whole = [here.prefix.as_slice(), path].concat();
                here.rules.judge(&whole, name, is_directory)
            } else {
                here.rules.judge(name, name, is_directory)
            };
            if let Some(ignored) = opinion {
                return ignored;
            }
            level = here.parent.as_deref();
        }
        false
    }
}

/// A chain may be as long as a path is deep, so it is taken apart without recursion.
impl Drop for Level {
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(level) = parent {
            match Arc::into_inner(level) {
                Some(mut level) => parent = level.parent.take(),
                None => break,
            }
        }
    }
}
