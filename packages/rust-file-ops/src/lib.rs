//! File operations for programs that edit files on behalf of somebody else.
//!
//! The problem: a path that comes from an agent may name anything. A FIFO blocks whoever opens
//! it, a device never ends, and a disk that fills up in the middle of a write leaves half a file.
//! The functions here act on regular files only, say clearly what else they found, and leave
//! either the old content or the new one behind.
//!
//! Plain Rust modules hold the logic and know nothing of Python; `python` (behind the cargo
//! feature of that name) converts arguments, releases the interpreter and maps errors.
//!
//! ```
//! let directory = std::env::temp_dir().join(format!("vespera-doc-{}", std::process::id()));
//! std::fs::create_dir_all(&directory)?;
//! let note = directory.join("note.txt");
//! vespera_file_ops::atomic::write_file_atomic(&note, b"kept whole")?;
//! assert_eq!(vespera_file_ops::read::read_file(&note)?, b"kept whole");
//! std::fs::remove_dir_all(&directory)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// Paths are walked from open directories, which only Unix has.
#[cfg(unix)]
pub mod atomic;
#[cfg(unix)]
mod attributes;
#[cfg(unix)]
pub mod batch;
#[cfg(unix)]
pub mod chunk;
#[cfg(unix)]
pub mod edit;
#[cfg_attr(not(unix), allow(dead_code, reason = "its callers need Unix"))]
mod error;
#[cfg(unix)]
pub mod glob;
#[cfg(unix)]
pub mod hash;
#[cfg(unix)]
mod ignore;
#[cfg(unix)]
pub mod info;
#[cfg(unix)]
pub mod interrupt;
#[cfg(unix)]
pub mod lines;
#[cfg(unix)]
mod lock;
#[cfg(unix)]
mod open;
#[cfg(unix)]
pub mod place;
#[cfg(unix)]
pub mod read;
#[cfg(unix)]
pub mod rewrite;
#[cfg(unix)]
pub mod root;
#[cfg(unix)]
pub mod search;
#[cfg(unix)]
mod target;
#[cfg(unix)]
mod temporary;
#[cfg(unix)]
pub mod text;
#[cfg(unix)]
pub mod turns;
#[cfg(unix)]
pub mod walk;
mod wildcards;
#[cfg(unix)]
pub mod write;

#[cfg(not(unix))]
pub mod elsewhere;
#[cfg(not(unix))]
use elsewhere::text;

#[cfg(all(unix, feature = "python"))]
mod python;

pub use error::{FileKind, NoNewFiles, NotRegular};
pub use vespera_error::{Error, Result};

/// The extension `vespera_file_ops._native`. It never relies on the GIL for safety.
#[cfg(all(unix, feature = "python"))]
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use crate::python::batch::{hash_files, read_files, write_files};
    #[pymodule_export]
    use crate::python::find::{Finding, search_files, search_text, walk};
    #[pymodule_export]
    use crate::python::text::{chunk_text, read_lines, read_text, replace_file, write_text};
    #[pymodule_export]
    use crate::python::{
        Root, append_file, build_info, count_replacements, edit, file_info, get_file_info,
        glob_files, hash_file, list_directory, read_file, read_file_lines, read_file_string,
        write_file, write_file_atomic, write_file_string,
    };
}
