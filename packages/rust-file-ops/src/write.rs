//! Responsible for writing in place: the same inode, owner, mode and hard links before and after.
//!
//! In place there is no way back once the old content is cut off, so room for the new content is
//! reserved first: a full disk or a size limit is found while the old content is still whole.
//! Who needs safety from crashes too takes `atomic`. Who writes takes turns with those who edit, as
//! the file that an edit replaces has lost what was written to it meanwhile.

use std::fs::File;
use std::io::{self, Seek, Write};

use vespera_error::Result;

use crate::error::failed;
use crate::place::{Access, Place};
use crate::turns::open_alone_for_writing;

/// Make `content` the content of the file, which is created when missing.
pub fn write_file<'a>(place: impl Into<Place<'a>>, content: &[u8]) -> Result<()> {
    let place = place.into();
    let (file, metadata, origin) = open_alone_for_writing(place, Access::Write)?;
    let outcome = if origin.is_new() {
        (&*file).write_all(content)
    } else {
        overwrite(&file, metadata.len(), content)
    };
    outcome.map_err(|error| {
        // Half a new file is worse than none. The write's own error matters, not this one's.
        origin.remove();
        failed("write", place.path())(error)
    })
}

/// Add `content` at the end of the file, which is created when missing.
///
/// One `O_APPEND` write, so that several writers do not tear each other's lines. What a full
/// disk cut short is taken back.
pub fn append_file<'a>(place: impl Into<Place<'a>>, content: &[u8]) -> Result<()> {
    let place = place.into();
    let (file, _, origin) = open_alone_for_writing(place, Access::Append)?;
    if let Err(error) = append(&file, content) {
        if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            origin.remove();
        }
        return Err(failed("write", place.path())(error));
    }
    Ok(())
}

fn overwrite(mut file: &File, old_size: u64, content: &[u8]) -> io::Result<()> {
    let new_size = content.len() as u64;
    if let Err(error) = reserve(file, new_size) {
        // Reserving may have grown the file before it failed.
        let _ = file.set_len(old_size);
        return Err(error);
    }
    file.write_all(content)?;
    file.set_len(new_size)
}

fn append(mut file: &File, content: &[u8]) -> io::Result<()> {
    let mut written = 0;
    while written < content.len() {
        match file.write(&content[written..]) {
            Ok(0) => return Err(take_back(file, written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(take_back(file, written, error)),
        }
    }
    Ok(())
}

/// Cut off the `written` bytes of a failed append, if nobody has appended after them.
fn take_back(mut file: &File, written: usize, error: io::Error) -> io::Error {
    if written > 0 {
        // After an O_APPEND write the position is the end of what this descriptor wrote.
        if let (Ok(end), Ok(metadata)) = (file.stream_position(), file.metadata())
            && end == metadata.len()
        {
            let _ = file.set_len(end - written as u64);
        }
    }
    error
}

/// Ask the file system for blocks. One that cannot reserve is not an error: it is tried anyway.
#[cfg(target_os = "linux")]
fn reserve(file: &File, size: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let Ok(length) = libc::off_t::try_from(size) else {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    };
    if length == 0 {
        return Ok(());
    }
    loop {
        // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => return Ok(()),
            _ => return Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: &File, _: u64) -> io::Result<()> {
    Ok(())
}
