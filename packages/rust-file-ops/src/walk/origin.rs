//! Responsible for where a walk starts, and for reaching what lies beneath by descriptors.
//!
//! Nothing here goes by whole paths: a directory is opened beneath the open one above it, without
//! following a symlink, so that a name swapped meanwhile leads nowhere. That is what contains a
//! workspace, and it is also what costs the kernel least.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::{Errno, Result};
use vespera_error::Error;

use crate::error::failed;
use crate::ignore::{Level, Rules};
use crate::place::Kind;
use crate::root::{LOOK, PATH_MAX, Root, in_pieces, resolve_beneath};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);
/// git reads no larger one either.
const MAX_GITIGNORE: u64 = 100 << 20;
/// A file that names a directory is longer for nobody.
const MAX_POINTER: u64 = 1 << 20;

/// How something in a walked tree is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way<'a> {
    /// An open directory above it: that which holds it, if it is open still.
    pub(crate) from: BorrowedFd<'a>,
    /// The path from there.
    pub(crate) path: &'a [u8],
    /// The path from the start.
    pub(crate) whole: &'a [u8],
}

impl Way<'_> {
    fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path))
    }

    /// Open what stands there, a symlink not followed.
    fn open_itself(&self, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW;
        if self.path.contains(&b'/') {
            return resolve_beneath(self.from, self.path(), flags, Mode::empty());
        }
        openat(self.from, self.path(), flags, Mode::empty())
    }

    /// Open what it leads to, wherever that is.
    fn followed(&self, flags: OFlags) -> Result<OwnedFd> {
        in_pieces(self.from, self.path(), flags, |from, piece, flags| {
            openat(from, piece, flags, Mode::empty())
        })
    }

    fn stat(&self) -> Result<Stat> {
        if self.path.len() < PATH_MAX {
            return statat(self.from, self.path(), AtFlags::empty());
        }
        fstat(self.followed(LOOK | OFlags::CLOEXEC)?)
    }
}

/// The directory a walk starts in.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The directory as a root of its own, for what is opened by its path beneath it.
    start: Root,
    /// What nothing may leave, and the way from there to the start.
    workspace: Option<Arc<Root>>,
    path: PathBuf,
}

impl Origin {
    /// Open the directory at `path`, whose own symlinks are followed.
    pub(crate) fn open(root: Option<&Arc<Root>>, path: &Path) -> std::result::Result<Self, Error> {
        let directory = match root {
            None => openat(CWD, path, DIRECTORY, Mode::empty())
                .map_err(|errno| failed("list", path)(errno.into()))?,
            Some(root) => root.open_directory(path, path)?,
        };
        Ok(Self {
            start: Root::from_directory(directory, path),
            workspace: root.cloned(),
            path: path.to_path_buf(),
        })
    }

