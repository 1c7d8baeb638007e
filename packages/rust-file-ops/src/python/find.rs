//! Responsible for the bindings of walking and searching: options in, results out in batches, each
//! result an object of its Python class.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyString, PyTuple, PyType};

use super::{Root, interrupted, run, to_exception};
use crate::search::{Files, Hit, Hits, Query, Search};
use crate::walk::stream::{Stream, Weight};
use crate::walk::{Found, Problem, Selection, Walk};

/// The attributes of `vespera_file_ops._finding.Selection`.
#[derive(FromPyObject)]
#[expect(clippy::struct_excessive_bools, reason = "as in `Selection`")]
pub(crate) struct RawSelection {
    gitignore: bool,
    hidden: bool,
    follow: bool,
    include: Vec<OsString>,
    exclude: Vec<OsString>,
    types: Vec<OsString>,
    max_depth: Option<usize>,
    sort: bool,
}

/// The attributes of `vespera_file_ops._finding.Query`.
#[derive(FromPyObject)]
pub(crate) struct RawQuery {
    pattern: String,
    candidate: String,
    exact: String,
    multiline: bool,
    before: usize,
    after: usize,
    max_per_file: Option<usize>,
    count: bool,
}

impl From<RawSelection> for Selection {
    fn from(raw: RawSelection) -> Self {
        Self {
            gitignore: raw.gitignore,
            hidden: raw.hidden,
            follow: raw.follow,
            include: raw.include,
            exclude: raw.exclude,
            types: raw.types,
            max_depth: raw.max_depth,
            sort: raw.sort,
        }
    }
}

impl From<RawQuery> for Query {
    fn from(raw: RawQuery) -> Self {
        Self {
            pattern: raw.pattern,
            candidate: raw.candidate,
            exact: raw.exact,
            multiline: raw.multiline,
            before: raw.before,
            after: raw.after,
            max_per_file: raw.max_per_file,
            count: raw.count,
        }
    }
}

#[pyfunction]
#[pyo3(signature = (directory, selection, root=None))]
pub(crate) fn walk(
    py: Python<'_>,
    directory: PathBuf,
    selection: RawSelection,
    root: Option<&Root>,
) -> PyResult<Finding> {
    let selection = selection.into();
    let walk = run(py, || {
        crate::walk::walk(root.map(|root| &root.0), &directory, &selection)
    })?;
    Ok(Finding(Kind::Walk(walk)))
}

#[pyfunction]
#[pyo3(signature = (directory, query, selection, binary, max_size, root=None))]
pub(crate) fn search_files(
    py: Python<'_>,
    directory: PathBuf,
    query: RawQuery,
    selection: RawSelection,
    binary: bool,
    max_size: Option<u64>,
    root: Option<&Root>,
) -> PyResult<Finding> {
    let counts = query.count;
    let query = query.into();
    let files = Files {
        selection: selection.into(),
        binary,
        max_size,
    };
    let search = run(py, || {
        crate::search::search_files(root.map(|root| &root.0), &directory, &query, &files)
    })?;
    Ok(Finding(Kind::Search(search, counts)))
}

#[pyfunction]
pub(crate) fn search_text<'py>(
    py: Python<'py>,
    text: &[u8],
    query: RawQuery,
    limit: Option<usize>,
) -> PyResult<Bound<'py, PyList>> {
    let query = query.into();
    let hits = run(py, || crate::search::search_text(text, &query, limit))?;
    matches(py, &hits)
}

/// Results that come; `None` after the last.
#[pyclass(frozen, module = "vespera_file_ops._native")]
pub(crate) struct Finding(Kind);

enum Kind {
    Walk(Walk),
    /// The flag: whether only numbers are wanted.
    Search(Search, bool),
}

#[pymethods]
impl Finding {
    /// The next results; waits for them with the interpreter released. `None`: there are no more.
    fn next_batch<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        match &self.0 {
            Kind::Walk(walk) => wait(py, walk.stream())?
                .map(|found| entries(py, &found))
                .transpose(),
            Kind::Search(search, counts) => wait(py, search.stream())?
                .map(|hits| {
                    if *counts {
                        numbers(py, &hits)
                    } else {
                        matches(py, &hits)
                    }
                })
                .transpose(),
        }
    }

    /// Errno and path of what could not be read so far, and how many there were.
    fn problems(&self, py: Python<'_>) -> PyResult<(Vec<(i32, OsString)>, usize)> {
        let (problems, count) = run(py, || match &self.0 {
            Kind::Walk(walk) => walk.problems(),
            Kind::Search(search, _) => search.problems(),
        })?;
        let pair = |problem: Problem| (problem.errno, problem.path.into_os_string());
        Ok((problems.into_iter().map(pair).collect(), count))
    }

    /// End the threads and wait until they have.
    fn close(&self, py: Python<'_>) {
        py.detach(|| match &self.0 {
            Kind::Walk(walk) => walk.stream().close(),
            Kind::Search(search, _) => search.stream().close(),
        });
    }
}

