//! Responsible for the names in one directory: read in one go into one piece of memory, so that a
//! directory of a million names costs their bytes and little more.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Result;

use crate::place::Kind;

/// The names, in the order of the system or sorted.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    bytes: Vec<u8>,
    names: Vec<Listed>,
}

#[derive(Debug, Clone, Copy)]
struct Listed {
    start: u32,
    length: u16,
    kind: Kind,
}

impl Listing {
    /// Read the directory; `buffer` is kept from one to the next.
    pub(crate) fn read(directory: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> Result<Self> {
        let mut found = Self::default();
        each(directory, buffer, |name, kind| {
            let bytes = name.to_bytes();
            if bytes == b"." || bytes == b".." {
                return;
            }
            let kind = match kind {
                FileType::Unknown => {
                    let Ok(stat) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
                        // It has vanished.
                        return;
                    };
                    FileType::from_raw_mode(stat.st_mode)
                }
                known => known,
            };
            found.push(bytes, kind);
        })?;
        Ok(found)
    }

    fn push(&mut self, name: &[u8], kind: FileType) {
        // Past 4 GiB of names in one directory the rest is left out: no file system gets there.
        let Ok(start) = u32::try_from(self.bytes.len()) else {
            return;
        };
        self.bytes.extend_from_slice(name);
        self.names.push(Listed {
            start,
            length: u16::try_from(name.len()).unwrap_or(u16::MAX),
            kind: match kind {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Directory,
                FileType::Symlink => Kind::Symlink,
                _ => Kind::Other,
            },
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn get(&self, index: usize) -> (&[u8], Kind) {
        let listed = self.names[index];
        let start = listed.start as usize;
        let name = &self.bytes[start..start + usize::from(listed.length)];
        (name, listed.kind)
    }

    pub(crate) fn set_kind(&mut self, index: usize, kind: Kind) {
        self.names[index].kind = kind;
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        (0..self.len()).any(|index| self.get(index).0 == name)
    }

    /// Keep only these; `keep` is told index, name and kind.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&[u8], Kind) -> bool) {
        let bytes = &self.bytes;
        self.names.retain(|listed| {
            let start = listed.start as usize;
            keep(
                &bytes[start..start + usize::from(listed.length)],
                listed.kind,
            )
        });
    }

    /// Put the directories behind the rest; the answer is where they begin.
    pub(crate) fn put_directories_last(&mut self) -> usize {
        let is_directory = |listed: &Listed| listed.kind == Kind::Directory;
        let directories: Vec<Listed> = self.names.iter().copied().filter(is_directory).collect();
        self.names.retain(|listed| !is_directory(listed));
        let files = self.names.len();
        self.names.extend(directories);
        files
    }

    /// Sort by the bytes of the names.
    pub(crate) fn sort(&mut self) {
        let bytes = &self.bytes;
        let name = |listed: &Listed| {
            let start = listed.start as usize;
            &bytes[start..start + usize::from(listed.length)]
        };
        self.names
            .sort_unstable_by(|one, other| name(one).cmp(name(other)));
    }
}

#[cfg(target_os = "linux")]
fn each(
    directory: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    mut found: impl FnMut(&CStr, FileType),
) -> Result<()> {
    buffer.reserve(64 << 10);
    let mut entries = rustix::fs::RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        found(entry.file_name(), entry.file_type());
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn each(
    directory: BorrowedFd<'_>,
    _: &mut Vec<u8>,
    mut found: impl FnMut(&CStr, FileType),
) -> Result<()> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        found(entry.file_name(), entry.file_type());
    }
    Ok(())
}
