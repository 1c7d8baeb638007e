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
    chunk_text,
    count_matches,
    count_replacements,
    edit_file,
    file_info,
    get_file_info,
    glob_files,
    hash_file,
    hash_files,
    list_directory,
    multi_edit_file,
    preview_edit,
    preview_multi_edit,
    read_file,
    read_file_lines,
    read_file_string,
    read_files,
    read_lines,
    read_text,
    search_files,
    search_text,
    walk,
    write_file,
    write_file_atomic,
    write_file_string,
    write_files,
    write_text,
)
from vespera_file_ops.errors import (
    AmbiguousMatch,
    ContentChanged,
    EditError,
    EncodingError,
    FileLocked,
    FileOpError,
    FileTooLarge,
    OutsideWorkspace,
    PatternError,
    ReadOnlyWorkspace,
    StringNotFound,
)
from vespera_file_ops.results import (
    Chunk,
    DirectoryEntry,
    EditResult,
    FileCount,
    FileInfo,
    FileResult,
    LineRange,
    Match,
    Position,
    Span,
    TextFile,
    WalkEntry,
    WriteResult,
)

__all__ = [
    "RUST_FILE_OPS_AVAILABLE",
    "AmbiguousMatch",
    "Chunk",
    "ContentChanged",
    "DirectoryEntry",
    "EditError",
    "EditResult",
    "EncodingError",
    "FileCount",
    "FileInfo",
    "FileLocked",
    "FileOpError",
    "FilePath",
    "FileResult",
    "FileTooLarge",
    "Found",
    "LineRange",
    "Match",
    "OutsideWorkspace",
    "PatternError",
    "Position",
    "ReadOnlyWorkspace",
    "Span",
    "StringNotFound",
    "TextFile",
    "WalkEntry",
    "Workspace",
    "WriteResult",
    "__version__",
    "append_file",
    "backend",
    "chunk_text",
    "count_matches",
    "count_replacements",
    "edit_file",
    "errors",
    "file_info",
    "get_file_info",
    "glob_files",
    "hash_file",
    "hash_files",
    "list_directory",
    "multi_edit_file",
    "preview_edit",
    "preview_multi_edit",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "read_files",
    "read_lines",
    "read_text",
    "search_files",
    "search_text",
    "walk",
    "write_file",
    "write_file_atomic",
    "write_file_string",
    "write_files",
    "write_text",
]

RUST_FILE_OPS_AVAILABLE: bool = backend() == "rust"
"""Whether the functions of this module run in Rust."""

# A library prints nothing: without a handler of the application's, records go nowhere.
_logging.getLogger("vespera.file_ops").addHandler(_logging.NullHandler())
