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
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use vespera_error::Error;

use crate::edit::{Edit, Position};
use crate::hash::Algorithm;
use crate::interrupt::Interrupt;
use crate::place::Place;
use crate::{NoNewFiles, NotRegular};

pub(crate) mod batch;
mod content;
pub(crate) mod find;
pub(crate) mod text;

#[pyfunction]
#[pyo3(signature = (path, root=None, max_bytes=None))]
pub(crate) fn read_file<'py>(
    py: Python<'py>,
    path: PathBuf,
    root: Option<&Root>,
    max_bytes: Option<u64>,
) -> PyResult<Bound<'py, PyBytes>> {
    content::read(py, at(root, &path), max_bytes)
}

#[pyfunction]
#[pyo3(signature = (path, root=None, max_bytes=None))]
pub(crate) fn read_file_string(
    py: Python<'_>,
    path: PathBuf,
    root: Option<&Root>,
    max_bytes: Option<u64>,
) -> PyResult<String> {
    run(py, || {
        crate::read::read_file_string_up_to(at(root, &path), max_bytes)
    })
}

#[pyfunction]
#[pyo3(signature = (path, root=None, max_bytes=None))]
pub(crate) fn read_file_lines(
    py: Python<'_>,
    path: PathBuf,
    root: Option<&Root>,
    max_bytes: Option<u64>,
) -> PyResult<Vec<String>> {
    run(py, || {
        crate::read::read_file_lines_up_to(at(root, &path), max_bytes)
    })
}

#[pyfunction]
#[pyo3(signature = (path, content, root=None))]
pub(crate) fn write_file(
    py: Python<'_>,
    path: PathBuf,
    content: &[u8],
    root: Option<&Root>,
) -> PyResult<()> {
    run(py, || crate::write::write_file(at(root, &path), content))
}

#[pyfunction]
#[pyo3(signature = (path, content, root=None))]
pub(crate) fn write_file_string(
    py: Python<'_>,
    path: PathBuf,
    content: &str,
    root: Option<&Root>,
) -> PyResult<()> {
    run(py, || {
        crate::write::write_file(at(root, &path), content.as_bytes())
    })
}

#[pyfunction]
#[pyo3(signature = (path, content, root=None))]
pub(crate) fn append_file(
    py: Python<'_>,
    path: PathBuf,
    content: &str,
    root: Option<&Root>,
) -> PyResult<()> {
    run(py, || {
        crate::write::append_file(at(root, &path), content.as_bytes())
    })
}

#[pyfunction]
#[pyo3(signature = (path, content, root=None))]
pub(crate) fn write_file_atomic(
    py: Python<'_>,
    path: PathBuf,
    content: &str,
    root: Option<&Root>,
) -> PyResult<()> {
    run(py, || {
        crate::atomic::write_file_atomic(at(root, &path), content.as_bytes())
    })
}

#[pyfunction]
#[pyo3(signature = (directory, pattern, gitignore, root=None))]
pub(crate) fn glob_files(
    py: Python<'_>,
    directory: PathBuf,
    pattern: OsString,
    gitignore: bool,
    root: Option<&Root>,
) -> PyResult<Vec<OsString>> {
    run_until_interrupted(py, |interrupt| {
        let root = root.map(|root| &root.0);
        let found =
            crate::glob::glob_files_until(root, &directory, &pattern, gitignore, interrupt)?;
        Ok(found.into_iter().map(PathBuf::into_os_string).collect())
    })
}

#[pyfunction]
#[pyo3(signature = (path, root=None))]
pub(crate) fn get_file_info(
    py: Python<'_>,
    path: PathBuf,
    root: Option<&Root>,
) -> PyResult<(u64, bool, bool)> {
    let info = run(py, || crate::info::get_file_info(at(root, &path)))?;
    Ok((info.size, info.is_file, info.is_dir))
}

/// What a path is: size, kind, mode, time of change, whether it is a symlink, links, inode, device,
/// owner and group.
#[pyfunction]
#[pyo3(signature = (path, follow_symlinks, root=None))]
pub(crate) fn file_info(
    py: Python<'_>,
    path: PathBuf,
    follow_symlinks: bool,
    root: Option<&Root>,
) -> PyResult<InfoOutcome> {
    let info = run(py, || {
        crate::info::file_info(at(root, &path), follow_symlinks)
    })?;
    Ok((
        info.size,
        info.kind,
        info.mode,
        info.modified_ns,
        info.is_symlink,
        info.links,
        info.inode,
        info.device,
        info.uid,
        info.gid,
    ))
}

