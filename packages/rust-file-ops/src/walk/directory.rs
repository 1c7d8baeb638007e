//! Responsible for one directory of a walk: opened beneath the one above it, read, and what is left
//! out taken away.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::{Errno, Result};

use super::listing::Listing;
use super::origin::{Origin, Way};
use super::select::{Filter, Progress};
use crate::ignore::Level;
use crate::place::Kind;

/// So many directories stay open in one walk; a process may have 1,024 files open as a rule.
const MAX_OPEN: usize = 128;
/// In a deep tree one directory in so many stays open while anything beneath it is left to do: what
/// lies beneath is reached from there, and the way back up does not cost the whole depth each time.
const ANCHORED: usize = 64;

/// A directory whose names were read.
pub(super) struct Directory {
    pub(super) listing: Listing,
    pub(super) path: Vec<u8>,
    opened: Option<Arc<Counted>>,
    anchor: Option<Anchor>,
    depth: usize,
    level: Option<Arc<Level>>,
    progress: Progress,
    ancestors: Option<Arc<Ancestor>>,
}

/// An open directory above others.
#[derive(Clone)]
struct Anchor {
    directory: Arc<Counted>,
    /// Bytes of the path that lead to it, its slash included.
    base: usize,
}

/// An open directory, counted.
struct Counted(OwnedFd, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Some names of a directory, and what is done with them.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Show(Range<usize>),
    Enter(Range<usize>),
}

/// Directories on the way down, by their numbers: where symlinks are followed, one may come again.
struct Ancestor {
    device: u64,
    inode: u64,
    above: Option<Arc<Ancestor>>,
}

/// What a walk has, whatever it does with what it finds.
pub(super) struct Tree {
    pub(super) origin: Origin,
    pub(super) filter: Filter,
    open: Arc<AtomicUsize>,
}

impl Tree {
    pub(super) fn new(origin: Origin, filter: Filter) -> Self {
        Self {
            origin,
            filter,
            open: Arc::default(),
        }
    }

    /// The directory where the walk starts.
    pub(super) fn start(&self, problem: &mut dyn FnMut(&[u8], Errno)) -> Result<Directory> {
        let descriptor = self.origin.directory();
        let mut directory = Directory {
            listing: Listing::read(descriptor, &mut Vec::new())?,
            path: Vec::new(),
            opened: None,
            anchor: None,
            depth: 1,
            level: None,
            progress: self.filter.start(),
            ancestors: None,
        };
        if self.filter.gitignore {
            directory.level = self.origin.levels_above();
        }
        if self.filter.follow {
            directory.ancestors = Some(ancestor(descriptor, None)?);
        }
        self.take_away(&mut directory, problem);
        Ok(directory)
    }

    /// The directory at `index` in `parent`; `None` if it need not be entered.
    pub(super) fn enter(
        &self,
        parent: &Directory,
        index: usize,
        buffer: &mut Vec<u8>,
        problem: &mut dyn FnMut(&[u8], Errno),
    ) -> Result<Option<Directory>> {
        let (name, _) = parent.listing.get(index);
        let depth = parent.depth + 1;
        let Some(progress) = self.filter.enter(&parent.progress, name, depth) else {
            return Ok(None);
        };
        let path = parent.path_of(name);
        let way = parent.way(&self.origin, &path);
        let opened = self.origin.open_directory(&way, self.filter.follow)?;
        let mut ancestors = None;
        if let Some(above) = &parent.ancestors {
            let here = ancestor(opened.as_fd(), Some(above))?;
            if comes_again(&here) {
                return Ok(None);
            }
            ancestors = Some(here);
        }
        let listing = Listing::read(opened.as_fd(), buffer)?;
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let opened = Arc::new(Counted(opened, Arc::clone(&self.open)));
        let mut anchor = parent.anchor.clone();
        if depth.is_multiple_of(ANCHORED) && open < 2 * MAX_OPEN {
            anchor = Some(Anchor {
                directory: Arc::clone(&opened),
                base: path.len() + 1,
            });
        }
        let mut directory = Directory {
            listing,
            path,
            opened: Some(opened),
            anchor,
            depth,
            level: parent.level.clone(),
            progress,
            ancestors,
        };
        self.take_away(&mut directory, problem);
        Ok(Some(directory))
    }

    /// What is to be done with the names, in this order.
    pub(super) fn parts(&self, directory: &mut Directory) -> Vec<Part> {
        let listing = &mut directory.listing;
        if self.filter.sort {
            return in_order(listing);
        }
        let files = listing.put_directories_last();
        let directories = files..listing.len();
        let mut parts = vec![
            Part::Show(0..files),
            Part::Show(directories.clone()),
            Part::Enter(directories),
        ];
        parts.retain(|part| match part {
            Part::Show(names) | Part::Enter(names) => !names.is_empty(),
        });
        parts
    }

