//! Responsible for the root of a workspace: paths are resolved beneath it, by the kernel where it
//! can (`openat2` with `RESOLVE_BENEATH`, Linux 5.6), else name by name with `O_NOFOLLOW`.
//!
//! Looking at a path first and opening it afterwards is no containment: a symlink put there in
//! between leads out. So nothing here decides by text; every decision is about an open directory.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use vespera_error::{Error, ErrorCode, Result};

use crate::error::failed;
use crate::place::{Access, Creation};

/// As many as Linux follows before it says ELOOP.
const MAX_SYMLINKS: usize = 40;
/// `openat2` says EAGAIN when a rename anywhere raced with a `..` of the path.
#[cfg(target_os = "linux")]
const MAX_RACES: usize = 1000;
/// A path of so many bytes is too long for one call, however short its names are.
pub(crate) const PATH_MAX: usize = 4096;
/// Looking at a thing without opening it. Without `O_PATH` it is opened, but never waited for.
#[cfg(target_os = "linux")]
pub(crate) const LOOK: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
pub(crate) const LOOK: OFlags = OFlags::NONBLOCK;

/// An open directory that paths stay beneath, wherever it is moved to.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Open the directory at `path`, whose own symlinks are followed.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| failed("open", path)(errno.into()))?;
        Ok(Self {
            directory,
            path: path.to_path_buf(),
        })
    }

    /// A directory that is open already, known to the caller by `path`.
    pub(crate) fn from_directory(directory: OwnedFd, path: &Path) -> Self {
        Self {
            directory,
            path: path.to_path_buf(),
        }
    }

    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `path` leads to, symlinks followed.
    pub(crate) fn metadata(&self, path: &Path) -> Result<Metadata> {
        let opened = self.open_at(path, LOOK, Mode::empty())?;
        File::from(opened).metadata().map_err(failed("stat", path))
    }

    /// What stands at `path` itself, a symlink at its end not followed.
    pub(crate) fn metadata_of_link(&self, path: &Path) -> Result<Metadata> {
        let opened = self.open_at(path, LOOK | OFlags::NOFOLLOW, Mode::empty())?;
        File::from(opened).metadata().map_err(failed("stat", path))
    }

    pub(crate) fn open_file(
        &self,
        path: &Path,
        access: Access,
        creation: Creation,
    ) -> Result<File> {
        let creation = match creation {
            Creation::Existing => OFlags::empty(),
            Creation::New => OFlags::CREATE | OFlags::EXCL,
        };
        let mode = if creation.is_empty() {
            Mode::empty()
        } else {
            Mode::from_raw_mode(0o666)
        };
        let flags = access.flags() | creation;
        Ok(self.open_at(path, flags, mode)?.into())
    }

    /// Remove the name at the end of `path`.
    pub(crate) fn remove(&self, path: &Path) {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if let (Ok(directory), Some(name)) = (self.open_directory(parent, path), path.file_name()) {
            let _ = rustix::fs::unlinkat(&directory, name, rustix::fs::AtFlags::empty());
        }
    }

    /// The names in the directory at `path`, with their kinds where the file system tells them.
    pub(crate) fn list(&self, path: &Path) -> Result<Vec<(OsString, FileType)>> {
        let listed = || -> rustix::io::Result<Vec<(OsString, FileType)>> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let directory = self.resolve(path, flags, Mode::empty())?;
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(&directory)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let kind = match entry.file_type() {
                    FileType::Unknown => kind_of(&directory, entry.file_name()),
                    known => known,
                };
                names.push((OsString::from_vec(name.to_vec()), kind));
            }
            Ok(names)
        };
        listed().map_err(|errno| self.refused(errno, "list", path))
    }

    /// The directory at `path`, to create, rename and remove names in. Errors name `shown`, the path
    /// that the caller knows.
    pub(crate) fn open_directory(&self, path: &Path, shown: &Path) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.resolve(path, flags, Mode::empty())
            .map_err(|errno| self.refused(errno, "open", shown))
    }

    fn open_at(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        self.resolve(path, flags | OFlags::CLOEXEC, mode)
            .map_err(|errno| self.refused(errno, "open", path))
    }

    /// Open `path`, which stays beneath; `XDEV` if it would not.
    pub(crate) fn resolve(
        &self,
        path: &Path,
        flags: OFlags,
        mode: Mode,
    ) -> rustix::io::Result<OwnedFd> {
        resolve_beneath(self.directory.as_fd(), path, flags, mode)
    }

    fn refused(&self, errno: Errno, operation: &'static str, path: &Path) -> Error {
        match errno {
            Errno::XDEV => self.outside(path),
            other => failed(operation, path)(other.into()),
        }
    }

    fn outside(&self, path: &Path) -> Error {
        let message = format!(
            "{}: leads out of the workspace {}; give a path beneath it, without a leading slash",
            path.display(),
            self.path.display()
        );
        Error::new(ErrorCode::OutsideWorkspace, message)
            .with_path("path", path)
            .with_path("root", &self.path)
    }
}