type InfoOutcome = (u64, &'static str, u32, i128, bool, u64, u64, u64, u32, u32);

/// Whether these edits can be made, and what they do; `write` makes them.
///
/// Gives the places of each edit (byte, character, line), the diff, the size afterwards, the time of
/// change in nanoseconds, and whether the diff is all there.
#[pyfunction]
#[pyo3(signature = (
    path, edits, modified_ns, sha256, write, root=None, encoding=None, max_bytes=None
))]
#[expect(
    clippy::too_many_arguments,
    reason = "what an edit is asked, one by one"
)]
pub(crate) fn edit(
    py: Python<'_>,
    path: PathBuf,
    edits: Vec<(String, String, bool)>,
    modified_ns: Option<i128>,
    sha256: Option<String>,
    write: bool,
    root: Option<&Root>,
    encoding: Option<&str>,
    max_bytes: Option<u64>,
) -> PyResult<EditOutcome> {
    let edits: Vec<Edit> = edits
        .into_iter()
        .map(|(old, new, replace_all)| Edit {
            old,
            new,
            replace_all,
        })
        .collect();
    let expect = text::expect_of(modified_ns, sha256);
    let encoding = text::encoding_of(encoding)?;
    let done = run(py, || {
        let place = at(root, &path);
        crate::edit::edit(place, &edits, &expect, encoding, max_bytes, write)
    })?;
    let places = |each: Vec<Position>| {
        each.into_iter()
            .map(|place| (place.byte, place.character, place.line))
            .collect()
    };
    Ok((
        done.positions.into_iter().map(places).collect(),
        done.diff,
        done.size,
        done.modified_ns,
        done.diff_complete,
    ))
}

type EditOutcome = (Vec<Vec<(usize, usize, usize)>>, String, usize, i128, bool);

#[pyfunction]
#[pyo3(signature = (path, old, root=None, encoding=None, max_bytes=None))]
pub(crate) fn count_replacements(
    py: Python<'_>,
    path: PathBuf,
    old: &str,
    root: Option<&Root>,
    encoding: Option<&str>,
    max_bytes: Option<u64>,
) -> PyResult<usize> {
    let encoding = text::encoding_of(encoding)?;
    run(py, || {
        crate::edit::count(at(root, &path), old, encoding, max_bytes)
    })
}

#[pyfunction]
#[pyo3(signature = (path, gitignore, root=None))]
pub(crate) fn list_directory(
    py: Python<'_>,
    path: PathBuf,
    gitignore: bool,
    root: Option<&Root>,
) -> PyResult<Vec<(OsString, &'static str)>> {
    run(py, || {
        crate::info::list_directory(root.map(|root| &root.0), &path, gitignore)
    })
}

/// The hexadecimal hash; `algorithm` is "blake3" or "sha256", checked by the Python half.
#[pyfunction]
#[pyo3(signature = (path, algorithm, root=None))]
pub(crate) fn hash_file(
    py: Python<'_>,
    path: PathBuf,
    algorithm: &str,
    root: Option<&Root>,
) -> PyResult<String> {
    let algorithm = Algorithm::named(algorithm);
    run_until_interrupted(py, |interrupt| {
        crate::hash::hash_file_with(at(root, &path), algorithm, usize::MAX, interrupt)
    })
}

/// An open directory; every path given together with it stays beneath it.
#[pyclass(frozen, module = "vespera_file_ops._native")]
pub(crate) struct Root(std::sync::Arc<crate::root::Root>);

#[pymethods]
impl Root {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        run(py, || crate::root::Root::open(&path)).map(|root| Self(root.into()))
    }
}

fn at<'a>(root: Option<&'a Root>, path: &'a Path) -> Place<'a> {
    Place::new(root.map(|root| root.0.as_ref()), path)
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

/// The same for long work that looks up now and then, so that Ctrl-C ends it.
fn run_until_interrupted<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Interrupt<'_>) -> crate::Result<T> + Send,
) -> PyResult<T> {
    let raised = Mutex::new(None);
    let ask = || match Python::attach(interrupted) {
        Ok(()) => false,
        Err(error) => {
            *raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            true
        }
    };
    let outcome = py.detach(|| work(&Interrupt::new(&ask)));
    match raised.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(raised) => Err(raised),
        None => outcome.map_err(|error| to_exception(py, &error)),
    }
}

/// The exception that a signal has raised, if one has: only asked so does it show.
fn interrupted(py: Python<'_>) -> PyResult<()> {
    py.check_signals()
}

/// The exception for `error`: `vespera_error` knows them all but those with words of our own.
fn to_exception(py: Python<'_>, error: &Error) -> PyErr {
    match worded(error) {
        Some((number, words, path)) => {
            PyOSError::new_err((number, words, path.map(|path| path.as_os_str().to_owned())))
        }
        None => vespera_error::python::to_pyerr(py, "vespera_file_ops.errors", error),
    }
}

fn worded(error: &Error) -> Option<(i32, String, Option<&Path>)> {
    let failure = error.io_failure()?;
    let payload = failure.io_error().get_ref()?;
    let number = if let Some(NotRegular(kind)) = payload.downcast_ref() {
        kind.errno()
    } else {
        payload.downcast_ref::<NoNewFiles>()?;
        NoNewFiles::ERRNO
    };
    Some((number, payload.to_string(), failure.path()))
}
