"""Responsible for the Rust backend: the shared operations over the extension's raw functions.

Importing this module fails with ``ImportError`` where the extension is missing, broken, or left
over from another version of the package.
"""

from __future__ import annotations

from vespera_file_ops import _native
from vespera_file_ops._arguments import FilePath
from vespera_file_ops._operations import Operations, WorkspaceOperations
from vespera_file_ops._version import __version__

__all__ = [
    "Workspace",
    "append_file",
    "build_info",
    "chunk_text",
    "count_matches",
    "count_replacements",
    "edit_file",
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


def build_info() -> dict[str, str]:
    """Return ``version`` and ``profile`` ("debug" or "release") of the extension."""
    return _native.build_info()


if build_info()["version"] != __version__:
    _msg = (
        f"the extension is of version {build_info()['version']}, the package of {__version__}; "
        "reinstall vespera-file-ops"
    )
    raise ImportError(_msg)


class Workspace(WorkspaceOperations):
    __doc__ = WorkspaceOperations.__doc__

    def __init__(self, root: FilePath, read_only: bool = False) -> None:
        super().__init__(_native, root, read_only=read_only)


_plain = Operations(_native)
append_file = _plain.append_file
chunk_text = _plain.chunk_text
count_matches = _plain.count_matches
count_replacements = _plain.count_replacements
edit_file = _plain.edit_file
file_info = _plain.file_info
get_file_info = _plain.get_file_info
glob_files = _plain.glob_files
hash_file = _plain.hash_file
hash_files = _plain.hash_files
list_directory = _plain.list_directory
multi_edit_file = _plain.multi_edit_file
preview_edit = _plain.preview_edit
preview_multi_edit = _plain.preview_multi_edit
read_file = _plain.read_file
read_file_lines = _plain.read_file_lines
read_file_string = _plain.read_file_string
read_files = _plain.read_files
read_lines = _plain.read_lines
read_text = _plain.read_text
search_files = _plain.search_files
search_text = _plain.search_text
walk = _plain.walk
write_file = _plain.write_file
write_file_atomic = _plain.write_file_atomic
write_file_string = _plain.write_file_string
write_files = _plain.write_files
write_text = _plain.write_text
