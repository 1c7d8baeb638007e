//! Events as Python sees them, and the bridge that wakes an event loop.

use crate::agent::claude::Kind;
use crate::agent::details::{self, Details};
use crate::agent::queue::Event;
use crate::bridge::Bridge;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple};
use std::sync::{Arc, OnceLock};
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

    /// The numbers of the agents with news.
    fn take(&self) -> Vec<u64> {
        self.inner.take()
    }
}

/// One event of an agent: a line of its output, read when asked.
#[pyclass(frozen, name = "Event", module = "vespera_agent_spawner._native")]
pub(crate) struct PyEvent {
    event: Event,
    details: OnceLock<Details>,
    data: PyOnceLock<Py<PyAny>>,
}

impl PyEvent {
    pub(crate) fn new(event: Event) -> Self {
        Self {
            event,
            details: OnceLock::new(),
            data: PyOnceLock::new(),
        }
    }

    fn details(&self) -> &Details {
        self.details.get_or_init(|| match self.event.kind {
            Kind::Oversize | Kind::Output => Details {
                text: Some(String::from_utf8_lossy(&self.event.raw).into_owned()),
                ..Details::default()
            },
            _ => details::read(&self.event.raw).unwrap_or_default(),
        })
    }
}

#[pymethods]
impl PyEvent {
    #[getter]
    fn kind(&self) -> &str {
        match self.event.kind.name() {
            Some(name) => name,
            None => &self.details().kind,
        }
    }

    #[getter]
    fn subtype(&self) -> Option<&str> {
        self.details().subtype.as_deref()
    }

    #[getter]
    fn session_id(&self) -> Option<&str> {
        self.details().session_id.as_deref()
    }

    #[getter]
    fn uuid(&self) -> Option<&str> {
        self.details().uuid.as_deref()
    }

    #[getter]
    fn text(&self) -> Option<&str> {
        self.details().text.as_deref()
    }

    #[getter]
    fn tool_name(&self) -> Option<&str> {
        self.details().tool_name.as_deref()
    }

    #[getter]
    fn parent_tool_use_id(&self) -> Option<&str> {
        self.details().parent_tool_use_id.as_deref()
    }

    #[getter]
    fn is_error(&self) -> bool {
        self.details().is_error
    }

    /// Unix seconds.
    #[getter]
    fn received_at(&self) -> f64 {
        self.event
            .received_at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64()
    }

    /// Bytes of the whole line.
    #[getter]
    fn length(&self) -> u64 {
        self.event.length
    }

    #[getter]
    fn raw<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.event.raw)
    }

    /// The whole frame as a dict, built on first use.
    #[getter]
    fn data(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let built = self.data.get_or_try_init(py, || {
            let decode = py
                .import("vespera_agent_spawner.events")?
                .getattr("decode")?;
            let decoded = decode.call1((self.kind(), PyBytes::new(py, &self.event.raw)))?;
            Ok::<_, PyErr>(decoded.unbind())
        })?;
        Ok(built.clone_ref(py))
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
            self.kind(),
            PyBytes::new(py, &self.event.raw),
            self.received_at(),
            self.event.length,
        )
            .into_pyobject(py)?;
        Ok((class, arguments))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        py.import("vespera_agent_spawner.events")?
            .call_method1(
                "describe",
                (self.kind(), self.subtype(), self.text(), self.tool_name()),
            )?
            .extract()
    }
}