    /// Close the directory if too many are open; what is beneath is then reached by its path from
    /// one above.
    pub(super) fn spare(&self, directory: &mut Directory) {
        if self.open.load(Ordering::Relaxed) > MAX_OPEN {
            directory.opened = None;
        }
    }

    pub(super) fn shows(&self, directory: &Directory, name: &[u8], kind: Kind) -> bool {
        self.filter.shows(&directory.progress, name, kind)
    }

    /// Learn the directory's rules, and take away the names that are neither shown nor entered.
    fn take_away(&self, directory: &mut Directory, problem: &mut dyn FnMut(&[u8], Errno)) {
        if self.filter.gitignore
            && let Some(descriptor) = directory.descriptor(&self.origin)
        {
            let listing = &directory.listing;
            let inherited = directory.level.clone();
            let level = self.origin.below(
                descriptor,
                &directory.path,
                inherited,
                |name| listing.contains(name),
                |errno| problem(&directory.path_of(b".gitignore"), errno),
            );
            directory.level = level;
        }
        if self.filter.follow {
            self.look_behind_symlinks(directory);
        }
        let mut path = directory.path_of(b"");
        let base = path.len();
        let (level, progress) = (&directory.level, &directory.progress);
        directory.listing.retain(|name, kind| {
            if self.filter.leaves_out(progress, name, kind) {
                return false;
            }
            let Some(level) = level else {
                return true;
            };
            path.truncate(base);
            path.extend_from_slice(name);
            !level.ignores(&path, name, kind == Kind::Directory)
        });
    }

    fn look_behind_symlinks(&self, directory: &mut Directory) {
        for index in 0..directory.listing.len() {
            let (name, kind) = directory.listing.get(index);
            if kind == Kind::Symlink {
                let path = directory.path_of(name);
                if let Some(kind) = self.origin.target(&directory.way(&self.origin, &path)) {
                    directory.listing.set_kind(index, kind);
                }
            }
        }
    }
}

impl Directory {
    /// The open directory. The start is always open.
    pub(super) fn descriptor<'a>(&'a self, origin: &'a Origin) -> Option<BorrowedFd<'a>> {
        if self.depth == 1 {
            return Some(origin.directory());
        }
        self.opened.as_ref().map(|counted| counted.0.as_fd())
    }

    /// The way to something in this directory, whose path from the start is `whole`.
    pub(super) fn way<'a>(&'a self, origin: &'a Origin, whole: &'a [u8]) -> Way<'a> {
        let (from, base) = match (self.descriptor(origin), &self.anchor) {
            (Some(here), _) if self.path.is_empty() => (here, 0),
            (Some(here), _) => (here, self.path.len() + 1),
            (None, Some(anchor)) => (anchor.directory.0.as_fd(), anchor.base),
            (None, None) => (origin.directory(), 0),
        };
        Way {
            from,
            path: &whole[base..],
            whole,
        }
    }

    /// The path of `name` from the start.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if !self.path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

/// A chain may be as long as a path is deep, so it is taken apart without recursion.
impl Drop for Ancestor {
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(ancestor) = above {
            match Arc::into_inner(ancestor) {
                Some(mut ancestor) => above = ancestor.above.take(),
                None => break,
            }
        }
    }
}

fn ancestor(directory: BorrowedFd<'_>, above: Option<&Arc<Ancestor>>) -> Result<Arc<Ancestor>> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(Arc::new(Ancestor {
        #[allow(
            clippy::unnecessary_cast,
            clippy::cast_sign_loss,
            reason = "differs by system"
        )]
        device: stat.st_dev as u64,
        inode: stat.st_ino,
        above: above.cloned(),
    }))
}

fn comes_again(here: &Ancestor) -> bool {
    let mut above = here.above.as_deref();
    while let Some(ancestor) = above {
        if (ancestor.device, ancestor.inode) == (here.device, here.inode) {
            return true;
        }
        above = ancestor.above.as_deref();
    }
    false
}

/// The order of whole paths: a directory is shown where its name comes, and entered where its name
/// with a slash does (`a`, `a.txt`, `a/b`).
fn in_order(listing: &mut Listing) -> Vec<Part> {
    listing.sort();
    let mut entered: Vec<usize> = (0..listing.len())
        .filter(|&index| listing.get(index).1 == Kind::Directory)
        .collect();
    let with_slash = |index: usize| listing.get(index).0.iter().chain(b"/");
    entered.sort_unstable_by(|&one, &other| with_slash(one).cmp(with_slash(other)));
    let mut parts = Vec::with_capacity(2 * entered.len() + 1);
    let mut shown = 0;
    for index in entered {
        let from = shown;
        while shown < listing.len() && listing.get(shown).0.iter().lt(with_slash(index)) {
            shown += 1;
        }
        if from < shown {
            parts.push(Part::Show(from..shown));
        }
        parts.push(Part::Enter(index..index + 1));
    }
    if shown < listing.len() {
        parts.push(Part::Show(shown..listing.len()));
    }
    parts
}
