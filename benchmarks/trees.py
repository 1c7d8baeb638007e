"""Responsible for the trees that finding is measured on: made once, and always the same."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

WORDS = [
    "the",
    "of",
    "value",
    "return",
    "self",
    "import",
    "from",
    "class",
    "def",
    "index",
    "result",
]
WORDS += ["result", "error", "path", "file", "open", "read", "write", "stream", "buffer", "token"]
WORDS += ["parse", "state", "next", "event", "agent", "queue", "worker", "thread", "lock"]
# Stands in one file of a hundred.
NEEDLE = "needle_in_a_haystack"
GITIGNORE = (
    "*.log\n*.tmp\n/build/\nnode_modules/\n__pycache__/\n*.py[co]\n!keep.log\ndist\n.cache/\n"
)
SUFFIXES = (".py", ".rs", ".md", ".txt", ".log", ".json", ".py", ".c")


def folder() -> Path:
    """Where the trees are kept, for this user alone."""
    path = Path(tempfile.gettempdir()) / f"vespera-bench-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def made(name: str, build: object) -> Path:
    """The tree of this name; what was left half made is made again."""
    path = folder() / name
    if not path.exists():
        making = path.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        assert callable(build)
        build(making)
        making.rename(path)
    return path


def sources(files: int = 5000) -> Path:
    """Small source files, 50 to a directory, about 4 KB each; a needle in every hundredth."""

    def build(root: Path) -> None:
        chance = random.Random(7)
        (root / ".git").mkdir()
        (root / ".gitignore").write_text(GITIGNORE)
        for number in range(files):
            lines = [" ".join(chance.choices(WORDS, k=9)) for _ in range(70)]
            if number % 100 == 0:
                lines[40] += f" {NEEDLE}({number})"
            path = root / f"package{number // 500}" / f"module{number // 50 % 10}"
            path.mkdir(parents=True, exist_ok=True)
            (path / f"file{number}.py").write_text("\n".join(lines) + "\n")

    return made(f"sources-{files}", build)


def names(files: int = 100_000) -> Path:
    """Empty files, 50 to a directory, ten directories to one above; an eighth is ignored."""

    def build(root: Path) -> None:
        (root / ".git").mkdir()
        (root / ".gitignore").write_text(GITIGNORE)
        for start in range(0, files, 50):
            number = start // 50
            path = root / f"d{number // 100}" / f"e{number // 10 % 10}" / f"f{number % 10}"
            path.mkdir(parents=True)
            if number % 20 == 0:
                (path / ".gitignore").write_text("*.bak\n/local*\n")
            for index in range(start, min(start + 50, files)):
                name = f"file{index}{SUFFIXES[index % len(SUFFIXES)]}"
                os.close(os.open(path / name, os.O_CREAT | os.O_WRONLY, 0o644))

    return made(f"names-{files}", build)
