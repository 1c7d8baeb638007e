//! What of the engine exists on a system that it does not run on yet: the parts that know no
//! system, checked there so that none is tied to one unseen, and an extension that says why it is
//! none.

#[path = "agent/blocks.rs"]
pub mod blocks;
#[path = "agent/claude_argv.rs"]
pub mod claude_argv;
#[path = "agent/stream.rs"]
pub mod stream;

#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = false)]
mod _native {
    use pyo3::exceptions::PyImportError;
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        Err(PyImportError::new_err(
            "the Rust engine of vespera_agent_spawner runs on Linux only so far",
        ))
    }
}
