//! Responsible for turning an `Error` into the Python exception that stands for its code.
//!
//! The classes are written in Python by the package that links this crate (under the stable ABI of
//! 3.11 Rust cannot subclass exceptions). The package names the module that holds them once, with
//! [`register`]; each class is built by its classmethod `from_native(message, context)`.

use std::sync::OnceLock;

use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use serde_json::Value;

use crate::{Error, ErrorCode, IoFailure};

/// Every extension module is a library of its own with its own copy of this static, so two
/// packages in one process do not share it.
static ERRORS_MODULE: OnceLock<&'static str> = OnceLock::new();

/// Names the Python module that holds the exception classes, such as
/// `vespera_agent_spawner.errors`. The first call wins; made when the extension is imported.
pub fn register(module: &'static str) {
    ERRORS_MODULE.get_or_init(|| module);
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let module = ERRORS_MODULE.get().copied().unwrap_or_default();
        Python::attach(|py| to_pyerr(py, module, &error))
    }
}

/// The Python exception for `error`, its class looked up in `module`.
///
/// Never fails: where the class is missing the nearest built-in exception carries the message, and
/// a `KeyboardInterrupt` that comes while it is made is given instead.
pub fn to_pyerr(py: Python<'_>, module: &str, error: &Error) -> PyErr {
    if error.code() == ErrorCode::Io
        && let Some(failure) = error.io_failure()
    {
        return os_error(py, failure);
    }
    match from_native(py, module, error) {
        Ok(exception) => exception,
        // Ctrl-C, or the interpreter's end, came while the exception was made: it goes first.
        Err(reason) if !reason.is_instance_of::<PyException>(py) => reason,
        Err(reason) => {
            let fallback = builtin(error);
            fallback.set_cause(py, Some(reason));
            fallback
        }
    }
}

fn from_native(py: Python<'_>, module: &str, error: &Error) -> PyResult<PyErr> {
    let classes = py.import(module)?;
    let class = classes
        .getattr(error.code().class_name())
        .or_else(|_| classes.getattr("AgentError"))
        .or_else(|_| classes.getattr("FileOpError"))?;
    let context = PyDict::new(py);
    for (name, value) in error.context() {
        context.set_item(name, to_python(py, value)?)?;
    }
    context.set_item("code", error.code().as_str())?;
    let mut message = error.message().into_pyobject(py)?.into_any();
    for (name, path) in error.paths() {
        // As `os.fsdecode` writes them: only so they are names that can be opened.
        let shown = path.as_os_str();
        context.set_item(name, shown)?;
        message = message.call_method1("replace", (path.to_string_lossy(), shown, 1))?;
    }
    let exception = PyErr::from_value(class.call_method1("from_native", (message, context))?);
    if let Some(failure) = error.io_failure() {
        exception.set_cause(py, Some(os_error(py, failure)));
    }
    Ok(exception)
}

/// `OSError(errno, strerror, filename)`: Python itself picks `FileNotFoundError` and the like.
fn os_error(py: Python<'_>, failure: &IoFailure) -> PyErr {
    match build_os_error(py, failure) {
        Ok(exception) => exception,
        Err(reason) if !reason.is_instance_of::<PyException>(py) => reason,
        Err(_) => PyOSError::new_err((failure.errno(), failure.to_string())),
    }
}

fn build_os_error(py: Python<'_>, failure: &IoFailure) -> PyResult<PyErr> {
    let raw = failure.io_error().raw_os_error();
    let reason: String = if cfg!(unix) && raw.is_some() {
        py.import("os")?
            .call_method1("strerror", (failure.errno(),))?
            .extract()?
    } else {
        failure.io_error().to_string()
    };
    let filename = failure.path().map(std::path::Path::as_os_str);
    let winerror = if cfg!(windows) { raw } else { None };
    let exception = PyErr::from_value(py.get_type::<PyOSError>().call1((
        failure.errno(),
        reason,
        filename,
        winerror,
    ))?);
    // OSError has no place for the operation; a note is shown under the traceback.
    let note = format!("while trying to {}", failure.operation());
    exception.value(py).call_method1("add_note", (note,))?;
    Ok(exception)
}

fn builtin(error: &Error) -> PyErr {
    let message = error.message().to_owned();
    match error.code() {
        ErrorCode::Config | ErrorCode::Encoding | ErrorCode::Pattern => {
            PyValueError::new_err(message)
        }
        _ => PyRuntimeError::new_err(message),
    }
}

/// A JSON value as the Python object that `json.loads` would give.
pub fn to_python<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Null => py.None().into_bound(py),
        Value::Bool(flag) => flag.into_pyobject(py)?.to_owned().into_any(),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => whole.into_pyobject(py)?.into_any(),
            (None, Some(whole), _) => whole.into_pyobject(py)?.into_any(),
            (None, None, Some(real)) => real.into_pyobject(py)?.into_any(),
            _ => return Err(PyTypeError::new_err("a number that Python cannot hold")),
        },
        Value::String(text) => text.into_pyobject(py)?.into_any(),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(to_python(py, item)?)?;
            }
            list.into_any()
        }
        Value::Object(entries) => {
            let dict = PyDict::new(py);
            for (name, entry) in entries {
                dict.set_item(name, to_python(py, entry)?)?;
            }
            dict.into_any()
        }
    })
}
