"""Responsible for the hash of a file's content, in constant memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import Any

from vespera_file_ops.backends.python._blake3 import Blake3
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._place import Place, Root

__all__ = ["hash_file", "sha256_of"]

_BLOCK = 1 << 20


def hash_file(
    path: str, algorithm: str, root: Root | None = None, stopped: Callable[[], bool] | None = None
) -> str:
    """The hash of the whole content, in lower-case hexadecimal digits. Once ``stopped`` it is that
    of a part, for nobody."""
    hasher = Blake3() if algorithm == "blake3" else hashlib.sha256()
    with naming(path), open_for_reading(Place(path, root)) as (descriptor, _):
        return _digest(descriptor, hasher, stopped)


def sha256_of(descriptor: int) -> str:
    """That of what an open file holds from here on."""
    return _digest(descriptor, hashlib.sha256(), None)


def _digest(descriptor: int, hasher: Any, stopped: Callable[[], bool] | None) -> str:
    while block := os.read(descriptor, _BLOCK):
        hasher.update(block)
        if stopped is not None and stopped():
            break
    return str(hasher.hexdigest())
