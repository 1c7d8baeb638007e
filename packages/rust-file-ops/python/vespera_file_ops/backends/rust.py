"""Responsible for calling the Rust extension: arguments are checked here, the work is there.

Importing this module fails with ``ImportError`` where the extension is missing, broken, or left
over from another version of the package.
"""

from __future__ import annotations

from vespera_file_ops import _native
from vespera_file_ops._arguments import FilePath, as_bytes, as_path, as_pattern, as_text
from vespera_file_ops._version import __version__

__all__ = [
    "append_file",
    "build_info",
    "get_file_info",
    "glob_files",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "write_file",
    "write_file_atomic",
    "write_file_string",
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


def read_file(path: FilePath) -> bytes:
    """Return the whole content of a regular file."""
    return _native.read_file(as_path(path))


def read_file_string(path: FilePath) -> str:
    """Return the whole content as text (UTF-8)."""
    return _native.read_file_string(as_path(path))


def read_file_lines(path: FilePath) -> list[str]:
    """Return the lines without their endings."""
    return _native.read_file_lines(as_path(path))


def write_file(path: FilePath, content: bytes | bytearray | memoryview) -> None:
    """Write bytes in place."""
    _native.write_file(as_path(path), as_bytes(content))


def write_file_string(path: FilePath, content: str) -> None:
    """Write text (UTF-8) in place."""
    _native.write_file_string(as_path(path), as_text(content))


def append_file(path: FilePath, content: str) -> None:
    """Add text (UTF-8) at the end."""
    _native.append_file(as_path(path), as_text(content))


def write_file_atomic(path: FilePath, content: str) -> None:
    """Replace the content so that it is the old or the new, never a mixture."""
    _native.write_file_atomic(as_path(path), as_text(content))


def glob_files(directory: FilePath, pattern: str) -> list[str]:
    """Return the files beneath ``directory`` that match ``pattern``, sorted."""
    return _native.glob_files(as_path(directory), as_pattern(pattern))


def get_file_info(path: FilePath) -> tuple[int, bool, bool]:
    """Return ``(size in bytes, is_file, is_dir)``, symlinks followed."""
    return _native.get_file_info(as_path(path))
