//! Responsible for the hash of a file's content, in constant memory.

use std::fs::File;
use std::io::{self, Read};

use sha2::{Digest, Sha256};
use vespera_error::Result;

use crate::error::failed;
use crate::open::open_for_reading;
use crate::place::Place;

/// Large enough to feed two threads, small enough to stay in the cache of most machines.
const BLOCK: usize = 1 << 20;

/// The hashes that a file can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Blake3,
    Sha256,
}

/// The hash of the whole content, in lower-case hexadecimal digits.
pub fn hash_file<'a>(place: impl Into<Place<'a>>, algorithm: Algorithm) -> Result<String> {
    let place = place.into();
    let (file, _) = open_for_reading(place)?;
    match algorithm {
        Algorithm::Blake3 => blake3_of(&file),
        Algorithm::Sha256 => sha256_of(&file),
    }
    .map_err(failed("read", place.path()))
}

/// The hash of bytes that are already here.
pub fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn blake3_of(file: &File) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    blocks(file, |block| {
        hasher.update(block);
    })?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn sha256_of(file: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    blocks(file, |block| hasher.update(block))?;
    Ok(hex(&hasher.finalize()))
}

fn blocks(mut file: &File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
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
