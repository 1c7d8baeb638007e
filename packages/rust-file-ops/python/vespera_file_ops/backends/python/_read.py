"""Responsible for reading whole regular files, as bytes, text or lines."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.backends.python._text import MARKS, decode, newline_of, told
from vespera_file_ops.errors import FileTooLarge

__all__ = [
    "over_limit",
    "read_all",
    "read_file",
    "read_file_lines",
    "read_file_string",
    "read_text",
]

_BLOCK = 1 << 20
# Looking whether there is more costs little with little room for it.
_MORE = 1 << 13
# So many bytes fit into every machine: what there is of memory is not asked for.
_LARGE = 1 << 26


def read_file(path: str, root: Root | None = None, max_bytes: int | None = None) -> bytes:
    """Return the whole content of a regular file."""
    return read_all(Place(path, root), max_bytes)[0]


def read_file_string(path: str, root: Root | None = None, max_bytes: int | None = None) -> str:
    """Return the whole content as text (UTF-8)."""
    return decode(path, read_file(path, root, max_bytes), "utf-8")


def read_file_lines(path: str, root: Root | None = None, max_bytes: int | None = None) -> list[str]:
    """Return the lines without their endings."""
    # str.splitlines would also cut at form feeds, lone carriage returns and other separators.
    lines = read_file_string(path, root, max_bytes).split("\n")
    last = lines.pop()
    lines = [line.removesuffix("\r") for line in lines]
    return [*lines, last] if last else lines


def read_text(
    path: str,
    encoding: str | None = None,
    max_bytes: int | None = None,
    root: Root | None = None,
) -> tuple[str, str, str | None, int, int]:
    """Text without its mark, encoding, newline, size, time of change."""
    content, status = read_all(Place(path, root), max_bytes)
    encoding = told(path, content, encoding)
    text = decode(path, content, encoding)
    if MARKS[encoding]:
        text = text[1:]
    return text, encoding, newline_of(text), len(content), status.st_mtime_ns


def read_all(place: Place, max_bytes: int | None = None) -> tuple[bytes, os.stat_result]:
    """The content, and the status of the file that it was read from."""
    name = place.path
    with naming(name), open_for_reading(place) as (descriptor, status):
        if max_bytes is not None and status.st_size > max_bytes:
            raise over_limit(name, status.st_size, max_bytes)
        if status.st_size > _LARGE and status.st_size > _all_memory():
            raise _too_large(name, status.st_size)
        try:
            if max_bytes is None:
                content = _to_the_end(descriptor)
            else:
                content = _up_to(descriptor, max_bytes)
        except MemoryError:
            raise _too_large(name, status.st_size) from None
        if max_bytes is not None and len(content) > max_bytes:
            raise over_limit(name, None, max_bytes)
        return content, status


def over_limit(path: str, size: int | None, limit: int) -> FileTooLarge:
    """The file, of ``size`` bytes if that is known, is over the limit of the call."""
    msg = (
        f"{path}: more than max_bytes={limit} would be read; "
        "raise it, or read a part with read_lines"
    )
    return FileTooLarge(msg, context={"path": path, "size": size, "limit": limit})


def _too_large(path: str, size: int) -> FileTooLarge:
    msg = f"{path}: its {size} bytes do not fit in memory"
    return FileTooLarge(msg, context={"path": path, "size": size})


def _all_memory() -> int:
    """Memory and swap of the machine, in bytes. An interpreter without a GIL takes more from the
    system than that and is killed when it fills it, as every one is at ``vm.overcommit_memory=1``.
    """
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        told = dict(line.split(":", 1) for line in lines)
        return sum(int(told[name].split()[0]) << 10 for name in ("MemTotal", "SwapTotal"))
    except (OSError, ValueError, LookupError):
        return sys.maxsize


def _to_the_end(descriptor: int) -> bytes:
    """All that the file holds. The size is a hint only: /proc says 0 and a log grows while it is
    read. A sparse file may claim any size.
    """
    with io.FileIO(descriptor, closefd=False) as file:
        content = file.readall()
    # It takes a read that would block (EAGAIN) for the end; this one raises.
    parts = [content or b""]
    while part := os.read(descriptor, _MORE):
        parts.append(part)
    return b"".join(parts)


def _up_to(descriptor: int, limit: int) -> bytes:
    """What the file holds, or one byte more than the limit."""
    parts = []
    room = limit + 1
    while room and (part := os.read(descriptor, min(room, _BLOCK))):
        parts.append(part)
        room -= len(part)
    return b"".join(parts)
