"""Responsible for finding as it is measured: the same work by both backends and by what a user
would pick instead, results consumed in the same way.

Ours are consumed as Python objects in this process; a program's are lines, read from its pipe to
the end. Both are counted, so that a figure compares the same answer.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from vespera_file_ops.backends import python, rust
from vespera_file_ops.results import Match, WalkEntry

from .trees import NEEDLE

Work = Callable[[Path], int]
"""Does the work in a tree and gives the number of results."""

# Debian calls the program by another name, as `fd` was taken.
PROGRAMS = {"rg": ("rg",), "fd": ("fd", "fdfind")}
INSTALL = {"rg": "ripgrep", "fd": "fd-find"}


@dataclass(frozen=True)
class Sample:
    """Seconds of wall clock and of CPU, and the number of results."""

    wall: float
    cpu: float
    results: int


def program(name: str) -> str:
    """Path of a peer; FileNotFoundError says what to install."""
    for candidate in PROGRAMS[name]:
        if (path := shutil.which(candidate)) is not None:
            return path
    package = INSTALL[name]
    raise FileNotFoundError(
        f"{name} is not on PATH; install the package {package} ('apt install {package}' or "
        f"'cargo install {package}')"
    )


def version(name: str) -> str:
    """The first line of `NAME --version`."""
    answer = subprocess.run(
        [program(name), "--version"], capture_output=True, text=True, check=True
    )
    return answer.stdout.splitlines()[0]


def lines_of(name: str, *arguments: str) -> Work:
    """A peer that prints its results, one to a line."""

    def work(root: Path) -> int:
        command = [program(name), *arguments, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            return running.stdout.read().count(b"\n")

    return work


def consumed(results: Iterable[Match] | Iterable[WalkEntry]) -> int:
    """Take every object, and the field that every caller wants."""
    return sum(result.path is not None for result in results)


def with_pathlib(root: Path) -> int:
    """Ignores nothing: pathlib knows no .gitignore."""
    return len(list(root.rglob("*.py")))


def with_os_walk(root: Path) -> int:
    """Ignores nothing either."""
    return sum(
        fnmatch(name, "*.py") and bool(f"{where}/{name}")
        for where, _, files in os.walk(root)
        for name in files
    )


RG = ("--no-config", "--color=never", "--no-heading", "--line-number")
FD = ("--hidden", "--exclude=.git", "--color=never")

SEARCHES: dict[str, dict[str, Work]] = {
    "search, literal": {
        "rust": lambda root: consumed(rust.search_files(root, NEEDLE, literal=True)),
        "ripgrep": lines_of("rg", *RG, "--fixed-strings", NEEDLE),
        "python": lambda root: consumed(python.search_files(root, NEEDLE, literal=True)),
    },
    "search, regex": {
        "rust": lambda root: consumed(rust.search_files(root, r"needle_\w+\(\d+00\)")),
        "ripgrep": lines_of("rg", *RG, r"needle_\w+\(\d+00\)"),
        "python": lambda root: consumed(python.search_files(root, r"needle_\w+\(\d+00\)")),
    },
    "search, many matches": {
        "rust": lambda root: consumed(rust.search_files(root, "agent queue", literal=True)),
        "ripgrep": lines_of("rg", *RG, "--fixed-strings", "agent queue"),
        "python": lambda root: consumed(python.search_files(root, "agent queue", literal=True)),
    },
}
WALKS: dict[str, dict[str, Work]] = {
    "glob *.py": {
        "rust": lambda root: len(rust.glob_files(root, "**/*.py", gitignore=True)),
        "fd": lines_of("fd", *FD, "--type=f", "--glob", "*.py"),
        "pathlib": with_pathlib,
        "os.walk": with_os_walk,
        "python": lambda root: len(python.glob_files(root, "**/*.py", gitignore=True)),
    },
    "walk": {
        "rust": lambda root: consumed(rust.walk(root, gitignore=True)),
        "fd": lines_of("fd", *FD, "."),
        "os.walk": lambda root: sum(len(d) + len(f) for _, d, f in os.walk(root)),
        "python": lambda root: consumed(python.walk(root, gitignore=True)),
    },
}


def measure(work: Work, root: Path) -> Sample:
    """Do it once. CPU is that of this process and of the program it starts."""
    before = _cpu()
    began = time.perf_counter()
    results = work(root)
    wall = time.perf_counter() - began
    return Sample(wall, _cpu() - before, results)


def _cpu() -> float:
    own, others = (resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def ratios(works: dict[str, Work], root: Path, number: int) -> dict[str, list[Sample]]:
    """`number` interleaved rounds after one unmeasured round."""
    found: dict[str, list[Sample]] = {name: [] for name in works}
    for turn in range(number + 1):
        for name, work in works.items():
            sample = measure(work, root)
            if turn:
                found[name].append(sample)
    return found
