//! Responsible for the bindings: arguments in, interpreter released, errors out.
//!
//! The Python half has already turned every path into `str` (undecodable bytes escaped), so each
//! function here converts, detaches and calls. Exceptions are Python classes, so that `except`
//! means the same on both backends.

#![expect(
    clippy::needless_pass_by_value,
    reason = "arguments converted from Python are owned by the function they come to"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use vespera_error::Error;

use crate::NotRegular;

#[pyfunction]
pub(crate) fn read_file(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyBytes>> {
    let content = run(py, || crate::read::read_file(&path))?;
    Ok(PyBytes::new(py, &content))
}

#[pyfunction]
pub(crate) fn read_file_string(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    run(py, || crate::read::read_file_string(&path))
}

#[pyfunction]
pub(crate) fn read_file_lines(py: Python<'_>, path: PathBuf) -> PyResult<Vec<String>> {
    run(py, || crate::read::read_file_lines(&path))
}

#[pyfunction]
pub(crate) fn write_file(py: Python<'_>, path: PathBuf, content: &[u8]) -> PyResult<()> {
    run(py, || crate::write::write_file(&path, content))
}

#[pyfunction]
pub(crate) fn write_file_string(py: Python<'_>, path: PathBuf, content: &str) -> PyResult<()> {
    run(py, || crate::write::write_file(&path, content.as_bytes()))
}

#[pyfunction]
pub(crate) fn append_file(py: Python<'_>, path: PathBuf, content: &str) -> PyResult<()> {
    run(py, || crate::write::append_file(&path, content.as_bytes()))
}

#[pyfunction]
pub(crate) fn write_file_atomic(py: Python<'_>, path: PathBuf, content: &str) -> PyResult<()> {
    run(py, || {
        crate::atomic::write_file_atomic(&path, content.as_bytes())
    })
}

#[pyfunction]
pub(crate) fn glob_files(
    py: Python<'_>,
    directory: PathBuf,
    pattern: OsString,
) -> PyResult<Vec<OsString>> {
    run(py, || {
        let found = crate::glob::glob_files(&directory, &pattern)?;
        Ok(found.into_iter().map(PathBuf::into_os_string).collect())
    })
}

#[pyfunction]
pub(crate) fn get_file_info(py: Python<'_>, path: PathBuf) -> PyResult<(u64, bool, bool)> {
    let info = run(py, || crate::info::get_file_info(&path))?;
    Ok((info.size, info.is_file, info.is_dir))
}

/// What was built: a debug build must be able to say so, and a stale one its version.
#[pyfunction]
pub(crate) fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item(
        "profile",
        if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    )?;
    Ok(info)
}

/// Run `work` while other threads use the interpreter.
fn run<T: Send>(py: Python<'_>, work: impl FnOnce() -> crate::Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| to_exception(py, &error))
}

/// The exception for `error`: `vespera_error` knows them all but the one with words of our own.
fn to_exception(py: Python<'_>, error: &Error) -> PyErr {
    match not_regular(error) {
        Some((NotRegular(kind), path)) => {
            let words = NotRegular(kind).to_string();
            PyOSError::new_err((
                kind.errno(),
                words,
                path.map(|path| path.as_os_str().to_owned()),
            ))
        }
        None => vespera_error::python::to_pyerr(py, "vespera_file_ops.errors", error),
    }
}

fn not_regular(error: &Error) -> Option<(NotRegular, Option<&Path>)> {
    let failure = error.io_failure()?;
    let payload = failure.io_error().get_ref()?.downcast_ref::<NotRegular>()?;
    Some((*payload, failure.path()))
}
