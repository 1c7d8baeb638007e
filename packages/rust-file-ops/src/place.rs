//! Responsible for how a path is reached: as the process sees it, or beneath a root that nothing
//! leaves. Every operation takes a `Place`, so that none exists which a workspace cannot contain.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::path::Path;

use rustix::fs::OFlags;
use vespera_error::Result;

use crate::error::failed;
use crate::root::Root;

/// A path, and the root that it must stay beneath, if there is one.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    root: Option<&'a Root>,
    path: &'a Path,
}

/// What is done with the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Append,
}

impl Access {
    /// The flags of `open`, which never waits for the other end of a FIFO.
    pub(crate) fn flags(self) -> OFlags {
        let access = match self {
            Self::Read => OFlags::RDONLY,
            Self::Write => OFlags::WRONLY,
            Self::Append => OFlags::WRONLY | OFlags::APPEND,
        };
        access | OFlags::NONBLOCK | OFlags::NOCTTY
    }
}

/// What is done about a file that is missing, or is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    Existing,
    New,
}

/// What a name in a directory stands for, symlinks not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Other => "other",
        }
    }
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Place<'a> {
    fn from(path: &'a P) -> Self {
        Self::new(None, path.as_ref())
    }
}

impl<'a> Place<'a> {
    /// `path` beneath `root`, or as the process sees it.
    pub fn new(root: Option<&'a Root>, path: &'a Path) -> Self {
        Self { root, path }
    }

    /// The path as it was given.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    pub(crate) fn root(&self) -> Option<&'a Root> {
        self.root
    }

    /// Another path that is reached the same way.
    pub(crate) fn at<'b>(self, path: &'b Path) -> Place<'b>
    where
        'a: 'b,
    {
        Place {
            root: self.root,
            path,
        }
    }

    /// What the path leads to, symlinks followed, nothing opened for reading.
    pub(crate) fn metadata(&self) -> Result<Metadata> {
        match self.root {
            None => std::fs::metadata(self.path).map_err(failed("stat", self.path)),
            Some(root) => root.metadata(self.path),
        }
    }

    /// What stands at the path itself, a symlink at its end not followed.
    pub(crate) fn metadata_of_link(&self) -> Result<Metadata> {
        match self.root {
            None => std::fs::symlink_metadata(self.path).map_err(failed("stat", self.path)),
            Some(root) => root.metadata_of_link(self.path),
        }
    }

    /// The names in this directory. One whose kind cannot be told has vanished and is left out.
    pub(crate) fn list(&self) -> Result<Vec<(OsString, Kind)>> {
        use rustix::fs::FileType;

        if let Some(root) = self.root {
            let kind = |kind| match kind {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                FileType::Symlink => Kind::Symlink,
                _ => Kind::Other,
            };
            let names = root.list(self.path)?;
            return Ok(names
                .into_iter()
                .map(|(name, of)| (name, kind(of)))
                .collect());
        }
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.path).map_err(failed("list", self.path))? {
            let entry = entry.map_err(failed("list", self.path))?;
            let Ok(of) = entry.file_type() else {
                continue;
            };
            let kind = if of.is_file() {
                Kind::File
            } else if of.is_dir() {
                Kind::Directory
            } else if of.is_symlink() {
                Kind::Symlink
            } else {
                Kind::Other
            };
            names.push((entry.file_name(), kind));
        }
        Ok(names)
    }

    /// Take away the file that was made here; the error that made it so matters, not this one's.
    pub(crate) fn remove(&self) {
        match self.root {
            None => drop(std::fs::remove_file(self.path)),
            Some(root) => root.remove(self.path),
        }
    }

    /// Open without ever waiting for the other end of a FIFO.
    pub(crate) fn open(&self, access: Access, creation: Creation) -> Result<File> {
        if let Some(root) = self.root {
            return root.open_file(self.path, access, creation);
        }
        let mut options = OpenOptions::new();
        match access {
            Access::Read => options.read(true),
            Access::Write => options.write(true),
            Access::Append => options.append(true),
        };
        match creation {
            Creation::Existing => &mut options,
            Creation::New => options.create_new(true),
        };
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::custom_flags(
            &mut options,
            libc::O_NONBLOCK | libc::O_NOCTTY,
        );
        options.open(self.path).map_err(failed("open", self.path))
    }
}
