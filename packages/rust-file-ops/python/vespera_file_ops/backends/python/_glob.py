"""Responsible for finding the files beneath a directory that a pattern names.

The pattern steers the walk: a directory is read only if something beneath it can still match, and
only once, whatever the pattern.
"""

from __future__ import annotations

import errno
import os

from vespera_file_ops.backends.python._globs import Globs
from vespera_file_ops.backends.python._origin import Origin
from vespera_file_ops.backends.python._place import Root
from vespera_file_ops.backends.python._walk import Entry, Filter, Problems, Tree

__all__ = ["glob_files"]


class _Skipping(Problems):
    """A tree changes while it is walked, and one closed directory must not hide the rest."""

    def add(self, error: OSError, path: str) -> None:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG):
            error.filename = path
            raise error


def glob_files(
    directory: str, pattern: str, gitignore: bool, root: Root | None = None
) -> list[str]:
    """Return the files beneath ``directory`` that match ``pattern``, sorted."""
    wanted = Filter(gitignore=gitignore, include=Globs.one(pattern))
    tree = Tree(Origin(directory, root), wanted, _Skipping())
    base = os.path.join(directory, "")
    found = [base + entry.path for entry in tree.entries() if _is_file(entry)]
    # By bytes, as Rust sorts: escaped bytes would come elsewhere by code point.
    found.sort(key=os.fsencode)
    return found


def _is_file(entry: Entry) -> bool:
    # A symlink may lead round in a circle, out of the root or into a closed directory.
    return entry.kind == "file" or (entry.kind == "symlink" and entry.target() == "file")
