//! Responsible for walking a tree with several threads: which directory is read next, and when
//! everything has been seen.
//!
//! What waits is a stack, so the walk goes deep first and little waits at any time: for each
//! directory on the way down the names of its directories that were not entered yet, as they were
//! read.

use std::ops::{ControlFlow, Range};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use vespera_error::Result;

use super::directory::{Directory, Part, Tree};
use super::origin::{Origin, Way};
use super::select::Filter;
use crate::place::Kind;

/// So many files of one directory are handed to another thread at once.
const CHUNK: usize = 32;

/// What is done with the names that are found.
pub(crate) trait Visitor: Send + Sync + 'static {
    /// What one thread has for itself.
    type Local: Send;
    /// Whether an entry is so much work that another thread should have it.
    const HEAVY: bool;

    fn local(&self) -> Self::Local;
    /// A name that is shown. Breaking ends the walk.
    fn entry(&self, local: &mut Self::Local, entry: &Entry<'_>) -> ControlFlow<()>;
    /// A directory, `.gitignore` or file that could not be read; what has vanished does not count.
    fn problem(&self, path: std::path::PathBuf, errno: Errno) -> ControlFlow<()>;
    /// The thread has nothing more to do for the moment.
    fn idle(&self, local: &mut Self::Local) -> ControlFlow<()>;
}

/// A name in a directory.
pub(crate) struct Entry<'a> {
    pub(crate) origin: &'a Origin,
    /// The path from the start.
    pub(crate) path: &'a [u8],
    pub(crate) kind: Kind,
    way: Way<'a>,
    follow: bool,
}

impl Entry<'_> {
    /// Open the file for reading; through a symlink only where they are followed.
    pub(crate) fn open(&self) -> rustix::io::Result<OwnedFd> {
        self.origin.open_file(&self.way, self.follow)
    }

    /// What a symlink leads to.
    pub(crate) fn target(&self) -> Option<Kind> {
        self.origin.target(&self.way)
    }
}

/// One walk; all threads that call [`Engine::work`] share it.
pub(crate) struct Engine<V> {
    pub(crate) visitor: V,
    tree: Tree,
    stop: Arc<AtomicBool>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// The next one last.
    waiting: Vec<(Arc<Directory>, Part)>,
    /// Threads that work, and so may add to what waits.
    active: usize,
    idle: usize,
}

/// What one thread keeps from directory to directory.
struct Thread<L> {
    local: L,
    names: Vec<u8>,
    path: Vec<u8>,
}

impl<V: Visitor> Engine<V> {
    /// The start is read here, so that its errors come at once.
    pub(crate) fn new(
        origin: Origin,
        filter: Filter,
        visitor: V,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let engine = Self {
            visitor,
            tree: Tree::new(origin, filter),
            stop,
            queue: Mutex::default(),
            changed: Condvar::new(),
        };
        let path = engine.tree.origin.path();
        let mut start = engine
            .tree
            .start(&mut |path, errno| engine.report(path, errno))
            .map_err(|errno| crate::error::failed("list", path)(errno.into()))?;
        let parts = engine.tree.parts(&mut start);
        engine.push(&Arc::new(start), parts);
        Ok(engine)
    }

    /// Work until everything has been seen or `quota` pieces of work are done; the answer is
    /// whether anything may be left.
    pub(crate) fn work(&self, quota: usize) -> bool {
        let mut thread = Thread {
            local: self.visitor.local(),
            names: Vec::new(),
            path: Vec::new(),
        };
        for _ in 0..quota {
            let Some((directory, part)) = self.next(&mut thread.local) else {
                return false;
            };
            let _active = Active(self);
            if self.carry_out(&mut thread, directory, part).is_break() {
                self.end();
            }
        }
        if self.visitor.idle(&mut thread.local).is_break() {
            self.end();
        }
        true
    }

    /// Nothing more is done; threads that wait are woken.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let _queue = self.lock();
        self.changed.notify_all();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(
        &self,
        directory: &Arc<Directory>,
        parts: impl IntoIterator<Item = Part, IntoIter: DoubleEndedIterator>,
    ) {
        let mut queue = self.lock();
        for part in parts.into_iter().rev() {
            queue.waiting.push((Arc::clone(directory), part));
        }
        if queue.idle > 0 {
            self.changed.notify_all();
        }
    }

