"""Responsible for a comparison of public names that sees what breaks callers, stubs included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
griffe = pytest.importorskip("griffe")

sys.path.insert(0, str(ROOT / "packaging"))
try:
    import api_diff
finally:
    sys.path.remove(str(ROOT / "packaging"))

INIT = "from sample._native import read\n__all__ = ['read', 'write']\ndef write(path): ...\n"
STUB = "def read(path: str) -> bytes: ...\ndef size(path: str) -> int: ...\n"


def changes(tmp_path: Path, init: str, stub: str) -> list[api_diff.Change]:
    """What is told of a package that was INIT and STUB, and has become these."""
    states = []
    for number, (code, types) in enumerate(((INIT, STUB), (init, stub))):
        package = tmp_path / str(number) / "sample"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(code)
        (package / "_native.pyi").write_text(types)
        states.append(griffe.load("sample", search_paths=[package.parent], allow_inspection=False))
    return list(api_diff.compared("sample", *states))


def test_what_is_the_same_is_no_change(tmp_path: Path) -> None:
    assert changes(tmp_path, INIT, STUB) == []


def test_a_public_name_that_asks_for_more_breaks_callers(tmp_path: Path) -> None:
    [change] = changes(tmp_path, INIT.replace("(path)", "(path, mode)"), STUB)
    assert change.public
    assert "mode" in change.words


@pytest.mark.parametrize(
    ("old", "new"), [("size(path: str", "size(path: str, deep: bool"), ("def size", "def length")]
)
def test_the_extensions_stub_is_compared(tmp_path: Path, old: str, new: str) -> None:
    found = changes(tmp_path, INIT, STUB.replace(old, new))
    assert [change.path for change in found if not change.public] == ["sample._native.size"]


def test_every_package_has_what_is_compared() -> None:
    for name, folder in api_diff.PACKAGES.items():
        assert (ROOT / folder / name / "__init__.py").is_file(), name
