//! Events as Python sees them, and the bridge that wakes an event loop.

use crate::agent::claude::Kind;
use crate::agent::details::{self, Spans};
use crate::agent::queue::Event;
use crate::bridge::Bridge;
use crate::json::Span;
use bytes::Bytes;
use jiter::{FloatMode, PartialMode, PythonParse, StringCacheMode};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use std::sync::Arc;
use std::time::SystemTime;

/// Wakes one event loop; watch its descriptor for reading.
#[pyclass(frozen, name = "Bridge", module = "vespera_agent_spawner._native")]
pub(crate) struct PyBridge {
    pub(crate) inner: Arc<Bridge>,
}

#[pymethods]
impl PyBridge {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            inner: Arc::new(Bridge::new()?),
        })
    }

    fn fileno(&self) -> i32 {
        self.inner.descriptor()
    }

    /// An agent's number that was taken and not told.
    fn note(&self, number: u64) {
        self.inner.note(number);
    }

    /// The loop has done with what it took.
    fn rest(&self) {
        self.inner.rest();
    }

    /// The numbers of the agents with news.
    fn take(&self) -> Vec<u64> {
        self.inner.take()
    }
}

/// An event's line: Python's own bytes, or a buffer that nothing else shares.
enum Raw {
    Python(Py<PyBytes>),
    Buffer(Bytes, PyOnceLock<Py<PyBytes>>),
}

/// A line of this size may have a buffer of its own, which is then not copied unless asked for.
const LARGE: usize = 16 * 1024;

/// One event of an agent: a line of its output, read when asked.
#[pyclass(frozen, name = "Event", module = "vespera_agent_spawner._native")]
pub(crate) struct PyEvent {
    kind: Kind,
    raw: Raw,
    length: u64,
    received_at: SystemTime,
    spans: Spans,
    text: PyOnceLock<Py<PyAny>>,
    data: PyOnceLock<Py<PyAny>>,
}

impl PyEvent {
    /// An event that pins no other: the slice of a shared buffer is copied, into what `raw` gives.
    pub(crate) fn new(py: Python<'_>, event: Event) -> Self {
        let raw = if event.raw.len() >= LARGE && event.raw.is_unique() {
            Raw::Buffer(event.raw, PyOnceLock::new())
        } else {
            Raw::Python(PyBytes::new(py, &event.raw).unbind())
        };
        Self {
            kind: event.kind,
            raw,
            length: event.length,
            received_at: event.received_at,
            spans: event.spans,
            text: PyOnceLock::new(),
            data: PyOnceLock::new(),
        }
    }

    fn line<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        match &self.raw {
            Raw::Python(bytes) => bytes.as_bytes(py),
            Raw::Buffer(bytes, _) => bytes,
        }
    }

    fn bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        match &self.raw {
            Raw::Python(bytes) => bytes.bind(py).clone(),
            Raw::Buffer(bytes, python) => match python.get(py) {
                Some(made) => made.bind(py).clone(),
                None => keep(py, python, PyBytes::new(py, bytes)),
            },
        }
    }

    fn word<'py>(&self, py: Python<'py>, place: Span) -> Option<Bound<'py, PyString>> {
        details::word(self.line(py), place).map(|text| PyString::new(py, &text))
    }

    fn name(&self, py: Python<'_>) -> Py<PyString> {
        match known_name(py, self.kind) {
            Some(name) => name.clone_ref(py),
            None => self
                .word(py, self.spans.kind)
                .map_or_else(|| PyString::intern(py, "other").unbind(), Bound::unbind),
        }
    }

    /// The same event of the Python backend, for lines that say what no Rust string can hold.
    fn twin<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (class, arguments) = self.__reduce__(py)?;
        class.call1(arguments)
    }

    /// JSON may escape half a surrogate pair, and a Python string may hold one.
    fn is_odd(&self, line: &[u8]) -> bool {
        self.spans.has_code_points
            && [&b"\\ud"[..], b"\\uD"]
                .iter()
                .any(|half| memchr::memmem::find(line, half).is_some())
    }

    fn is_frame(&self) -> bool {
        !matches!(self.kind, Kind::Oversize | Kind::Output)
    }
}

