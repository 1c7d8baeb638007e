"""Responsible for the map of traps: each row names tests that exist and are not skipped."""

from __future__ import annotations

import functools
import inspect
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("traps.toml").read_text())[
    "trap"
]
KNOWN = {"name", "issues", "at", "tests", "cargo", "backends", "later", "elsewhere", "may_skip"}
HOME = "packages/rust-agent-spawner/tests"
BOTH = ["rust", "python"]

COLLECT = """
import inspect, json, sys
import pytest

class Collected:
    def pytest_collection_finish(self, session):
        found = [describe(item) for item in session.items]
        print("COLLECTED " + json.dumps(found))

def describe(item):
    marks = [mark.name for mark in item.iter_markers()]
    return {
        "id": item.nodeid.partition("[")[0],
        "backend": getattr(item, "callspec", None) and item.callspec.params.get("backend"),
        "marks": marks,
        "source": inspect.getsource(item.function),
    }

sys.exit(pytest.main(["--collect-only", "-qq", "--no-header", *sys.argv[1:]],
                     plugins=[Collected()]))
"""


@functools.cache
def collected() -> dict[str, list[dict[str, Any]]]:
    """The tests of every file that the map names, by id without parameters."""
    files = sorted({path_of(row, test).partition("::")[0] for row in ROWS for test in named(row)})
    answer = subprocess.run(
        [sys.executable, "-c", COLLECT, "-c", "pyproject.toml", "--rootdir", str(ROOT), *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    found = re.search(r"^COLLECTED (.*)$", answer.stdout, re.MULTILINE)
    assert found, answer.stdout + answer.stderr
    by_id: dict[str, list[dict[str, Any]]] = {}
    for item in json.loads(found[1]):
        by_id.setdefault(item["id"], []).append(item)
    return by_id


def named(row: dict[str, Any]) -> list[str]:
    ids = row.get("tests", [])
    assert isinstance(ids, list)
    return ids


def path_of(row: dict[str, Any], test: str) -> str:
    return f"{row.get('at', HOME)}/{test}"


def test_every_row_says_what_stands_for_it() -> None:
    names = [row["name"] for row in ROWS]
    assert len(names) == len(set(names))
    for row in ROWS:
        assert set(row) <= KNOWN, row
        ways = [way for way in ("tests", "cargo", "later", "elsewhere") if row.get(way)]
        assert ways, f"{row['name']}: nothing stands for it"
        assert "later" not in ways or len(ways) == 1, f"{row['name']}: later, or not?"
        assert set(row.get("backends", BOTH)) <= set(BOTH)


@pytest.mark.parametrize("row", [row for row in ROWS if named(row)], ids=lambda row: row["name"])
def test_the_tests_of_a_row_exist_and_run_on_its_backends(row: dict[str, Any]) -> None:
    for test in named(row):
        name = path_of(row, test)
        items = collected().get(name)
        assert items, f"{name} does not exist"
        marks = {mark for item in items for mark in item["marks"]}
        assert not marks & {"skip", "xfail"}, f"{name} is skipped or expected to fail"
        wanted = set(row.get("backends", BOTH))
        there = {item["backend"] for item in items}
        if wanted == set(BOTH):
            # Without a parameter it runs once, whatever the backend: not what the row promises.
            assert there == wanted, f"{name} runs on {there}, the row says {wanted}"
            leaves = re.search(r"pytest\.skip\(|rust_only\(", items[0]["source"])
            assert not leaves or "may_skip" in row, f"{name} leaves a backend or a machine out"


@pytest.mark.parametrize("row", [row for row in ROWS if row.get("cargo")], ids=lambda r: r["name"])
def test_the_rust_tests_of_a_row_exist(row: dict[str, Any]) -> None:
    for test in row["cargo"]:
        file, _, name = test.partition("::")
        assert re.search(rf"^\s*fn {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.get("elsewhere")], ids=lambda r: r["name"]
)
def test_what_shows_a_row_elsewhere_exists(row: dict[str, Any]) -> None:
    assert [path for path in row["elsewhere"] if not (ROOT / path).exists()] == []


def test_the_check_can_fail() -> None:
    assert "def test_" in inspect.getsource(test_the_check_can_fail)
    row = {"name": "no such thing", "tests": ["test_life.py::test_that_nobody_wrote"]}
    with pytest.raises(AssertionError, match="does not exist"):
        test_the_tests_of_a_row_exist_and_run_on_its_backends(row)
    row = {"name": "one backend", "tests": ["test_kills.py::test_the_host_is_killed"]}
    with pytest.raises(AssertionError, match="the row says"):
        test_the_tests_of_a_row_exist_and_run_on_its_backends(row)
    row = {
        "name": "skips",
        "tests": ["test_situations.py::test_no_new_privs_of_the_host_reaches_its_next_agent"],
    }
    with pytest.raises(AssertionError, match="leaves a backend"):
        test_the_tests_of_a_row_exist_and_run_on_its_backends(row)
