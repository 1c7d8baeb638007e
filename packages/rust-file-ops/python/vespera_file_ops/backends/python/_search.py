"""Responsible for finding a pattern in text and in the files of a tree, with ``_hits`` for one text
after the other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from itertools import islice

from vespera_file_ops._finding import Query, Selection
from vespera_file_ops.backends.python._hits import MARK, Hit, as_match, hits
from vespera_file_ops.backends.python._matching import Matching
from vespera_file_ops.backends.python._origin import Origin
from vespera_file_ops.backends.python._place import Root
from vespera_file_ops.backends.python._walk import (
    Entry,
    Filter,
    Finding,
    Problems,
    Tree,
    is_regular,
)
from vespera_file_ops.results import FileCount, Match

__all__ = ["search_files", "search_text"]

# A file is read in pieces of this size.
_PIECE = 4 << 20
# A NUL in so many first bytes makes a file binary, as for git.
_LOOKED_AT = 8000
# It has vanished, or was swapped for something else.
_GONE = (errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.EXDEV)


def search_text(text: bytes, query: Query, limit: int | None) -> list[Match]:
    """The places in ``text`` that match."""
    base = len(MARK) if text.startswith(MARK) else 0
    found = hits(Matching(query), iter([text[base:]]), base)
    return [as_match(None, hit) for hit in islice(found, limit)]


def search_files(
    directory: str,
    query: Query,
    selection: Selection,
    binary: bool,
    max_size: int | None,
    root: Root | None = None,
) -> Finding[Match] | Finding[FileCount]:
    """The places in the files of ``directory`` that match."""
    wanted = Filter.of(selection)
    searched = _Searched(Tree(Origin(directory, root), wanted, Problems()), query, binary, max_size)
    if query.count:
        return Finding.over(searched.tree, searched.counts())
    return Finding.over(searched.tree, searched.matches())


class _Searched:
    """The files of a tree, searched one after the other."""

    def __init__(self, tree: Tree, query: Query, binary: bool, max_size: int | None) -> None:
        self.tree = tree
        self._matching = Matching(query)
        self._binary = binary
        self._max_size = max_size
        self._base = os.path.join(tree.origin.path, "")

    def matches(self) -> Generator[Match, None, None]:
        for entry in self._files():
            path = self._base + entry.path
            try:
                with _Opened(entry) as descriptor:
                    for hit in self._hits(descriptor):
                        yield as_match(path, hit)
            except OSError as error:
                self._failed(entry, error)

    def counts(self) -> Generator[FileCount, None, None]:
        for entry in self._files():
            lines = matches = 0
            try:
                with _Opened(entry) as descriptor:
                    for hit in self._hits(descriptor):
                        lines += hit.text.count(b"\n") + (not hit.text.endswith(b"\n"))
                        matches += len(hit.places)
            except OSError as error:
                self._failed(entry, error)
            if lines:
                yield FileCount(self._base + entry.path, lines, matches)

    def _files(self) -> Generator[Entry, None, None]:
        entries = self.tree.entries()
        try:
            for entry in entries:
                if entry.kind == "file":
                    yield entry
        finally:
            entries.close()

    def _failed(self, entry: Entry, error: OSError) -> None:
        if error.errno not in _GONE and not isinstance(error, Origin.outside):
            self.tree.problems.add(error, self.tree.origin.shown(entry.path))

    def _hits(self, descriptor: int) -> Iterator[Hit]:
        status = is_regular(descriptor)
        if status is None or (self._max_size is not None and status.st_size > self._max_size):
            return iter(())
        # No more than there is: the buffer is made before it is filled. /proc says 0.
        size = status.st_size + 1 if 0 < status.st_size < _PIECE else _PIECE
        first = os.read(descriptor, size)
        if not self._binary and b"\0" in first[:_LOOKED_AT]:
            return iter(())
        base = len(MARK) if first.startswith(MARK) else 0
        return hits(self._matching, self._pieces(descriptor, first[base:]), base)

    def _pieces(self, descriptor: int, first: bytes) -> Iterator[bytes]:
        piece = first
        while piece and not self.tree.stopped:
            yield piece
            piece = os.read(descriptor, _PIECE)


class _Opened:
    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def __enter__(self) -> int:
        self._descriptor = self._entry.open()
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
