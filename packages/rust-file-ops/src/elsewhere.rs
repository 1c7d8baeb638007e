//! What of the package exists on a system without directory descriptors: the parts that know no
//! system, checked there so that none is tied to one unseen, and an extension that says why it is
//! none.
#![allow(dead_code, reason = "their callers are the parts that need Unix")]

#[path = "chunk.rs"]
pub mod chunk;
#[path = "glob/component.rs"]
pub(crate) mod component;
#[path = "edit/diff.rs"]
pub(crate) mod diff;
#[path = "ignore/mod.rs"]
pub(crate) mod ignore;
#[path = "edit/nearest.rs"]
pub(crate) mod nearest;
#[path = "glob/pattern.rs"]
pub(crate) mod pattern;
#[path = "text.rs"]
pub mod text;

#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::exceptions::PyImportError;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        Err(PyImportError::new_err(
            "the Rust backend of vespera_file_ops needs directory descriptors, which this system \
             has not",
        ))
    }
}
