"""Responsible for the operations on many files at once: in parallel, a result for each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

from vespera_file_ops._arguments import (
    FilePath,
    as_algorithm,
    as_bytes,
    as_limit,
    as_path,
    as_text,
    as_whole,
)
from vespera_file_ops._turns import in_turn, still_locked
from vespera_file_ops.errors import FileLocked
from vespera_file_ops.results import FileResult

__all__ = ["BatchOperations", "RawBatch"]

T = TypeVar("T")


class RawBatch(Protocol):
    """What a backend has for batches: a value for each file, or the exception it raised."""

    def read_files(
        self,
        paths: list[str],
        max_bytes: int | None = None,
        threads: int | None = None,
        root: Any = None,
    ) -> list[Any]: ...
    def write_files(
        self,
        items: list[tuple[str, bytes]],
        atomic: bool,
        threads: int | None = None,
        root: Any = None,
    ) -> list[Any]: ...
    def hash_files(
        self, paths: list[str], algorithm: str, threads: int | None = None, root: Any = None
    ) -> list[Any]: ...


class BatchOperations:
    """The batches of one backend, documented in ``vespera_file_ops.api``."""

    _raw: RawBatch
    _root: Any

    def _writable(self, path: str) -> str:
        raise NotImplementedError

    def read_files(
        self,
        paths: Iterable[FilePath],
        *,
        max_bytes: int | None = None,
        threads: int | None = None,
    ) -> list[FileResult[bytes]]:
        """Return the content of each file, or its error, in order."""
        batch = _Batch()
        for path in _many(paths, "paths"):
            batch.add(path, b"")
        found = self._raw.read_files(
            [path for path, _ in batch.work],
            as_limit(max_bytes),
            _threads(threads),
            self._root,
        )
        return batch.results(found)

    def write_files(
        self,
        items: Iterable[tuple[FilePath, bytes | bytearray | memoryview | str]],
        *,
        atomic: bool = True,
        threads: int | None = None,
    ) -> list[FileResult[None]]:
        """Write each ``(path, content)``; return what became of each, in order."""
        batch = _Batch()
        names = set()
        for number, item in enumerate(_many(items, "items")):
            path, content = _pair(number, item)
            name = batch.add(path, content)
            if name is not None:
                self._writable(name)
                if name in names:
                    msg = f"{name!r} is given twice; the order of writes in a batch is not fixed"
                    raise ValueError(msg)
                names.add(name)
        most = _threads(threads)
        found: list[Any] = [None] * len(batch.work)
        left = list(range(len(batch.work)))

        def write_the_rest() -> list[FileResult[None]]:
            nonlocal left
            rest = [batch.work[number] for number in left]
            outcomes = self._raw.write_files(rest, bool(atomic), most, self._root)
            for number, outcome in zip(left, outcomes, strict=True):
                found[number] = outcome
            left = [number for number in left if isinstance(found[number], FileLocked)]
            if left:
                raise FileLocked
            return batch.results(found)

        def give_up(_: FileLocked, waited: float) -> list[FileResult[None]]:
            for number in left:
                found[number] = still_locked(found[number], waited)
            return batch.results(found)

        return in_turn(write_the_rest, give_up)

    def hash_files(
        self,
        paths: Iterable[FilePath],
        algorithm: str = "sha256",
        *,
        threads: int | None = None,
    ) -> list[FileResult[str]]:
        """Return the hash of each file, or its error, in order."""
        batch = _Batch()
        for path in _many(paths, "paths"):
            batch.add(path, b"")
        found = self._raw.hash_files(
            [path for path, _ in batch.work],
            as_algorithm(algorithm),
            _threads(threads),
            self._root,
        )
        return batch.results(found)


def _many(given: Any, field: str) -> Iterable[Any]:
    """A text is an iterable too, of names that nobody meant."""
    if isinstance(given, str | bytes | bytearray | os.PathLike | dict):
        what = "a mapping" if isinstance(given, dict) else repr(given)
        one = "[path]" if field == "paths" else "[(path, content)]"
        msg = f"{field} must be a list, not {what}; for one file give {one}"
        raise TypeError(msg)
    many: Iterable[Any] = given
    return many


def _pair(number: int, item: object) -> tuple[Any, Any]:
    if not isinstance(item, tuple | list) or len(item) != 2:
        msg = f"items[{number}] must be a pair (path, content), not {item!r:.80}"
        raise TypeError(msg)
    return item[0], item[1]


class _Batch:
    """Paths as they were given, and those whose arguments alone are an error already."""

    def __init__(self) -> None:
        self.work: list[tuple[str, bytes]] = []
        self._paths: list[str] = []
        self._refused: dict[int, Exception] = {}

    def add(self, path: FilePath, content: bytes | bytearray | memoryview | str) -> str | None:
        """Take it on; its path, or nothing if it is an error of its own. What is no path or no
        content at all is the caller's mistake, and nothing is done.
        """
        try:
            name = as_path(path)
            if isinstance(content, str):
                data = as_text(content, surrogate="encode it yourself").encode()
            else:
                data = as_bytes(content, "or str, which is written as UTF-8")
        except ValueError as error:
            self._refused[len(self._paths)] = error
            self._paths.append(os.fsdecode(path))
            return None
        self._paths.append(name)
        self.work.append((name, data))
        return name

    def results(self, found: list[T | Exception]) -> list[FileResult[T]]:
        """What became of each, in the order in which they were given."""
        outcomes = iter(found)
        results: list[FileResult[T]] = []
        for number, path in enumerate(self._paths):
            outcome = self._refused.get(number) or next(outcomes)
            if isinstance(outcome, Exception):
                results.append(FileResult(path, error=outcome))
            else:
                results.append(FileResult(path, outcome))
        return results


def _threads(threads: int | None) -> int | None:
    return None if threads is None else as_whole("threads", threads, 1)
