//! Responsible for the hash of a file's content, in constant memory.
//!
//! BLAKE3 is a tree: blocks of a large file are read and hashed by all processors at once, each
//! block while it is still in the cache, and joined in the end. SHA-256 is a chain, so there only
//! reading runs beside hashing. No mmap: a file that is truncated meanwhile must not end the
//! process.

mod blake3_tree;

use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest, Sha256};
use vespera_error::Result;

use crate::error::failed;
use crate::interrupt::Interrupt;
use crate::open::open_for_reading;
use crate::place::Place;

/// Stays in the cache between reading and hashing.
const BLOCK: usize = 1 << 18;

/// The hashes that a file can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Blake3,
    Sha256,
}

impl Algorithm {
    /// The one of that name, which the Python half has checked.
    #[cfg(feature = "python")]
    pub(crate) fn named(name: &str) -> Self {
        if name == "blake3" {
            Self::Blake3
        } else {
            Self::Sha256
        }
    }
}

/// The hash of the whole content, in lower-case hexadecimal digits. A large file is hashed by all
/// processors where the hash allows it.
pub fn hash_file<'a>(place: impl Into<Place<'a>>, algorithm: Algorithm) -> Result<String> {
    hash_file_with(place.into(), algorithm, usize::MAX, &Interrupt::never())
}

/// The same, by that many threads at most, until it is interrupted.
pub fn hash_file_with(
    place: Place<'_>,
    algorithm: Algorithm,
    threads: usize,
    interrupt: &Interrupt<'_>,
) -> Result<String> {
    let (file, metadata) = open_for_reading(place)?;
    match algorithm {
        Algorithm::Blake3 => match blake3_tree::hash(&file, metadata.len(), threads, interrupt) {
            Ok(Some(hash)) => Ok(hash),
            Ok(None) => blake3_of(&file, interrupt),
            Err(error) => Err(error),
        },
        Algorithm::Sha256 => sha256_of(&file, interrupt),
    }
    .map_err(failed("read", place.path()))
}

/// The hash of bytes that are already here.
pub fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn blake3_of(file: &File, interrupt: &Interrupt<'_>) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    blocks(file, interrupt, |block| {
        hasher.update(block);
    })?;
    Ok(hasher.finalize().to_hex().to_string())
}

pub(crate) fn sha256_of(file: &File, interrupt: &Interrupt<'_>) -> io::Result<String> {
    let mut hasher = Sha256::new();
    blocks(file, interrupt, |block| hasher.update(block))?;
    Ok(hex(&hasher.finalize()))
}

fn blocks(
    mut file: &File,
    interrupt: &Interrupt<'_>,
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        interrupt.check()?;
        match file.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => take(&block[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_nothing_is_the_published_one() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(b""), empty);
    }
}
