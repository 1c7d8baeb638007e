//! Responsible for the bindings of text: encodings, ranges of lines, chunks, whole replacements.

use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::{Root, at, run};
use crate::chunk::Boundary;
use crate::rewrite::Endings;
use crate::text::Encoding;
use crate::turns::Expect;

/// Text, encoding, newline, size, time of change in nanoseconds.
type TextOutcome = (Py<PyAny>, &'static str, Option<&'static str>, u64, i128);

/// `encoding` is a name that the Python half has checked; none is the one that the mark tells.
#[pyfunction]
#[pyo3(signature = (path, encoding=None, max_bytes=None, root=None))]
pub(crate) fn read_text(
    py: Python<'_>,
    path: PathBuf,
    encoding: Option<&str>,
    max_bytes: Option<u64>,
    root: Option<&Root>,
) -> PyResult<TextOutcome> {
    let encoding = encoding_of(encoding)?;
    let found = run(py, || {
        crate::read::read_text(at(root, &path), encoding, max_bytes)
    })?;
    Ok((
        found.text().into_pyobject(py)?.into_any().unbind(),
        found.encoding.name(),
        found.newline.name(),
        found.size,
        found.modified_ns,
    ))
}

/// Text, first byte, byte behind the last, whether the file ends there, encoding.
type LinesOutcome = (String, u64, u64, bool, &'static str);

#[pyfunction]
#[pyo3(signature = (path, start, count=None, encoding=None, max_bytes=None, root=None))]
pub(crate) fn read_lines(
    py: Python<'_>,
    path: PathBuf,
    start: u64,
    count: Option<u64>,
    encoding: Option<&str>,
    max_bytes: Option<u64>,
    root: Option<&Root>,
) -> PyResult<LinesOutcome> {
    let encoding = encoding_of(encoding)?;
    let found = run(py, || {
        crate::lines::read_lines(at(root, &path), start, count, encoding, max_bytes)
    })?;
    let (from, to) = found.bytes;
    Ok((
        found.text,
        from,
        to,
        found.end_of_file,
        found.encoding.name(),
    ))
}

#[pyfunction]
#[pyo3(signature = (path, content, modified_ns=None, sha256=None, root=None))]
pub(crate) fn replace_file(
    py: Python<'_>,
    path: PathBuf,
    content: &[u8],
    modified_ns: Option<i128>,
    sha256: Option<String>,
    root: Option<&Root>,
) -> PyResult<()> {
    let expect = expect_of(modified_ns, sha256);
    run(py, || {
        crate::rewrite::replace_file(at(root, &path), content, &expect)
    })
}

/// `endings` is "keep", "\n", "\r\n" or none. Gives size, time of change and encoding.
#[pyfunction]
#[pyo3(signature = (path, text, encoding, endings, modified_ns=None, sha256=None, root=None))]
#[expect(
    clippy::too_many_arguments,
    reason = "they are those of the Python function"
)]
pub(crate) fn write_text(
    py: Python<'_>,
    path: PathBuf,
    text: &str,
    encoding: Option<&str>,
    endings: Option<&str>,
    modified_ns: Option<i128>,
    sha256: Option<String>,
    root: Option<&Root>,
) -> PyResult<(usize, i128, &'static str)> {
    let encoding = encoding_of(encoding)?;
    let endings = match endings {
        None => Endings::AsGiven,
        Some("\n") => Endings::Lf,
        Some("\r\n") => Endings::CrLf,
        Some(_) => Endings::Kept,
    };
    let expect = expect_of(modified_ns, sha256);
    let done = run(py, || {
        crate::rewrite::write_text(at(root, &path), text, encoding, endings, &expect)
    })?;
    Ok((done.size, done.modified_ns, done.encoding.name()))
}

/// First byte, byte behind the last, first character, character behind the last, line.
type ChunkOutcome = (usize, usize, usize, usize, usize);

/// `boundary` is "character", "line" or "sentence"; `overlap` is less than `size`.
#[pyfunction]
pub(crate) fn chunk_text(
    py: Python<'_>,
    text: &str,
    size: usize,
    overlap: usize,
    boundary: &str,
) -> Vec<ChunkOutcome> {
    let boundary = match boundary {
        "character" => Boundary::Character,
        "line" => Boundary::Line,
        _ => Boundary::Sentence,
    };
    py.detach(|| {
        crate::chunk::chunk_text(text, size, overlap, boundary)
            .into_iter()
            .map(|one| {
                let (from, to) = one.bytes;
                (from, to, one.characters.0, one.characters.1, one.line)
            })
            .collect()
    })
}

pub(super) fn encoding_of(name: Option<&str>) -> PyResult<Option<Encoding>> {
    let Some(name) = name else {
        return Ok(None);
    };
    Encoding::named(name)
        .map(Some)
        .ok_or_else(|| PyValueError::new_err(format!("no encoding is called {name:?}")))
}

pub(super) fn expect_of(modified_ns: Option<i128>, sha256: Option<String>) -> Expect {
    match (modified_ns, sha256) {
        (Some(time), _) => Expect::ModifiedNs(time),
        (None, Some(hash)) => Expect::Sha256(hash),
        (None, None) => Expect::Anything,
    }
}
