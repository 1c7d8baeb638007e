"""Responsible for the one table of all measurements: its rows, how they are printed, their JSON.

A row is a work; what each did of it stands in the column of its kind (the floor, a peer, a
backend), and a verdict is a ratio with its spread beside what is promised. Imports nothing of the
packages, so that the page can be made from the JSON anywhere.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Column = Literal["floor", "peer", "python", "rust"]
HEADS = ("work", "floor", "peer", "Python backend", "Rust backend", "ratio (spread)", "target", "")
WIDTHS = (34, 24, 34, 24, 34, 34, 34, 6)


@dataclass(frozen=True)
class Shown:
    """What one contestant did: a rate or another figure, as text and as what ratios are made of."""

    who: str
    column: Column
    text: str
    value: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """A ratio (or a figure) with the least and the most of its rounds, and what is promised of
    it."""

    what: str
    ratio: float
    low: float
    high: float
    target: str
    kept: bool

    def figure(self) -> str:
        """With two digits after the point, or fewer where they say nothing."""
        digits = 0 if self.ratio >= 100 else 1 if self.ratio >= 20 else 2
        return f"{self.ratio:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True)
class Row:
    """One work."""

    key: str
    title: str
    rounds: int
    shown: Sequence[Shown] = ()
    verdicts: Sequence[Verdict] = ()

    def value(self, who: str) -> float | None:
        """The figure of one contestant, if it took part."""
        return next((one.value for one in self.shown if one.who == who), None)

    def verdict(self, what: str) -> Verdict | None:
        """The verdict of that name."""
        return next((one for one in self.verdicts if one.what == what), None)

    def cells(self, column: Column) -> list[str]:
        """What stands in a column; a peer says its name, the rest are alone in theirs."""
        texts = [(one.who, one.text) for one in self.shown if one.column == column]
        if column == "peer" or len(texts) > 1:
            return [f"{who} {text}" for who, text in texts]
        return [text for _, text in texts]


@dataclass(frozen=True)
class Table:
    """All rows, and where and how they were measured."""

    machine: dict[str, str]
    smoke: bool
    rows: Sequence[Row]
    chaos: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)

    def row(self, key: str) -> Row | None:
        """The row of that key."""
        return next((row for row in self.rows if row.key == key), None)


def lines(row: Row) -> Iterator[tuple[str, ...]]:
    """The cells of a row, a line for each peer and each verdict."""
    columns: list[list[str]] = [[f"{row.key} {row.title}"]]
    order: tuple[Column, ...] = ("floor", "peer", "python", "rust")
    columns += [row.cells(column) for column in order]
    columns += [
        [f"{each.what}: {each.figure()}" for each in row.verdicts],
        [each.target for each in row.verdicts],
        ["ok" if each.kept else "MISSED" for each in row.verdicts],
    ]
    yield from itertools.zip_longest(*columns, fillvalue="")


def text(rows: Iterable[Row]) -> Iterator[str]:
    """The table for a terminal."""

    def joined(cells: Sequence[str]) -> str:
        fields = (f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=True))
        return "  ".join(fields).rstrip()

    yield joined(HEADS)
    yield "-" * (sum(WIDTHS) + 2 * (len(WIDTHS) - 1))
    for row in rows:
        for cells in lines(row):
            # A long title must not push the figures out of their columns.
            if len(cells[0]) > WIDTHS[0]:
                yield cells[0]
                cells = ("", *cells[1:])
            yield joined(cells)


def write(table: Table, path: Path) -> None:
    """As JSON."""
    path.write_text(json.dumps(dataclasses.asdict(table), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Table:
    """A table that `write` wrote."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Row(
            row["key"],
            row["title"],
            row["rounds"],
            [Shown(**one) for one in row["shown"]],
            [Verdict(**one) for one in row["verdicts"]],
        )
        for row in found["rows"]
    ]
    return Table(found["machine"], found["smoke"], rows, found["chaos"])