    /// The next piece of work, `None` when there will be none. Of several directories to enter it
    /// is one: the rest waits for whoever comes.
    fn next(&self, local: &mut V::Local) -> Option<(Arc<Directory>, Part)> {
        let mut handed_over = false;
        let mut queue = self.lock();
        loop {
            if self.stopped() {
                return None;
            }
            if let Some(piece) = take(&mut queue.waiting) {
                queue.active += 1;
                return Some(piece);
            }
            if !handed_over {
                // Whoever waits for results must not wait for a thread that waits for work.
                drop(queue);
                handed_over = true;
                if self.visitor.idle(local).is_break() {
                    self.end();
                }
                queue = self.lock();
                continue;
            }
            if queue.active == 0 {
                self.changed.notify_all();
                return None;
            }
            queue.idle += 1;
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn carry_out(
        &self,
        thread: &mut Thread<V::Local>,
        directory: Arc<Directory>,
        part: Part,
    ) -> ControlFlow<()> {
        let index = match part {
            Part::Show(names) => return self.show(thread, &directory, names),
            Part::Enter(names) => names.start,
        };
        let entered = self
            .tree
            .enter(&directory, index, &mut thread.names, &mut |path, errno| {
                self.report(path, errno);
            });
        match entered {
            Ok(Some(entered)) => {
                drop(directory);
                self.spread(thread, entered)
            }
            Ok(None) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
                ControlFlow::Continue(())
            }
            Err(errno) => {
                let (name, _) = directory.listing.get(index);
                self.report(&directory.path_of(name), errno);
                ControlFlow::Continue(())
            }
        }
    }

    /// Do at once what is done soonest by the thread that has just read the directory, and leave
    /// the rest to whoever comes.
    fn spread(&self, thread: &mut Thread<V::Local>, mut directory: Directory) -> ControlFlow<()> {
        let mut parts = self.tree.parts(&mut directory);
        let mut later = Vec::new();
        if self.tree.filter.sort {
            later = parts;
        } else {
            for part in parts.drain(..) {
                match part {
                    Part::Show(mut names) => {
                        while V::HEAVY && names.len() > CHUNK {
                            later.push(Part::Show(names.end - CHUNK..names.end));
                            names.end -= CHUNK;
                        }
                        self.show(thread, &directory, names)?;
                    }
                    enter @ Part::Enter(_) => later.push(enter),
                }
            }
        }
        if !later.is_empty() {
            self.tree.spare(&mut directory);
            self.push(&Arc::new(directory), later);
        }
        ControlFlow::Continue(())
    }

    fn show(
        &self,
        thread: &mut Thread<V::Local>,
        directory: &Directory,
        names: Range<usize>,
    ) -> ControlFlow<()> {
        let Thread { local, path, .. } = thread;
        path.clear();
        path.extend_from_slice(&directory.path);
        if !path.is_empty() {
            path.push(b'/');
        }
        let base = path.len();
        for index in names {
            if self.stopped() {
                return ControlFlow::Break(());
            }
            let (name, kind) = directory.listing.get(index);
            if !self.tree.shows(directory, name, kind) {
                continue;
            }
            path.truncate(base);
            path.extend_from_slice(name);
            let entry = Entry {
                origin: &self.tree.origin,
                path: path.as_slice(),
                kind,
                way: directory.way(&self.tree.origin, path),
                follow: self.tree.filter.follow,
            };
            self.visitor.entry(local, &entry)?;
        }
        ControlFlow::Continue(())
    }

    fn report(&self, path: &[u8], errno: Errno) {
        let path = self.tree.origin.shown(path);
        if self.visitor.problem(path, errno).is_break() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn take(waiting: &mut Vec<(Arc<Directory>, Part)>) -> Option<(Arc<Directory>, Part)> {
    match waiting.last_mut() {
        Some((directory, Part::Enter(names))) if names.len() > 1 => {
            let index = names.start;
            names.start += 1;
            Some((Arc::clone(directory), Part::Enter(index..index + 1)))
        }
        _ => waiting.pop(),
    }
}

/// A thread at work; when it ends its piece, also by a panic, the others learn of it.
struct Active<'a, V: Visitor>(&'a Engine<V>);

impl<V: Visitor> Drop for Active<'_, V> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.active -= 1;
        if queue.active == 0 && queue.waiting.is_empty() && queue.idle > 0 {
            self.0.changed.notify_all();
        }
    }
}
