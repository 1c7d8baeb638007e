"""Responsible for a guard of instruction counts that can fail, and for counts of every path."""

from __future__ import annotations

import json

from benchmarks.instructions import PATHS, TOLERANCE, WRITTEN, compare


def test_every_path_is_counted_and_written() -> None:
    written = json.loads(WRITTEN.read_text())
    assert set(written["each"]) == set(PATHS)
    assert written["compiler"].startswith("rustc ")
    assert all(count > 100 for count in written["each"].values())


def test_more_than_the_tolerance_fails_and_less_is_told() -> None:
    before = {"framer": 10_000, "walk": 10_000, "edit": 10_000}
    now = {"framer": 10_301, "walk": 10_299, "edit": 9_000}
    lines = compare(before, now, TOLERANCE)
    assert [line.split()[0] for line in lines] == ["MORE", "same", "less"]
    assert "+3.0%" in lines[0]


def test_a_path_that_nobody_wrote_down_fails() -> None:
    [line] = compare({}, {"framer": 1}, TOLERANCE)
    assert line.startswith("MORE")
