//! Responsible for writers of one file that take turns: what a caller expects the file to be, and a
//! lock that is held from the look at it until it is replaced.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use vespera_error::Result;

use crate::error::{changed, failed};
use crate::hash::{sha256, sha256_of};
use crate::open::open_for_reading;
use crate::place::Place;
use crate::read::modified_ns;

/// An edit takes milliseconds; a lock that is held for so long is somebody else's, and no edit.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// What the caller knows of the file; writing over anything else would lose somebody's work.
#[derive(Debug, Clone)]
pub enum Expect {
    Anything,
    /// Time of the last change, in nanoseconds since 1970.
    ModifiedNs(i128),
    /// SHA-256 of the content, in hexadecimal digits.
    Sha256(String),
}

impl Expect {
    /// `ContentChanged` unless the file is the expected one.
    pub(crate) fn check(&self, path: &Path, metadata: &Metadata, content: &[u8]) -> Result<()> {
        self.check_by(path, metadata, || Ok(sha256(content)))
    }

    /// The same where nobody wants the content: it is hashed as it is read, whatever its size.
    pub(crate) fn check_file(&self, path: &Path, metadata: &Metadata, file: &File) -> Result<()> {
        self.check_by(path, metadata, || {
            sha256_of(file).map_err(failed("read", path))
        })
    }

    fn check_by(
        &self,
        path: &Path,
        metadata: &Metadata,
        hash: impl FnOnce() -> Result<String>,
    ) -> Result<()> {
        match self {
            Self::ModifiedNs(wanted) if *wanted != modified_ns(metadata) => {
                Err(changed(path, "its time of change is not the expected one"))
            }
            Self::Sha256(wanted) if *wanted != hash()? => {
                Err(changed(path, "its hash is not the expected one"))
            }
            _ => Ok(()),
        }
    }
}

/// Open the file when nobody else who takes turns is at work on it. The lock (`flock`) is on the
/// file itself, which is replaced: who waited for it must look whether it is still the one.
pub(crate) fn open_alone(place: Place<'_>) -> Result<(File, Metadata)> {
    let began = Instant::now();
    loop {
        let (file, metadata) = open_for_reading(place)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if began.elapsed() > PATIENCE => {
                return Err(failed("lock", place.path())(Errno::WOULDBLOCK.into()));
            }
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            // A file system without locks: the look before the rename must do.
            Err(_) => return Ok((file, metadata)),
            Ok(()) => {
                let now = place.metadata()?;
                if (now.dev(), now.ino()) == (metadata.dev(), metadata.ino()) {
                    // Taken again: it may have been written in place while we waited.
                    let metadata = file.metadata().map_err(failed("stat", place.path()))?;
                    return Ok((file, metadata));
                }
            }
        }
    }
}
