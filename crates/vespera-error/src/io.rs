//! Responsible for the system's failures: errno, path and operation together, none of them lost.

use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};

/// What the system refused: `operation` on `path`, and why.
#[derive(Debug, thiserror::Error)]
#[error("{operation}{}: {source}", self.quoted_path())]
pub struct IoFailure {
    operation: &'static str,
    path: Option<PathBuf>,
    source: IoError,
}

impl IoFailure {
    /// `operation` is a verb such as `open`; `path` the file it was about, if it was about one.
    pub fn new(operation: &'static str, path: Option<&Path>, source: IoError) -> Self {
        Self {
            operation,
            path: path.map(Path::to_path_buf),
            source,
        }
    }

    /// The system's number; for errors that Rust made itself, the number that fits their kind.
    pub fn errno(&self) -> i32 {
        // On Windows raw_os_error is a WinError, which Python translates by itself.
        if cfg!(unix)
            && let Some(number) = self.source.raw_os_error()
        {
            return number;
        }
        errno_of_kind(self.source.kind())
    }

    /// The verb, such as `open`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The path exactly as it was given, also where it is not UTF-8.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The io error itself.
    pub fn io_error(&self) -> &IoError {
        &self.source
    }

    fn quoted_path(&self) -> String {
        match &self.path {
            Some(path) => format!(" '{}'", path.display()),
            None => String::new(),
        }
    }
}

/// Python picks the `OSError` subclass by errno, so each kind with a subclass has its number here.
fn errno_of_kind(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::NotFound => libc::ENOENT,
        ErrorKind::PermissionDenied => libc::EACCES,
        ErrorKind::AlreadyExists => libc::EEXIST,
        ErrorKind::ConnectionRefused => libc::ECONNREFUSED,
        ErrorKind::ConnectionReset => libc::ECONNRESET,
        ErrorKind::ConnectionAborted => libc::ECONNABORTED,
        ErrorKind::BrokenPipe => libc::EPIPE,
        ErrorKind::WouldBlock => libc::EAGAIN,
        ErrorKind::TimedOut => libc::ETIMEDOUT,
        ErrorKind::Interrupted => libc::EINTR,
        ErrorKind::NotADirectory => libc::ENOTDIR,
        ErrorKind::IsADirectory => libc::EISDIR,
        ErrorKind::DirectoryNotEmpty => libc::ENOTEMPTY,
        ErrorKind::StorageFull => libc::ENOSPC,
        ErrorKind::FileTooLarge => libc::EFBIG,
        ErrorKind::OutOfMemory => libc::ENOMEM,
        ErrorKind::Unsupported => libc::ENOSYS,
        ErrorKind::InvalidInput | ErrorKind::InvalidData => libc::EINVAL,
        _ => libc::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_number_wins_over_the_kind() {
        let failure = IoFailure::new("write", None, IoError::from_raw_os_error(libc::ENOSPC));
        assert_eq!(failure.errno(), libc::ENOSPC);
        assert!(failure.to_string().starts_with("write: "), "{failure}");
    }

    #[test]
    fn an_error_without_a_number_gets_that_of_its_kind() {
        let kinds = [
            (ErrorKind::NotFound, libc::ENOENT),
            (ErrorKind::UnexpectedEof, libc::EIO),
            (ErrorKind::TimedOut, libc::ETIMEDOUT),
        ];
        for (kind, number) in kinds {
            assert_eq!(
                IoFailure::new("read", None, IoError::from(kind)).errno(),
                number
            );
        }
    }
}
