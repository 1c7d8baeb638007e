"""Responsible for the name in an ``OSError``: calls on descriptors do not know it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vespera_file_ops.errors import FileOpError

__all__ = ["naming"]


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Put ``path`` into an ``OSError`` that names another path or none."""
    try:
        yield
    except FileOpError:
        raise
    except OSError as error:
        error.filename = path
        # A failed rename also names its destination. None would be shown as a name.
        del error.filename2
        raise
