"""The part of the guardian that decides is read in one sitting (docs/decisions/0006)."""

from __future__ import annotations

from pathlib import Path

GUARDIAN = Path(__file__).parents[2] / "packages" / "rust-agent-spawner" / "guardian" / "src"
DECIDES = ("main.rs", "leash.rs", "leader.rs")
MOST = 600


def test_what_decides_is_read_in_one_sitting() -> None:
    lines = {name: len((GUARDIAN / name).read_text().splitlines()) for name in DECIDES}
    assert sum(lines.values()) <= MOST, lines


def test_unsafe_stands_only_where_the_record_says() -> None:
    beside = [
        path.relative_to(GUARDIAN).as_posix()
        for path in sorted(GUARDIAN.rglob("*.rs"))
        if "unsafe {" in path.read_text() and path.parent.name != "sys"
    ]
    assert beside == ["leader.rs"]
