"""The Python backend: the same operations on the standard library alone."""

from __future__ import annotations

from vespera_file_ops.backends.python._atomic import write_file_atomic
from vespera_file_ops.backends.python._glob import glob_files
from vespera_file_ops.backends.python._read import (
    get_file_info,
    read_file,
    read_file_lines,
    read_file_string,
)
from vespera_file_ops.backends.python._write import append_file, write_file, write_file_string

__all__ = [
    "append_file",
    "get_file_info",
    "glob_files",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "write_file",
    "write_file_atomic",
    "write_file_string",
]
