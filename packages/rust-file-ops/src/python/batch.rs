//! Responsible for the bindings of batches: for each file its value or, as a value too, the
//! exception that the call for that file alone would have raised.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};
use vespera_error::Error;

use super::{Root, at, run_until_interrupted, to_exception};
use crate::batch::each;
use crate::hash::Algorithm;
use crate::interrupt::{Interrupt, Interrupted};
use crate::turns::Expect;

#[pyfunction]
#[pyo3(signature = (paths, max_bytes=None, threads=None, root=None))]
pub(crate) fn read_files<'py>(
    py: Python<'py>,
    paths: Vec<PathBuf>,
    max_bytes: Option<u64>,
    threads: Option<usize>,
    root: Option<&Root>,
) -> PyResult<Bound<'py, PyList>> {
    let outcomes = outcomes_of(py, |interrupt| {
        each(paths.len(), threads, interrupt, |number| {
            crate::read::read_file_up_to(at(root, &paths[number]), max_bytes)
        })
    })?;
    listed(py, outcomes, |content| {
        Ok(PyBytes::new(py, &content).into_any())
    })
}

#[pyfunction]
#[pyo3(signature = (items, atomic, threads=None, root=None))]
pub(crate) fn write_files<'py>(
    py: Python<'py>,
    items: Vec<(PathBuf, PyBackedBytes)>,
    atomic: bool,
    threads: Option<usize>,
    root: Option<&Root>,
) -> PyResult<Bound<'py, PyList>> {
    let outcomes = outcomes_of(py, |interrupt| {
        each(items.len(), threads, interrupt, |number| {
            let (path, content) = &items[number];
            if atomic {
                crate::rewrite::replace_file(at(root, path), content, &Expect::Anything)
            } else {
                crate::write::write_file(at(root, path), content)
            }
        })
    })?;
    listed(py, outcomes, |()| Ok(py.None().into_bound(py)))
}

/// A few large files get several threads each, many files one each.
#[pyfunction]
#[pyo3(signature = (paths, algorithm, threads=None, root=None))]
pub(crate) fn hash_files<'py>(
    py: Python<'py>,
    paths: Vec<PathBuf>,
    algorithm: &str,
    threads: Option<usize>,
    root: Option<&Root>,
) -> PyResult<Bound<'py, PyList>> {
    let algorithm = Algorithm::named(algorithm);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let inner = (threads.unwrap_or(processors) / paths.len().max(1)).max(1);
    let outcomes = outcomes_of(py, |interrupt| {
        each(paths.len(), threads, interrupt, |number| {
            crate::hash::hash_file_with(at(root, &paths[number]), algorithm, inner, interrupt)
        })
    })?;
    listed(py, outcomes, |hash| Ok(hash.into_pyobject(py)?.into_any()))
}

fn outcomes_of<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Interrupt<'_>) -> Result<Vec<T>, Interrupted> + Send,
) -> PyResult<Vec<T>> {
    run_until_interrupted(py, |interrupt| {
        work(interrupt).map_err(|interrupted| Error::io("go on", None, interrupted.into()))
    })
}

fn listed<'py, T>(
    py: Python<'py>,
    outcomes: Vec<crate::Result<T>>,
    convert: impl Fn(T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for outcome in outcomes {
        match outcome {
            Ok(value) => list.append(convert(value)?)?,
            Err(error) => list.append(to_exception(py, &error).into_value(py))?,
        }
    }
    Ok(list)
}
