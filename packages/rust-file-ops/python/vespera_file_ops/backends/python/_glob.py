"""Responsible for finding the files beneath a directory that a pattern names.

The pattern steers the walk: a directory is read only if something beneath it can still match, and
only once, whatever the pattern.
"""

from __future__ import annotations

import os

from vespera_file_ops._arguments import FilePath, as_path, as_pattern
from vespera_file_ops.backends.python._pattern import ANY_DEPTH, Component, parse

__all__ = ["glob_files"]

# How far one of the patterns has been matched: its number and that of the next component.
_Place = tuple[int, int]


def glob_files(directory: FilePath, pattern: str) -> list[str]:
    """Return the files beneath ``directory`` that match ``pattern``, sorted."""
    root = as_path(directory)
    patterns = parse(as_pattern(pattern))
    found: list[str] = []
    pending = [(root, {(number, 0) for number in range(len(patterns))})]
    while pending:
        where, places = pending.pop()
        try:
            _visit(patterns, where, places, found, pending)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # A tree changes while it is walked, and one closed directory must not hide the rest.
            if where is root:
                raise
    # By bytes, as Rust sorts: escaped bytes would come elsewhere by code point.
    found.sort(key=os.fsencode)
    return found


def _visit(
    patterns: list[list[Component]],
    where: str,
    places: set[_Place],
    found: list[str],
    pending: list[tuple[str, set[_Place]]],
) -> None:
    here = _with_zero_depth(patterns, places)
    with os.scandir(where) as entries:
        for entry in entries:
            file_matches, deeper = _step(patterns, here, entry.name)
            if deeper and entry.is_dir(follow_symlinks=False):
                pending.append((entry.path, deeper))
            elif file_matches and _is_file(entry):
                found.append(entry.path)


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


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        # A symlink that leads round in a circle, or into a closed directory.
        return False