/// The cell's value from now on: `made`, or what another thread has put there meanwhile.
///
/// `get_or_init` would give the interpreter away on first use, so that two threads do not make the
/// same thing; beside a thread that computes, getting it back takes 5 ms, for each event.
fn keep<'py, T>(py: Python<'py>, cell: &PyOnceLock<Py<T>>, made: Bound<'py, T>) -> Bound<'py, T> {
    match cell.set(py, made.clone().unbind()) {
        Ok(()) => made,
        Err(_) => cell.get(py).map_or(made, |kept| kept.bind(py).clone()),
    }
}

/// The kinds' names, made once: most events are told apart by them.
fn known_name(py: Python<'_>, kind: Kind) -> Option<&'static Py<PyString>> {
    static NAMES: PyOnceLock<Vec<Option<Py<PyString>>>> = PyOnceLock::new();
    NAMES
        .get_or_init(py, || {
            Kind::ALL
                .iter()
                .map(|kind| kind.name().map(|name| PyString::intern(py, name).unbind()))
                .collect()
        })
        .get(kind as usize)?
        .as_ref()
}

/// What makes a frame's objects. Short texts are kept for the next frame, whose keys, kinds and ids
/// are mostly the same: at most 16,384 of under 64 bytes.
const FRAMES: PythonParse = PythonParse {
    allow_inf_nan: true,
    cache_mode: StringCacheMode::All,
    partial_mode: PartialMode::Off,
    catch_duplicate_keys: false,
    float_mode: FloatMode::Float,
};

/// A line as a dict, unless it is none, says what no Rust string can hold, has a number longer than
/// Python reads, or is nested deeper than others are.
pub(super) fn frame_of<'py>(py: Python<'py>, line: &[u8]) -> Option<Bound<'py, PyAny>> {
    let frame = FRAMES.python_parse(py, line).ok();
    frame.filter(PyAnyMethods::is_instance_of::<PyDict>)
}

#[pymethods]
impl PyEvent {
    #[getter]
    fn kind(&self, py: Python<'_>) -> Py<PyString> {
        self.name(py)
    }

    #[getter]
    fn subtype<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        details::subtype(self.line(py), &self.spans).map(|text| PyString::new(py, &text))
    }

    #[getter]
    fn session_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.word(py, self.spans.session_id)
    }

    #[getter]
    fn uuid<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.word(py, self.spans.uuid)
    }

    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(text) = self.text.get(py) {
            return Ok(text.bind(py).clone());
        }
        let line = self.line(py);
        let text = if !self.is_frame() {
            PyString::new(py, &String::from_utf8_lossy(line)).into_any()
        } else if self.is_odd(line) {
            self.twin(py)?.getattr("text")?
        } else {
            match details::text(line, &self.spans) {
                Some(text) => PyString::new(py, &text).into_any(),
                None => py.None().into_bound(py),
            }
        };
        Ok(keep(py, &self.text, text))
    }

    #[getter]
    fn tool_name<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        details::tool_name(self.line(py), &self.spans).map(|text| PyString::new(py, &text))
    }

    #[getter]
    fn parent_tool_use_id<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyString>> {
        self.word(py, self.spans.parent_tool_use_id)
    }

    #[getter]
    fn is_error(&self, py: Python<'_>) -> bool {
        details::is_error(self.line(py), &self.spans)
    }

    /// Unix seconds.
    #[getter]
    fn received_at(&self) -> f64 {
        self.received_at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64()
    }

    /// Bytes of the whole line.
    #[getter]
    fn length(&self) -> u64 {
        self.length
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.bytes(py).clone()
    }

    /// The whole frame as a dict, built on first use.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(data) = self.data.get(py) {
            return Ok(data.bind(py).clone());
        }
        let frame = if self.is_frame() {
            frame_of(py, self.line(py))
        } else {
            None
        };
        let data = match frame {
            Some(frame) => frame,
            None => py
                .import("vespera_agent_spawner.events")?
                .getattr("decode")?
                .call1((self.name(py), self.bytes(py)))?,
        };
        Ok(keep(py, &self.data, data))
    }

    /// Pickles and copies as the Python backend's event: the same values, no extension needed.
    fn __reduce__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let class = py
            .import("vespera_agent_spawner.events")?
            .getattr("PythonEvent")?;
        let arguments = (
            self.name(py),
            self.bytes(py),
            self.received_at(),
            self.length,
        )
            .into_pyobject(py)?;
        Ok((class, arguments))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        py.import("vespera_agent_spawner.events")?
            .call_method1(
                "describe",
                (
                    self.name(py),
                    self.subtype(py),
                    self.text(py)?,
                    self.tool_name(py),
                ),
            )?
            .extract()
    }
}
