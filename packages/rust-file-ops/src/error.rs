//! Responsible for how this crate words its failures; codes and mapping are `vespera_error`'s.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use vespera_error::{Error, ErrorCode};

use crate::text::Encoding;

/// Attach verb and path to a failure of the system: the number alone helps nobody.
pub(crate) fn failed<'a>(
    operation: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::io(operation, Some(path), source)
}

/// The path names something that could block or never end.
pub(crate) fn not_regular(path: &Path, kind: FileKind) -> Error {
    failed("open", path)(io::Error::other(NotRegular(kind))).with("errno", kind.errno())
}

/// The file is there, and its directory takes no other.
pub(crate) fn no_new_files(path: &Path) -> Error {
    failed("replace", path)(io::Error::other(NoNewFiles)).with("errno", NoNewFiles::ERRNO)
}

/// The content stops being UTF-8 at byte `offset`.
pub(crate) fn not_utf8(path: &Path, offset: usize) -> Error {
    let message = format!(
        "{}: not valid UTF-8 at byte {offset}; read it as bytes with read_file",
        path.display()
    );
    Error::new(ErrorCode::Encoding, message)
        .with_path("path", path)
        .with("offset", offset)
}

/// The content stops being text in that encoding at byte `offset`.
pub(crate) fn not_text(path: &Path, encoding: Encoding, offset: usize) -> Error {
    match encoding {
        Encoding::Utf16Le | Encoding::Utf16Be => {
            let message = format!(
                "{}: not valid UTF-16 at byte {offset}; read it as bytes with read_file",
                path.display()
            );
            Error::new(ErrorCode::Encoding, message)
                .with_path("path", path)
                .with("encoding", encoding.name())
                .with("offset", offset)
        }
        _ => not_utf8(path, offset),
    }
}

/// The file, of `size` bytes if that is known, is over the limit of the call.
pub(crate) fn over_limit(path: &Path, size: Option<u64>, limit: u64) -> Error {
    let message = format!(
        "{}: more than max_bytes={limit} would be read; raise it, or read a part with read_lines",
        path.display()
    );
    Error::new(ErrorCode::FileTooLarge, message)
        .with_path("path", path)
        .with("size", size)
        .with("limit", limit)
}

/// The file says it has `size` bytes, and no room can be had for them.
pub(crate) fn too_large(path: &Path, size: u64) -> Error {
    let message = format!("{}: its {size} bytes do not fit in memory", path.display());
    Error::new(ErrorCode::FileTooLarge, message)
        .with_path("path", path)
        .with("size", size)
}

/// Somebody else has written the file; `reason` says how that was seen.
pub(crate) fn changed(path: &Path, reason: &str) -> Error {
    let message = format!(
        "{}: {reason}; nothing was written, read it again and repeat the edit",
        path.display()
    );
    Error::new(ErrorCode::ContentChanged, message)
        .with_path("path", path)
        .with("reason", reason)
}

/// Somebody holds a lock on the file, so it cannot be written now.
pub(crate) fn locked(path: &Path) -> Error {
    let message = format!(
        "{}: somebody else holds a lock (flock) on it; nothing was written, try again",
        path.display()
    );
    Error::new(ErrorCode::FileLocked, message).with_path("path", path)
}

/// The glob pattern means nothing, for this reason.
pub(crate) fn bad_pattern(pattern: &OsStr, reason: String) -> Error {
    Error::new(
        ErrorCode::Pattern,
        format!("glob pattern '{}': {reason}", pattern.display()),
    )
    .with_path("pattern", Path::new(pattern))
    .with("reason", reason)
}

/// The payload of the `io::Error` for what is not a regular file: it keeps number and words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a regular file; give the path of a regular file")]
pub struct NotRegular(pub FileKind);

/// The payload of the `io::Error` for a file whose directory has no room for another beside it, as
/// in `/proc`: what the system says, "not found", is not true of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its directory takes no new files, which replacing it needs; write it with write_file")]
pub struct NoNewFiles;

impl NoNewFiles {
    /// What the system says of operations that a file system does not have.
    pub const ERRNO: i32 = libc::EOPNOTSUPP;
}

/// What stands where a regular file was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Fifo,
    Socket,
    Device,
}

impl FileKind {
    /// The number that the system itself uses for what lacks its other end, or an operation.
    pub fn errno(self) -> i32 {
        match self {
            FileKind::Fifo | FileKind::Socket => libc::ENXIO,
            FileKind::Device => libc::ENODEV,
        }
    }
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FileKind::Fifo => "a FIFO",
            FileKind::Socket => "a socket",
            FileKind::Device => "a device",
        })
    }
}
