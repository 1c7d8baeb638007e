"""Responsible for reading whole regular files, as bytes, text or lines, and for telling what a
path is.
"""

from __future__ import annotations

import io
import os
import stat

from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._origin import without_ignored
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.errors import EncodingError, FileTooLarge

__all__ = [
    "decoded",
    "get_file_info",
    "list_directory",
    "read_all",
    "read_file",
    "read_file_lines",
    "read_file_string",
]


def read_file(path: str, root: Root | None = None) -> bytes:
    """Return the whole content of a regular file."""
    return read_all(Place(path, root))[0]


def read_file_string(path: str, root: Root | None = None) -> str:
    """Return the whole content as text (UTF-8)."""
    content = read_file(path, root)
    return decoded(path, content)


def decoded(name: str, content: bytes) -> str:
    """The content as text; ``EncodingError`` names the first byte that is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"{name}: not valid UTF-8 at byte {error.start}; read it as bytes with read_file"
        raise EncodingError(msg, context={"path": name, "offset": error.start}) from None


def read_file_lines(path: str, root: Root | None = None) -> list[str]:
    """Return the lines without their endings."""
    # str.splitlines would also cut at form feeds, lone carriage returns and other separators.
    lines = read_file_string(path, root).split("\n")
    last = lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    return [*lines, last] if last else lines


def get_file_info(path: str, root: Root | None = None) -> tuple[int, bool, bool]:
    """Return ``(size in bytes, is_file, is_dir)``, symlinks followed."""
    with naming(path):
        status = Place(path, root).stat()
    return status.st_size, stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)


def list_directory(path: str, gitignore: bool, root: Root | None = None) -> list[tuple[str, str]]:
    """The names in a directory and what they stand for, sorted by bytes."""
    with naming(path):
        found = [(entry.name, _kind(entry)) for entry in Place(path, root).entries()]
        if gitignore:
            found = without_ignored(path, found, root)
    return sorted(found, key=lambda pair: os.fsencode(pair[0]))


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "symlink"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def read_all(place: Place) -> tuple[bytes, os.stat_result]:
    """The content, and the status of the file that it was read from."""
    name = place.path
    with naming(name), open_for_reading(place) as (descriptor, status):
        try:
            # The size is a hint only: /proc says 0 and a log grows while it is read. A sparse file
            # may claim any size.
            with io.FileIO(descriptor, closefd=False) as file:
                return file.readall(), status
        except MemoryError:
            msg = f"{name}: its {status.st_size} bytes do not fit in memory"
            context = {"path": name, "size": status.st_size}
            raise FileTooLarge(msg, context=context) from None
