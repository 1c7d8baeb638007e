"""Responsible for the list of this backend's raw functions: the same as the extension's."""

from __future__ import annotations

from vespera_file_ops.backends.python._atomic import write_file_atomic
from vespera_file_ops.backends.python._batch import hash_files, read_files, write_files
from vespera_file_ops.backends.python._chunk import chunk_text
from vespera_file_ops.backends.python._edit import count_replacements, edit
from vespera_file_ops.backends.python._glob import glob_files
from vespera_file_ops.backends.python._hash import hash_file
from vespera_file_ops.backends.python._info import file_info, get_file_info, list_directory
from vespera_file_ops.backends.python._lines import read_lines
from vespera_file_ops.backends.python._place import Root
from vespera_file_ops.backends.python._read import (
    read_file,
    read_file_lines,
    read_file_string,
    read_text,
)
from vespera_file_ops.backends.python._rewrite import replace_file, write_text
from vespera_file_ops.backends.python._search import search_files, search_text
from vespera_file_ops.backends.python._walk import walk
from vespera_file_ops.backends.python._write import append_file, write_file, write_file_string

__all__ = [
    "Root",
    "append_file",
    "chunk_text",
    "count_replacements",
    "edit",
    "file_info",
    "get_file_info",
    "glob_files",
    "hash_file",
    "hash_files",
    "list_directory",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "read_files",
    "read_lines",
    "read_text",
    "replace_file",
    "search_files",
    "search_text",
    "walk",
    "write_file",
    "write_file_atomic",
    "write_file_string",
    "write_files",
    "write_text",
]
