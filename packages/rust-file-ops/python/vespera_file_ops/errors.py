"""Responsible for the exceptions that only this package knows.

What the operating system refuses stays what it is in Python: ``FileNotFoundError``,
``IsADirectoryError``, ``PermissionError`` …, with ``errno`` and ``filename``. The classes here are
for the rest. They live in Python and the Rust extension imports them, so that an ``except`` clause
means the same on both backends.
"""

from __future__ import annotations

import errno as _errno
from collections.abc import Mapping
from typing import Any, ClassVar, Self

__all__ = [
    "AmbiguousMatch",
    "ContentChanged",
    "EditError",
    "EncodingError",
    "FileLocked",
    "FileOpError",
    "FileTooLarge",
    "OutsideWorkspace",
    "PatternError",
    "ReadOnlyWorkspace",
    "StringNotFound",
]


class FileOpError(Exception):
    """Base of the package's own errors.

    ``code`` is a stable word for programs, ``context`` a dict of plain values (path, offset …).
    """

    default_code: ClassVar[str] = "file_op"

    code: str
    context: dict[str, Any]

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.context = {key: value for key, value in (context or {}).items() if key != "code"}

    @classmethod
    def from_native(cls, message: str, context: Mapping[str, Any]) -> Self:
        """Build the exception from what Rust knows: a message and a dict of plain values."""
        code = context.get("code")
        return cls(message, code=str(code) if code else None, context=context)

    def __str__(self) -> str:
        # OSError, a base of OutsideWorkspace, would print "[Errno n] …" around it.
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive the default protocol, which passes `args` only.
        return _rebuild, (type(self), self.message, self.code, self.context)


def _rebuild(
    cls: type[FileOpError], message: str, code: str, context: dict[str, Any]
) -> FileOpError:
    return cls(message, code=code, context=context)


class EditError(FileOpError):
    """An edit that cannot be done as asked; the file is untouched."""

    default_code = "edit"


class StringNotFound(EditError):
    """The text to replace is not in the file."""

    default_code = "string_not_found"


class AmbiguousMatch(EditError):
    """The text to replace stands in more than one place and one was meant."""

    default_code = "ambiguous_match"


class ContentChanged(EditError):
    """The file is no longer what the caller expected: somebody else has written it."""

    default_code = "content_changed"


class _OfSystem(FileOpError):
    """One that is an ``OSError`` too, with its number and the path."""

    _number: ClassVar[int]

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, context=context)
        self.errno: int | None = self._number
        self.strerror: str | None = message
        self.filename: Any = self.context.get("path")


class FileLocked(_OfSystem, BlockingIOError):
    """Somebody else held a lock (``flock``) on the file for as long as was waited; nothing was
    written. ``errno`` is ``EAGAIN``; ``context`` has ``path`` and ``waited_seconds``.
    """

    default_code = "file_locked"

    _number = _errno.EAGAIN


class OutsideWorkspace(_OfSystem, PermissionError):
    """A path that leads out of the workspace's root."""

    default_code = "outside_workspace"

    _number = _errno.EACCES


class ReadOnlyWorkspace(_OfSystem, PermissionError):
    """A write in a workspace that was opened for reading only; ``errno`` is ``EROFS``."""

    default_code = "read_only_workspace"

    _number = _errno.EROFS


class FileTooLarge(FileOpError):
    """A file over the limit of the call."""

    default_code = "file_too_large"


class EncodingError(FileOpError, ValueError):
    """Bytes that are no text in their encoding, or text that it cannot hold.

    ``context`` has ``path`` and ``offset``, the first bad byte, or ``character``, the first one
    that cannot be written.
    """

    default_code = "encoding"


class PatternError(FileOpError, ValueError):
    """A glob or search pattern that means nothing. ``context`` has ``pattern`` and ``reason``, and
    for a search pattern ``position``, the character where it goes wrong."""

    default_code = "pattern"
