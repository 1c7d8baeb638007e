//! Responsible for the content of a file as `bytes`: a large one is read into the object itself,
//! where a copy would cost as much as reading.

use std::fs::{File, Metadata};
use std::mem::MaybeUninit;

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::{run, run_until_interrupted};
use crate::error::failed;
use crate::interrupt::Interrupt;
use crate::open::open_for_reading;
use crate::place::Place;
use crate::read::{check_limit, read_limited, rest};

/// Below this a copy costs less than looking for the end of the file once more.
const LARGE: u64 = 1 << 18;
/// After so much it is time to look up.
const PIECE: usize = 64 << 20;

pub(super) fn read<'py>(
    py: Python<'py>,
    place: Place<'_>,
    limit: Option<u64>,
) -> PyResult<Bound<'py, PyBytes>> {
    let small = run(py, || {
        let (file, metadata) = open_for_reading(place)?;
        check_limit(place.path(), &metadata, limit)?;
        if metadata.len() >= LARGE {
            return Ok(Err((file, metadata)));
        }
        read_limited(place.path(), &file, &metadata, limit).map(Ok)
    })?;
    match small {
        Ok(content) => Ok(PyBytes::new(py, &content)),
        Err((file, metadata)) => read_large(py, place, &file, &metadata, limit),
    }
}

fn read_large<'py>(
    py: Python<'py>,
    place: Place<'_>,
    file: &File,
    metadata: &Metadata,
    limit: Option<u64>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut object = match Unfilled::new(py, metadata.len()) {
        Ok(object) => object,
        // No room for it: the plain way says so in the package's own words.
        Err(error) if error.is_instance_of::<PyMemoryError>(py) => {
            let content = run(py, || read_limited(place.path(), file, metadata, limit))?;
            return Ok(PyBytes::new(py, &content));
        }
        Err(error) => return Err(error),
    };
    let buffer = object.buffer();
    let size = buffer.len();
    let changed = run_until_interrupted(py, |interrupt| {
        let filled = fill(file, buffer, interrupt).map_err(failed("read", place.path()))?;
        let mut more = [0];
        let ended = rustix::io::retry_on_intr(|| rustix::io::read(file, &mut more))
            .map_err(|errno| failed("read", place.path())(errno.into()))?
            == 0;
        if ended && filled.len() == size {
            return Ok(None);
        }
        // It shrank or grew while it was read.
        let mut content = filled.to_vec();
        if !ended {
            content.extend_from_slice(&more);
            rest(place.path(), file, &mut content, 0, limit)?;
        }
        Ok(Some(content))
    })?;
    match changed {
        Some(content) => Ok(PyBytes::new(py, &content)),
        None => Ok(object.into_bytes()),
    }
}

/// The part of `buffer` that the file fills.
fn fill<'a>(
    file: &File,
    buffer: &'a mut [MaybeUninit<u8>],
    interrupt: &Interrupt<'_>,
) -> std::io::Result<&'a mut [u8]> {
    let mut filled = 0;
    while filled < buffer.len() {
        interrupt.check()?;
        let end = buffer.len().min(filled + PIECE);
        match rustix::io::read(file, &mut buffer[filled..end]) {
            Ok(([], _)) => break,
            Ok((read, _)) => filled += read.len(),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let start = buffer.as_mut_ptr().cast::<u8>();
    // SAFETY: the kernel has written the first `filled` bytes of `buffer`, one read behind the other,
    // and the buffer stays borrowed for as long as what is returned.
    Ok(unsafe { std::slice::from_raw_parts_mut(start, filled) })
}

/// A new `bytes` object whose content is not there yet. Nobody else knows of it: it is ours to
/// write to, also while other threads run, until it is handed out.
struct Unfilled<'py>(Bound<'py, PyBytes>);

impl<'py> Unfilled<'py> {
    fn new(py: Python<'py>, size: u64) -> PyResult<Self> {
        let Ok(size) = ffi::Py_ssize_t::try_from(size) else {
            return Err(PyMemoryError::new_err(()));
        };
        // SAFETY: without a source the object is made with its content uninitialized; the pointer
        // is a new reference, or null with an exception set.
        unsafe {
            let object = ffi::PyBytes_FromStringAndSize(std::ptr::null(), size);
            Ok(Self(
                Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked(),
            ))
        }
    }

    fn buffer(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the content of a `bytes` object stays where it is for the object's life, and the
        // one reference to it is borrowed exclusively.
        unsafe {
            let content = ffi::PyBytes_AsString(self.0.as_ptr()).cast::<MaybeUninit<u8>>();
            let size = ffi::PyBytes_Size(self.0.as_ptr());
            std::slice::from_raw_parts_mut(content, usize::try_from(size).unwrap_or(0))
        }
    }

    /// To be called once every byte of the buffer was written.
    fn into_bytes(self) -> Bound<'py, PyBytes> {
        self.0
    }
}
