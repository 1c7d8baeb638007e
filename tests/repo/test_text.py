"""Responsible for files that say nothing about the machine they were written on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".pyi", ".rs", ".toml", ".md", ".yml", ".json", ".txt", ".c", ".sh", ""}
# A home folder of somebody, or a checkout somewhere on a disk.
MACHINE = re.compile(r"(?<![\w.])/(?:home/[a-z]\w*|Users/\w+|root/\w|work/)")
# Tests and docs that speak about such a path on purpose.
ALLOWED = {"tests/repo/test_text.py"}


def tracked() -> list[Path]:
    """Files in git; an unpacked archive without git has nothing to check."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    paths = [ROOT / line for line in answer.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix in TEXT]


def test_no_file_names_a_machines_path() -> None:
    found = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        if name in ALLOWED:
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if MACHINE.search(line):
                found.append(f"{name}:{number}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


def test_source_files_open_with_what_they_are_for() -> None:
    bare = []
    for path in tracked():
        first = path.read_text(errors="replace").lstrip()[:3]
        generated = path.name == "__init__.py" and not path.read_text().strip()
        if path.suffix == ".py" and not generated and first not in ('"""', "#!/"):
            bare.append(path.relative_to(ROOT).as_posix())
        if path.suffix == ".rs" and first != "//!":
            bare.append(path.relative_to(ROOT).as_posix())
    assert not bare, f"no opening line that says what the file is responsible for: {bare}"


def test_no_file_is_longer_than_it_should_be() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in tracked()
        if path.suffix in {".py", ".rs"}
        and (lines := len(path.read_text(errors="replace").splitlines())) > 600
    }
    assert not long, f"more than 600 lines, one idea per file: {long}"
