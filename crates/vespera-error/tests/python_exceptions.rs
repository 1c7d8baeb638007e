//! Every code becomes the Python class of the table, with a real interpreter and real classes.
#![cfg(feature = "python")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that panics has failed, as it should"
)]

use std::ffi::CString;
use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use serde_json::json;
use vespera_error::python::to_pyerr;
use vespera_error::{Error, ErrorCode};

const MODULE: &str = "vespera_error_test_classes";

const BASE_CLASS: &str = "
class AgentError(Exception):
    @classmethod
    def from_native(cls, message, context):
        error = cls(message)
        error.context = context
        error.code = context['code']
        return error
";

/// A package's errors module: a class per code, each with the classmethod of the agreement.
fn with_classes(test: impl FnOnce(Python<'_>)) {
    let mut source = String::from(BASE_CLASS);
    for code in ErrorCode::ALL {
        let line = format!("class {}(AgentError): pass\n", code.class_name());
        if !matches!(code.class_name(), "OSError" | "AgentError") && !source.contains(&line) {
            source += &line;
        }
    }
    Python::initialize();
    Python::attach(|py| {
        let c_string = |value: &str| CString::new(value).expect("no NUL");
        PyModule::from_code(
            py,
            &c_string(&source),
            &c_string("classes.py"),
            &c_string(MODULE),
        )
        .expect("classes");
        test(py);
    });
}

#[test]
fn every_code_finds_its_class_and_keeps_message_and_context() {
    with_classes(|py| {
        for &code in ErrorCode::ALL.iter().filter(|code| **code != ErrorCode::Io) {
            let error = Error::new(code, "what happened").with("agent_id", "docs");
            let exception = to_pyerr(py, MODULE, &error);
            let value = exception.value(py);
            assert_eq!(value.get_type().name().unwrap(), code.class_name());
            assert_eq!(value.str().unwrap(), "what happened");
            assert_eq!(
                value.getattr("code").unwrap().extract::<String>().unwrap(),
                code.as_str()
            );
            let context = value
                .getattr("context")
                .unwrap()
                .cast_into::<PyDict>()
                .unwrap();
            assert_eq!(
                context.get_item("agent_id").unwrap().unwrap().to_string(),
                "docs"
            );
        }
    });
}

#[test]
fn the_systems_failures_become_the_built_in_subclass() {
    with_classes(|py| {
        let cases = [
            (libc::ENOENT, "FileNotFoundError"),
            (libc::EACCES, "PermissionError"),
            (libc::EEXIST, "FileExistsError"),
            (libc::EISDIR, "IsADirectoryError"),
            (libc::ENOTDIR, "NotADirectoryError"),
            (libc::EPIPE, "BrokenPipeError"),
            (libc::ENOSPC, "OSError"),
        ];
        for (number, class) in cases {
            let source = std::io::Error::from_raw_os_error(number);
            let error = Error::io("open", Some(Path::new("/a b/c")), source);
            let exception = to_pyerr(py, MODULE, &error);
            let value = exception.value(py);
            assert_eq!(value.get_type().name().unwrap(), class);
            assert_eq!(
                value.getattr("errno").unwrap().extract::<i32>().unwrap(),
                number
            );
            assert_eq!(
                value
                    .getattr("filename")
                    .unwrap()
                    .extract::<String>()
                    .unwrap(),
                "/a b/c"
            );
            assert!(
                value
                    .getattr("__notes__")
                    .unwrap()
                    .to_string()
                    .contains("open")
            );
        }
    });
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf_8_arrives_as_python_spells_it() {
    use std::os::unix::ffi::OsStrExt;
    with_classes(|py| {
        let path = Path::new(std::ffi::OsStr::from_bytes(b"/tmp/\xff"));
        let error = Error::io(
            "stat",
            Some(path),
            std::io::Error::from_raw_os_error(libc::ENOENT),
        );
        let value = to_pyerr(py, MODULE, &error).into_value(py);
        let filename = value.bind(py).getattr("filename").unwrap();
        let bytes: Vec<u8> = py
            .import("os")
            .unwrap()
            .call_method1("fsencode", (filename,))
            .unwrap()
            .extract()
            .unwrap();
        assert_eq!(bytes, b"/tmp/\xff");
    });
}

#[test]
fn context_arrives_as_plain_python_values() {
    with_classes(|py| {
        let error = Error::config(
            "limits.memory",
            json!([1, -2, 2.5, u64::MAX, null, {"a": true}]),
            "x",
        );
        let value = to_pyerr(py, MODULE, &error).into_value(py);
        let context = value.bind(py).getattr("context").unwrap();
        let repr = context
            .get_item("value")
            .unwrap()
            .repr()
            .unwrap()
            .to_string();
        assert_eq!(
            repr,
            "[1, -2, 2.5, 18446744073709551615, None, {'a': True}]"
        );
    });
}

#[test]
fn a_missing_class_or_module_still_gives_an_exception_with_the_message() {
    with_classes(|py| {
        let error = Error::config("root", json!(null), "give a path");
        let exception = to_pyerr(py, "no.such.module", &error);
        assert!(exception.is_instance_of::<pyo3::exceptions::PyValueError>(py));
        assert_eq!(
            exception.value(py).to_string(),
            "root: got null; give a path"
        );
        assert!(exception.cause(py).is_some());
    });
}

#[test]
fn an_interrupt_that_comes_while_the_exception_is_made_goes_first() {
    let source = "
class AgentError(Exception):
    @classmethod
    def from_native(cls, message, context):
        raise KeyboardInterrupt
";
    let c_string = |value: &str| CString::new(value).expect("no NUL");
    Python::initialize();
    Python::attach(|py| {
        let module = "vespera_error_interrupted";
        let file = c_string("interrupted.py");
        PyModule::from_code(py, &c_string(source), &file, &c_string(module)).expect("a class");
        let exception = to_pyerr(py, module, &Error::config("root", json!(null), "give one"));
        assert!(exception.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>(py));
    });
}