/// Open `path`, which stays beneath `directory`; `XDEV` if it would not.
#[cfg(target_os = "linux")]
pub(crate) fn resolve_beneath(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{ResolveFlags, openat2};

    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..MAX_RACES {
        match openat2(directory, path, flags, mode, beneath) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // An old kernel, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => return walk(directory, path, flags, mode),
            Err(Errno::NAMETOOLONG) if path.as_os_str().len() >= PATH_MAX => {
                return long(directory, path, flags, mode);
            }
            outcome => return outcome,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn resolve_beneath(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    walk(directory, path, flags, mode)
}

/// The same for a path that is too long for one call. Piece by piece it costs little more; but each
/// piece stays beneath the one before, so `..` and symlinks that go up take the walk by name.
#[cfg(target_os = "linux")]
fn long(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let goes_up = path
        .components()
        .any(|name| name == std::path::Component::ParentDir);
    if goes_up {
        return walk(directory, path, flags, mode);
    }
    let piecewise = in_pieces(directory, path, flags, |from, piece, flags| {
        let mode = if flags.contains(OFlags::CREATE) {
            mode
        } else {
            Mode::empty()
        };
        resolve_beneath(from, piece, flags, mode)
    });
    match piecewise {
        Err(Errno::XDEV | Errno::LOOP) => walk(directory, path, flags, mode),
        outcome => outcome,
    }
}

/// Open a path of any length with `open`, which takes no more than a system call does.
pub(crate) fn in_pieces(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    open: impl Fn(BorrowedFd<'_>, &Path, OFlags) -> rustix::io::Result<OwnedFd>,
) -> rustix::io::Result<OwnedFd> {
    let mut rest = path.as_os_str().as_bytes();
    let mut here: Option<OwnedFd> = None;
    while rest.len() >= PATH_MAX {
        let cut = memchr::memrchr(b'/', &rest[..PATH_MAX - 1]).ok_or(Errno::NAMETOOLONG)?;
        // A slash at the very start stays: it leads out.
        let piece = Path::new(OsStr::from_bytes(&rest[..cut.max(1)]));
        let from = here.as_ref().map_or(directory, AsFd::as_fd);
        here = Some(open(
            from,
            piece,
            LOOK | OFlags::DIRECTORY | OFlags::CLOEXEC,
        )?);
        let next = rest[cut..].iter().position(|&byte| byte != b'/');
        rest = next.map_or(b".".as_slice(), |next| &rest[cut + next..]);
    }
    let from = here.as_ref().map_or(directory, AsFd::as_fd);
    open(from, Path::new(OsStr::from_bytes(rest)), flags)
}

/// For a file system that does not tell kinds while listing.
fn kind_of(directory: &OwnedFd, name: &std::ffi::CStr) -> FileType {
    rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .map_or(FileType::Unknown, |stat| {
            FileType::from_raw_mode(stat.st_mode)
        })
}

/// Open `path` beneath `root` one name after the other, none of them followed by the system.
fn walk(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<OwnedFd> {
    let mut names = VecDeque::new();
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT);
    }
    put_first(&mut names, path.as_os_str())?;
    // The way from the root to here: `..` goes back along it, never by the system's own `..`,
    // which somebody may have moved elsewhere.
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = names.pop_front() {
        let here = way.last().map_or(root, AsFd::as_fd);
        let last = names.is_empty();
        if name == ".." {
            way.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        if name == "." {
            continue;
        }
        let creates = flags.contains(OFlags::CREATE) && path.as_os_str().as_bytes().ends_with(b"/");
        if creates && !last && names.iter().all(|name| name == ".") {
            // As the kernel says of a name that only a directory can have.
            return Err(Errno::ISDIR);
        }
        let keep_link = last && flags.intersects(OFlags::EXCL | OFlags::NOFOLLOW);
        if !keep_link && let Ok(link) = readlinkat(here, name.as_os_str(), Vec::new()) {
            links += 1;
            if links > MAX_SYMLINKS {
                return Err(Errno::LOOP);
            }
            put_first(&mut names, OsStr::from_bytes(link.as_bytes()))?;
            continue;
        }
        if last {
            return openat(here, name.as_os_str(), flags | OFlags::NOFOLLOW, mode);
        }
        let flags = LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(here, name.as_os_str(), flags, Mode::empty())?;
        way.push(next);
    }
    // The path ends at a directory that is already open: open it again, by a name it always has.
    let here = way.last().map_or(root, AsFd::as_fd);
    if flags.contains(OFlags::CREATE) {
        return Err(Errno::ISDIR);
    }
    openat(here, ".", flags, mode)
}

/// Put the names of `path` before the rest; a slash at its end stands for `.`.
fn put_first(names: &mut VecDeque<OsString>, path: &OsStr) -> rustix::io::Result<()> {
    let bytes = path.as_bytes();
    if bytes.first() == Some(&b'/') {
        return Err(Errno::XDEV);
    }
    for name in bytes.rsplit(|&byte| byte == b'/') {
        let name = if name.is_empty() { b"." } else { name };
        names.push_front(OsString::from_vec(name.to_vec()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of resolving must agree, or a fallback would contain less than the kernel.
    #[test]
    fn the_walk_agrees_with_the_kernel() {
        let base = std::env::temp_dir().join(format!("vespera-root-{}", std::process::id()));
        let top = base.join("top");
        std::fs::create_dir_all(top.join("a/b")).expect("made");
        std::fs::write(top.join("a/b/f"), "in").expect("written");
        std::fs::write(base.join("secret"), "out").expect("written");
        let links = [
            ("up", "../secret"),
            ("abs", "/etc/passwd"),
            ("in", "a/b/f"),
            ("a/back", "../a/b"),
            ("loop", "loop"),
            ("gone", "nowhere"),
        ];
        for (name, target) in links {
            std::os::unix::fs::symlink(target, top.join(name)).expect("linked");
        }
        let root = Root::open(&top).expect("opened");
        let paths = [
            "a/b/f",
            "up",
            "abs",
            "in",
            "a/back/f",
            "loop",
            "gone",
            "..",
            "a/..",
            "a/../..",
            "a/../../secret",
            "/etc/passwd",
            "",
            ".",
            "a/",
            "a/b/f/",
            "none/f",
            "a/b/f/g",
            "./a/./b/f",
            "a/../in",
            "a/back/../../up",
        ];
        for path in paths {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let kernel = root.resolve(Path::new(path), flags, Mode::empty());
            let walked = walk(
                root.directory.as_fd(),
                Path::new(path),
                flags,
                Mode::empty(),
            );
            assert_eq!(kernel.map(drop), walked.map(drop), "{path:?}");
        }
        for path in [
            "new/",
            "new//",
            "gone/",
            "none/new/",
            "a/b/f/",
            "a/",
            "a/b/f/g/",
        ] {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(0o600);
            let kernel = root.resolve(Path::new(path), flags, mode);
            let walked = walk(root.directory.as_fd(), Path::new(path), flags, mode);
            assert_eq!(kernel.map(drop), walked.map(drop), "{path:?} created");
        }
        std::fs::remove_dir_all(&base).expect("removed");
    }
}
