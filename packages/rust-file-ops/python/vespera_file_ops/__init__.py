"""File operations for agents and servers, in Rust with a Python fallback.

>>> import os, tempfile, vespera_file_ops
>>> path = os.path.join(tempfile.mkdtemp(), "note.txt")
>>> vespera_file_ops.write_file_atomic(path, "kept whole\\n")
>>> vespera_file_ops.read_file_lines(path)
['kept whole']
"""

from __future__ import annotations

import logging as _logging

from vespera_file_ops import errors
from vespera_file_ops._arguments import FilePath
from vespera_file_ops._finding import Found
from vespera_file_ops._version import __version__
from vespera_file_ops.api import (
    Workspace,
    append_file,
    backend,
    count_matches,
    count_replacements,
    edit_file,
    file_info,
    get_file_info,
    glob_files,
    hash_file,
    list_directory,
    multi_edit_file,
    preview_edit,
    read_file,
    read_file_lines,
    read_file_string,
    search_files,
    search_text,
    walk,
    write_file,
    write_file_atomic,
    write_file_string,
)
from vespera_file_ops.errors import (
    AmbiguousMatch,
    ContentChanged,
    EditError,
    EncodingError,
    FileOpError,
    FileTooLarge,
    OutsideWorkspace,
    PatternError,
    ReadOnlyWorkspace,
    StringNotFound,
)
from vespera_file_ops.results import (
    DirectoryEntry,
    EditResult,
    FileCount,
    FileInfo,
    Match,
    Position,
    Span,
    WalkEntry,
)

__all__ = [
    "RUST_FILE_OPS_AVAILABLE",
    "AmbiguousMatch",
    "ContentChanged",
    "DirectoryEntry",
    "EditError",
    "EditResult",
    "EncodingError",
    "FileCount",
    "FileInfo",
    "FileOpError",
    "FilePath",
    "FileTooLarge",
    "Found",
    "Match",
    "OutsideWorkspace",
    "PatternError",
    "Position",
    "ReadOnlyWorkspace",
    "Span",
    "StringNotFound",
    "WalkEntry",
    "Workspace",
    "__version__",
    "append_file",
    "backend",
    "count_matches",
    "count_replacements",
    "edit_file",
    "errors",
    "file_info",
    "get_file_info",
    "glob_files",
    "hash_file",
    "list_directory",
    "multi_edit_file",
    "preview_edit",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "search_files",
    "search_text",
    "walk",
    "write_file",
    "write_file_atomic",
    "write_file_string",
]

RUST_FILE_OPS_AVAILABLE: bool = backend() == "rust"
"""Whether the functions of this module run in Rust."""

# A library prints nothing: without a handler of the application's, records go nowhere.
_logging.getLogger("vespera.file_ops").addHandler(_logging.NullHandler())
