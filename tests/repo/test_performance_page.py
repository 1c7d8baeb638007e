"""Responsible for a page of figures that is what its generator makes of the committed figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from benchmarks import page, table
from benchmarks.promised import promised
from benchmarks.table import Row, Shown, Table, Verdict

REMEDY = "run `python -m benchmarks.page`"


def test_the_page_is_made_of_the_committed_figures() -> None:
    assert page.PAGE.read_text() == page.page(table.read(page.RESULTS)), REMEDY


def test_the_page_has_every_promised_row_and_every_work() -> None:
    text = page.PAGE.read_text()
    for expected in ("5-10 x", "2-5 x", "40-60 %", "99.9 %"):
        assert f"| {row_of(text, expected)} |" in text
    for key in ("P1", "P2", "P3", "P4", "P5", "P6", "P9", "P10", "F1", "F2", "F3", "F4", "F6"):
        assert f"| {key} " in text, key


def row_of(text: str, expected: str) -> str:
    """The first cell of the promised table's row with these words."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and expected in line]
    assert lines, expected
    return lines[0].split(" | ")[0].removeprefix("| ")


def made(kept: bool) -> Table:
    """A table of one row."""
    verdict = Verdict("rust / asyncio", 1.5, 1.2, 1.9, ">= 1.5 x asyncio's rate", kept)
    shown = [Shown("rust", "rust", "1,500 starts/s", 1500.0), Shown("floor", "floor", "x", 2000.0)]
    row = Row("P1", "start", 7, [*shown, Shown("asyncio", "peer", "900/s", 1000.0)], [verdict])
    return Table({"kernel": "Linux"}, False, [row])


def test_a_target_that_is_missed_is_said() -> None:
    assert "0 kept, 1 missed" in page.page(made(kept=False))
    assert "MISSED" in page.page(made(kept=False))
    assert "MISSED" not in page.page(made(kept=True))


def test_figures_of_a_smoke_run_say_that_they_mean_nothing() -> None:
    warning = "These figures mean nothing"
    assert warning not in page.page(made(kept=True))
    assert warning in page.page(dataclasses.replace(made(kept=True), smoke=True))


def test_what_was_not_measured_is_not_made_up() -> None:
    text = promised(made(kept=True))
    assert "2.0 x asyncio's rate" in text, "the floor beside asyncio, from the same rounds"
    assert text.count("not measured") > 5


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    table.write(made(kept=True), tmp_path / "table.json")
    assert table.read(tmp_path / "table.json") == made(kept=True)


def test_peers_are_named_in_their_column() -> None:
    text = "\n".join(table.text(made(kept=True).rows))
    assert "asyncio 900/s" in text
    assert "1.50 (1.20 to 1.90)" in text
