//! Responsible for finding the files beneath a directory that a pattern names.
//!
//! The pattern steers the walk: a directory is read only if something beneath it can still match,
//! so `src/*.rs` never looks into `target/`. Every directory is read once, whatever the pattern.
//!
//! Why not the globset crate: it matches `?` and `[é]` byte by byte, and both backends of this
//! package promise the same answer for the same names.

mod component;
mod pattern;

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use vespera_error::{Error, ErrorCode, Result};

use crate::open::kind_is;
use crate::place::{Kind, Place as PathPlace};
use component::{Component, decode};
use pattern::parse;

/// The regular files beneath `directory` whose path relative to it matches `pattern`, each joined
/// to `directory` as given, sorted by bytes.
///
/// Symlinks to files count as files; symlinked directories below `directory` are not entered.
/// Directories below it that vanish or may not be read are left out.
pub fn glob_files<'a>(place: impl Into<PathPlace<'a>>, pattern: &OsStr) -> Result<Vec<PathBuf>> {
    let place = place.into();
    let patterns = parse(pattern)?;
    let starts = (0..patterns.len())
        .map(|pattern| Place {
            pattern,
            component: 0,
        })
        .collect();
    let mut walk = Walk {
        patterns: &patterns,
        place,
        found: Vec::new(),
        name: Vec::new(),
    };
    let mut pending = Vec::new();
    walk.visit(place.path(), starts, &mut pending)?;
    while let Some((directory, places)) = pending.pop() {
        match walk.visit(&directory, places, &mut pending) {
            Err(error) if !may_be_skipped(&error) => return Err(error),
            _ => {}
        }
    }
    let mut found = walk.found;
    found.sort_unstable_by(|one, other| bytes(one).cmp(bytes(other)));
    Ok(found)
}

/// How far one of the patterns has been matched when a directory is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    pattern: usize,
    component: usize,
}

struct Walk<'a> {
    place: PathPlace<'a>,
    patterns: &'a [Vec<Component>],
    found: Vec<PathBuf>,
    /// The current name in characters; kept to save an allocation per entry.
    name: Vec<u32>,
}

impl Walk<'_> {
    fn visit(
        &mut self,
        directory: &Path,
        places: Vec<Place>,
        pending: &mut Vec<(PathBuf, Vec<Place>)>,
    ) -> Result<()> {
        let places = self.with_zero_depth(places);
        for (name, kind) in self.place.at(directory).list()? {
            decode(name.as_encoded_bytes(), &mut self.name);
            let (file_matches, deeper) = self.step(&places);
            if kind == Kind::Directory {
                if !deeper.is_empty() {
                    pending.push((directory.join(name), deeper));
                }
            } else if file_matches {
                let path = directory.join(name);
                if self.is_file(&path, kind) {
                    self.found.push(path);
                }
            }
        }
        Ok(())
    }

    fn is_file(&self, path: &Path, kind: Kind) -> bool {
        kind == Kind::File
            || kind == Kind::Symlink
                && self
                    .place
                    .at(path)
                    .metadata()
                    .is_ok_and(|leads| leads.is_file())
    }

    /// `**` also stands for no directory at all: what follows it may match right here.
    fn with_zero_depth(&self, places: Vec<Place>) -> Vec<Place> {
        let mut all: Vec<Place> = Vec::with_capacity(places.len() * 2);
        for mut place in places {
            while !all.contains(&place) {
                all.push(place);
                if matches!(self.component(place), Component::AnyDepth) {
                    place.component += 1;
                }
            }
        }
        all
    }

    /// Whether a file of the current name is found, and where a directory of that name leads.
    fn step(&self, places: &[Place]) -> (bool, Vec<Place>) {
        let mut file_matches = false;
        let mut deeper = Vec::new();
        for &place in places {
            match self.component(place) {
                Component::AnyDepth => deeper.push(place),
                Component::Name(tokens) if tokens.matches(&self.name) => {
                    if place.component + 1 == self.patterns[place.pattern].len() {
                        file_matches = true;
                    } else {
                        deeper.push(Place {
                            component: place.component + 1,
                            ..place
                        });
                    }
                }
                Component::Name(_) => {}
            }
        }
        (file_matches, deeper)
    }

    fn component(&self, place: Place) -> &Component {
        // A parsed pattern never ends in `**`, so "one further" always exists.
        &self.patterns[place.pattern][place.component]
    }
}

/// A tree changes while it is walked, and one closed directory must not hide the rest.
fn may_be_skipped(error: &Error) -> bool {
    error.code() == ErrorCode::OutsideWorkspace
        || [
            io::ErrorKind::NotFound,
            io::ErrorKind::NotADirectory,
            io::ErrorKind::PermissionDenied,
        ]
        .into_iter()
        .any(|kind| kind_is(error, kind))
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}
