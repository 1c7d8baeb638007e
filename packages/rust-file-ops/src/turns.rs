//! Responsible for writers of one file that take turns: what a caller expects the file to be, and a
//! lock that is held from the look at it until it is written or replaced.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vespera_error::Result;

use crate::error::{changed, failed, locked};
use crate::hash::{sha256, sha256_of};
use crate::interrupt::Interrupt;
use crate::lock::Locked;
use crate::open::{Origin, kind_is, open_for_reading, open_for_writing};
use crate::place::{Access, Place};
use crate::read::modified_ns;

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
            sha256_of(file, &Interrupt::never()).map_err(failed("read", path))
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

/// Open the file while nobody else who takes turns is at work on it; `FileLocked` at once if
/// somebody is. Who has to wait, and for how long, is for the caller to say.
///
/// The lock (`flock`) is on the file itself, which may be replaced between the opening and the lock:
/// hence a look whether it is still the one.
pub(crate) fn open_alone(place: Place<'_>) -> Result<(Locked, Metadata)> {
    loop {
        let (file, metadata) = open_for_reading(place)?;
        if let Some((file, metadata)) = locked_alone(place, file, &metadata)? {
            return Ok((file, metadata));
        }
    }
}

/// The same for writing in place: a write beside an edit would be lost when that replaces the file.
pub(crate) fn open_alone_for_writing(
    place: Place<'_>,
    access: Access,
) -> Result<(Locked, Metadata, Origin<'_>)> {
    loop {
        let (file, metadata, origin) = open_for_writing(place, access)?;
        if let Some((file, metadata)) = locked_alone(place, file, &metadata)? {
            return Ok((file, metadata, origin));
        }
    }
}

/// The file, locked, and its metadata now; nothing if it is no longer the one at `place`.
fn locked_alone(
    place: Place<'_>,
    file: File,
    metadata: &Metadata,
) -> Result<Option<(Locked, Metadata)>> {
    let file = Locked::try_new(file).ok_or_else(|| locked(place.path()))?;
    match place.metadata() {
        Ok(now) if (now.dev(), now.ino()) == (metadata.dev(), metadata.ino()) => {
            Ok(Some((file, now)))
        }
        Ok(_) => Ok(None),
        Err(error) if kind_is(&error, io::ErrorKind::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
