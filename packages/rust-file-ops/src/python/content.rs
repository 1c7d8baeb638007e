//! Responsible for the content of a file as `bytes`: a large one is read into the object itself.

use std::fs::File;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::run;
use crate::error::failed;
use crate::open::open_for_reading;
use crate::place::Place;
use crate::read::{check_limit, read_limited};

/// Below this a copy costs less than looking for the end of the file once more.
const LARGE: u64 = 1 << 18;

/// What became of reading into an object that was made as large as the file said it was.
enum Read {
    Whole,
    /// The file is no longer, or not, of that size.
    Otherwise(Vec<u8>),
}

pub(super) fn read<'py>(
    py: Python<'py>,
    place: Place<'_>,
    limit: Option<u64>,
) -> PyResult<Bound<'py, PyBytes>> {
    let small = run(py, || {
        let (file, metadata) = open_for_reading(place)?;
        if metadata.len() < LARGE {
            let content = read_limited(place.path(), &file, &metadata, limit)?;
            return Ok(Ok(content));
        }
        check_limit(place.path(), &metadata, limit)?;
        Ok(Err((file, metadata)))
    })?;
    let (file, metadata) = match small {
        Ok(content) => return Ok(PyBytes::new(py, &content)),
        Err(large) => large,
    };
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mut outcome = Read::Whole;
    let object = PyBytes::new_with(py, size, |buffer| {
        outcome = run(py, || {
            let filled = fill(&file, buffer).map_err(failed("read", place.path()))?;
            let mut more = [0];
            let ended = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut more))
                .map_err(|errno| failed("read", place.path())(errno.into()))?
                == 0;
            if ended && filled == buffer.len() {
                return Ok(Read::Whole);
            }
            let mut content = buffer[..filled].to_vec();
            if !ended {
                content.extend_from_slice(&more);
                content.extend(read_limited(place.path(), &file, &metadata, None)?);
            }
            check_length(place, content.len(), limit)?;
            Ok(Read::Otherwise(content))
        })?;
        Ok(())
    });
    match (object, outcome) {
        (Ok(_), Read::Otherwise(content)) => Ok(PyBytes::new(py, &content)),
        (Ok(object), Read::Whole) => Ok(object),
        // Not even room for the object: the plain way says it in the package's own words.
        (Err(error), _) if error.is_instance_of::<pyo3::exceptions::PyMemoryError>(py) => {
            let content = run(py, || read_limited(place.path(), &file, &metadata, limit))?;
            Ok(PyBytes::new(py, &content))
        }
        (Err(error), _) => Err(error),
    }
}

fn check_length(place: Place<'_>, length: usize, limit: Option<u64>) -> crate::Result<()> {
    match limit {
        Some(limit) if length as u64 > limit => {
            Err(crate::error::over_limit(place.path(), None, limit))
        }
        _ => Ok(()),
    }
}

fn fill(file: &File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::retry_on_intr(|| rustix::io::read(file, &mut buffer[filled..]))? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
