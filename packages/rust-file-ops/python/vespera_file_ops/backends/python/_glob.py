"""Responsible for finding the files beneath a directory that a pattern names.

The pattern steers the walk: a directory is read only if something beneath it can still match, and
only once, whatever the pattern.
"""

from __future__ import annotations

import os
import stat

from vespera_file_ops.backends.python._pattern import ANY_DEPTH, Component, parse
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.errors import OutsideWorkspace

__all__ = ["glob_files"]

# How far one of the patterns has been matched: its number and that of the next component.
_Place = tuple[int, int]


def glob_files(directory: str, pattern: str, root: Root | None = None) -> list[str]:
    """Return the files beneath ``directory`` that match ``pattern``, sorted."""
    patterns = parse(pattern)
    found: list[str] = []
    pending = [(directory, {(number, 0) for number in range(len(patterns))})]
    while pending:
        where, places = pending.pop()
        try:
            _visit(patterns, Place(where, root), places, found, pending)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            # A tree changes while it is walked, and one closed directory must not hide the rest.
            if where is directory:
                if not isinstance(error, OutsideWorkspace):
                    error.filename = directory
                raise
    # By bytes, as Rust sorts: escaped bytes would come elsewhere by code point.
    found.sort(key=os.fsencode)
    return found


def _visit(
    patterns: list[list[Component]],
    where: Place,
    places: set[_Place],
    found: list[str],
    pending: list[tuple[str, set[_Place]]],
) -> None:
    here = _with_zero_depth(patterns, places)
    for entry in where.entries():
        file_matches, deeper = _step(patterns, here, entry.name)
        if deeper and entry.is_dir(follow_symlinks=False):
            pending.append((os.path.join(where.path, entry.name), deeper))
        elif file_matches:
            path = os.path.join(where.path, entry.name)
            if _is_file(entry, where.at(path)):
                found.append(path)


def _with_zero_depth(patterns: list[list[Component]], places: set[_Place]) -> list[_Place]:
    """``**`` also stands for no directory at all: what follows it may match right here."""
    every = set(places)
    for number, component in places:
        at = component
        # A parsed pattern never ends in `**`, so "one further" always exists.
        while patterns[number][at] is ANY_DEPTH:
            at += 1
            every.add((number, at))
    return list(every)


def _step(
    patterns: list[list[Component]], here: list[_Place], name: str
) -> tuple[bool, set[_Place]]:
    """Whether a file of this name is found, and where a directory of this name leads."""
    file_matches = False
    deeper: set[_Place] = set()
    for number, at in here:
        component = patterns[number][at]
        if component is ANY_DEPTH:
            deeper.add((number, at))
        elif component.fullmatch(name):
            if at + 1 == len(patterns[number]):
                file_matches = True
            else:
                deeper.add((number, at + 1))
    return file_matches, deeper


def _is_file(entry: os.DirEntry[str], place: Place) -> bool:
    if not entry.is_symlink():
        return entry.is_file(follow_symlinks=False)
    try:
        return stat.S_ISREG(place.stat().st_mode)
    except OSError:
        # It leads round in a circle, out of the root or into a closed directory.
        return False