    /// The path as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.start.directory()
    }

    /// What is shown for `path`, which is relative to the start.
    pub(crate) fn shown(&self, path: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(path))
    }

    /// Open the directory at the end of the way.
    pub(crate) fn open_directory(&self, way: &Way<'_>, follow: bool) -> Result<OwnedFd> {
        self.open_as(DIRECTORY, way, follow)
    }

    /// Open a file for reading, never waiting for the other end of a FIFO.
    pub(crate) fn open_file(&self, way: &Way<'_>, follow: bool) -> Result<OwnedFd> {
        self.open_as(FILE, way, follow)
    }

    fn open_as(&self, flags: OFlags, way: &Way<'_>, follow: bool) -> Result<OwnedFd> {
        match (&self.workspace, follow) {
            (_, false) => way.open_itself(flags),
            (None, true) => way.followed(flags),
            (Some(root), true) => {
                // From the root a way this long takes long. What is no symlink is where it seems.
                if way.whole.len() >= PATH_MAX {
                    match way.open_itself(flags) {
                        Err(Errno::LOOP | Errno::NOTDIR | Errno::XDEV) => {}
                        outcome => return outcome,
                    }
                }
                root.resolve(&self.shown(way.whole), flags, Mode::empty())
            }
        }
    }

    /// What a symlink leads to; `None` where it leads nowhere, or out.
    pub(crate) fn target(&self, way: &Way<'_>) -> Option<Kind> {
        if let Some(root) = &self.workspace {
            let metadata = root.metadata(&self.shown(way.whole)).ok()?;
            return Some(if metadata.is_file() {
                Kind::File
            } else if metadata.is_dir() {
                Kind::Directory
            } else {
                Kind::Other
            });
        }
        Some(match FileType::from_raw_mode(way.stat().ok()?.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            _ => Kind::Other,
        })
    }

    /// The rules that hold in the start because of `.gitignore` files above it, in the same
    /// repository and, in a workspace, beneath its root.
    pub(crate) fn levels_above(&self) -> Option<Arc<Level>> {
        if exists(self.directory(), c".git") {
            return None;
        }
        // The directories from the start upwards, the start not among them, each with the way
        // from it down to the start.
        let above = match &self.workspace {
            None => self.above_in_the_system(),
            Some(root) => above_in(root, &self.path),
        };
        let repository = above
            .iter()
            .position(|(directory, _)| exists(directory.as_fd(), c".git"))?;
        let mut level = None;
        for (number, (directory, prefix)) in above[..=repository].iter().enumerate().rev() {
            if number == repository {
                let excluded = self.excluded_by_the_repository(directory.as_fd());
                level = Level::above(level, prefix, excluded);
            }
            level = Level::above(
                level,
                prefix,
                gitignore(directory.as_fd()).unwrap_or_default(),
            );
        }
        level
    }

    fn above_in_the_system(&self) -> Vec<(OwnedFd, Vec<u8>)> {
        let mut found = Vec::new();
        let Ok(start) = std::fs::canonicalize(&self.path) else {
            return found;
        };
        for directory in start.ancestors().skip(1) {
            let Ok(opened) = openat(CWD, directory, DIRECTORY, Mode::empty()) else {
                break;
            };
            let way = start.strip_prefix(directory).unwrap_or(Path::new(""));
            let repository = exists(opened.as_fd(), c".git");
            found.push((opened, [way.as_os_str().as_bytes(), b"/"].concat()));
            if repository {
                break;
            }
        }
        found
    }

    /// The level in an open directory at `path` (from the start); `has` tells which names it holds,
    /// and `problem` is told where its `.gitignore` cannot be read.
    pub(crate) fn below(
        &self,
        directory: BorrowedFd<'_>,
        path: &[u8],
        inherited: Option<Arc<Level>>,
        has: impl Fn(&[u8]) -> bool,
        problem: impl FnOnce(Errno),
    ) -> Option<Arc<Level>> {
        let mut level = inherited;
        if has(b".git") {
            // A repository of its own: what the one around it ignores is not its business.
            level = Level::below(None, path, self.excluded_by_the_repository(directory));
        }
        if has(b".gitignore") {
            match gitignore(directory) {
                Ok(rules) => return Level::below(level, path, rules),
                Err(Errno::NOENT | Errno::LOOP | Errno::INVAL) => {}
                Err(errno) => problem(errno),
            }
        }
        level
    }

    /// The rules in `info/exclude` of the repository whose working tree the directory is, if it has
    /// them.
    fn excluded_by_the_repository(&self, directory: BorrowedFd<'_>) -> Rules {
        let read = || -> Result<Rules> {
            let git = self.git_directory(directory)?;
            let info = openat(git, "info", DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
            read_rules(info.as_fd(), "exclude")
        };
        read().unwrap_or_default()
    }

    /// What all working trees of the repository share: `.git`, or where the file of that name leads
    /// in a worktree or submodule. That may be anywhere, so a workspace does not follow it.
    fn git_directory(&self, directory: BorrowedFd<'_>) -> Result<OwnedFd> {
        let git = match openat(
            directory,
            ".git",
            DIRECTORY | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Err(Errno::NOTDIR) if self.workspace.is_none() => {
                let content = read_file(directory, ".git", MAX_POINTER)?;
                let path = content.strip_prefix(b"gitdir: ").ok_or(Errno::INVAL)?;
                openat(directory, pointed_at(path), DIRECTORY, Mode::empty())?
            }
            outcome => return outcome,
        };
        match read_file(git.as_fd(), "commondir", MAX_POINTER) {
            Ok(path) => openat(&git, pointed_at(&path), DIRECTORY, Mode::empty()),
            Err(Errno::NOENT) => Ok(git),
            Err(errno) => Err(errno),
        }
    }
}

fn pointed_at(line: &[u8]) -> &OsStr {
    let ending = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let length = line.iter().rposition(|byte| !ending(byte));
    OsStr::from_bytes(&line[..length.map_or(0, |last| last + 1)])
}

/// The directories from the root of a workspace to `path`. A path with `..` or a symlink in it has
/// none: where it really leads cannot be told by its text.
fn above_in(root: &Root, path: &Path) -> Vec<(OwnedFd, Vec<u8>)> {
    let names: Vec<&[u8]> = path
        .as_os_str()
        .as_bytes()
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    let mut found = Vec::new();
    for (depth, name) in names.iter().enumerate() {
        let way = [names[depth..].join(b"/".as_slice()).as_slice(), b"/"].concat();
        let directory = match found.last() {
            None => openat(root.directory(), ".", DIRECTORY, Mode::empty()),
            Some((above, _)) => {
                let above: &OwnedFd = above;
                let name = OsStr::from_bytes(names[depth - 1]);
                openat(above, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            }
        };
        match directory {
            Ok(directory) if *name != b".." => found.push((directory, way)),
            _ => return Vec::new(),
        }
    }
    found.reverse();
    found
}

/// The rules in the `.gitignore` of an open directory. A symlink of that name is not followed: git
/// does not either.
pub(crate) fn gitignore(directory: BorrowedFd<'_>) -> Result<Rules> {
    read_rules(directory, ".gitignore")
}

fn read_rules(directory: BorrowedFd<'_>, name: &str) -> Result<Rules> {
    Ok(Rules::parse(&read_file(directory, name, MAX_GITIGNORE)?))
}

fn read_file(directory: BorrowedFd<'_>, name: &str, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read;

    let file = openat(directory, name, FILE | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut content = Vec::new();
    std::fs::File::from(file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    Ok(content)
}

fn exists(directory: BorrowedFd<'_>, name: &std::ffi::CStr) -> bool {
    statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Names in a directory that a `.gitignore` of it, or above it, leaves out, taken away.
pub(crate) fn without_ignored(
    root: Option<&Arc<Root>>,
    path: &Path,
    mut names: Vec<(std::ffi::OsString, Kind)>,
) -> std::result::Result<Vec<(std::ffi::OsString, Kind)>, Error> {
    let origin = Origin::open(root, path)?;
    let has = |name: &[u8]| names.iter().any(|(listed, _)| listed.as_bytes() == name);
    let above = origin.levels_above();
    let level = origin.below(origin.directory(), b"", above, has, |_| ());
    names.retain(|(name, kind)| {
        let name = name.as_bytes();
        name != b".git"
            && !level
                .as_ref()
                .is_some_and(|level| level.ignores(name, name, *kind == Kind::Directory))
    });
    Ok(names)
}