impl Drop for Finding {
    fn drop(&mut self) {
        // The threads are joined, and nobody else shall wait for that. Without an interpreter, when
        // it ends, the stream does it by itself.
        let _ = Python::try_attach(|py| self.close(py));
    }
}

fn wait<B: Weight + Send + 'static>(py: Python<'_>, stream: &Stream<B>) -> PyResult<Option<B>> {
    py.detach(|| {
        stream.next(
            |error| Python::attach(|py| to_exception(py, &error)),
            || Python::attach(interrupted),
        )
    })
}

fn entries<'py>(py: Python<'py>, found: &Found) -> PyResult<Bound<'py, PyList>> {
    let class = Class::get(py, &WALK_ENTRY, "WalkEntry")?;
    let list = PyList::empty(py);
    for (path, kind) in found.iter() {
        list.append(class.make((text(py, path)?, word(py, kind)).into_pyobject(py)?)?)?;
    }
    Ok(list)
}

/// One object per kind, not one per name.
fn word<'py>(py: Python<'py>, kind: &str) -> &'py Bound<'py, PyString> {
    match kind {
        "file" => intern!(py, "file"),
        "directory" => intern!(py, "directory"),
        "symlink" => intern!(py, "symlink"),
        _ => intern!(py, "other"),
    }
}

fn numbers<'py>(py: Python<'py>, hits: &Hits) -> PyResult<Bound<'py, PyList>> {
    let class = Class::get(py, &FILE_COUNT, "FileCount")?;
    let list = PyList::empty(py);
    for (path, hit) in hits.iter() {
        let path = text(py, path.unwrap_or_default())?;
        list.append(class.make((path, hit.line, hit.matches).into_pyobject(py)?)?)?;
    }
    Ok(list)
}

fn matches<'py>(py: Python<'py>, hits: &Hits) -> PyResult<Bound<'py, PyList>> {
    let class = Class::get(py, &MATCH, "Match")?;
    let span = Class::get(py, &SPAN, "Span")?;
    let list = PyList::empty(py);
    // Matches of one file follow each other and share its path.
    let mut known: Option<(&[u8], Bound<'py, PyString>)> = None;
    for (path, hit) in hits.iter() {
        let path = match (path, &known) {
            (None, _) => py.None().into_bound(py),
            (Some(path), Some((same, object))) if std::ptr::eq(path, *same) => {
                object.clone().into_any()
            }
            (Some(path), _) => {
                let object = text(py, path)?;
                known = Some((path, object.clone()));
                object.into_any()
            }
        };
        list.append(class.make(one_match(py, path, hit, &span)?)?)?;
    }
    Ok(list)
}

fn one_match<'py>(
    py: Python<'py>,
    path: Bound<'py, PyAny>,
    hit: &Hit,
    span: &Class<'py>,
) -> PyResult<Bound<'py, PyTuple>> {
    let spans = hit
        .spans
        .iter()
        .map(|place| {
            let fields = (place.byte, place.byte_end, place.start, place.end);
            span.make(fields.into_pyobject(py)?)
        })
        .collect::<PyResult<Vec<_>>>()?;
    let lines = |lines: &[Vec<u8>]| {
        let lines = lines
            .iter()
            .map(|line| text(py, line))
            .collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(py, lines)
    };
    (
        path,
        hit.line,
        text(py, &hit.text)?,
        PyTuple::new(py, spans)?,
        lines(&hit.before)?,
        lines(&hit.after)?,
        hit.cut,
    )
        .into_pyobject(py)
}

/// Text with undecodable bytes escaped, as Python has the names of files.
fn text<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => Ok(OsStr::from_bytes(bytes).into_pyobject(py)?),
    }
}

static WALK_ENTRY: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static FILE_COUNT: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static MATCH: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static SPAN: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static TUPLE_NEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A class of `vespera_file_ops.results` that is a named tuple.
struct Class<'py> {
    class: Bound<'py, PyType>,
    new: Bound<'py, PyAny>,
}

impl<'py> Class<'py> {
    fn get(py: Python<'py>, kept: &'static PyOnceLock<Py<PyType>>, name: &str) -> PyResult<Self> {
        let new = TUPLE_NEW.get_or_try_init(py, || {
            let new = py.get_type::<PyTuple>().getattr("__new__")?;
            Ok::<_, PyErr>(new.unbind())
        })?;
        Ok(Self {
            class: kept.import(py, "vespera_file_ops.results", name)?.clone(),
            new: new.bind(py).clone(),
        })
    }

    /// An object with these fields. `tuple.__new__` is called itself: the class's own is a
    /// function in Python, which takes longer than all the rest.
    fn make(&self, fields: Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        self.new.call1((&self.class, fields))
    }
}
