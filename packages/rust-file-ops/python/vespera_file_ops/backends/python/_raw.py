"""Responsible for the list of this backend's raw functions: the same as the extension's."""

from __future__ import annotations

from vespera_file_ops.backends.python._atomic import write_file_atomic
from vespera_file_ops.backends.python._edit import count_replacements, edit
from vespera_file_ops.backends.python._glob import glob_files
from vespera_file_ops.backends.python._hash import hash_file
from vespera_file_ops.backends.python._place import Root
from vespera_file_ops.backends.python._read import (
    get_file_info,
    list_directory,
    read_file,
    read_file_lines,
    read_file_string,
)
from vespera_file_ops.backends.python._search import search_files, search_text
from vespera_file_ops.backends.python._walk import walk
from vespera_file_ops.backends.python._write import append_file, write_file, write_file_string

__all__ = [
    "Root",
    "append_file",
    "count_replacements",
    "edit",
    "get_file_info",
    "glob_files",
    "hash_file",
    "list_directory",
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
