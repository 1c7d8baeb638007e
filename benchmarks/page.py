"""Responsible for `docs/performance.md`: made of the JSON of `nox -s bench`, of nothing else.

`python -m benchmarks.page [JSON]` writes the page and, when another JSON is named, keeps it as the
committed one. `tests/repo/test_performance_page.py` checks that the page is what comes out.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import table
from benchmarks.promised import promised
from benchmarks.table import HEADS, Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs" / "performance.md"

TOP = """\
# Performance

Made from `benchmarks/results.json` by `python -m benchmarks.page`; change neither by hand.
`nox -s bench -- --rounds 7 --json benchmarks/results.json` measures all of it again.
"""
SMOKE = """
> **These figures mean nothing**: they are of a smoke run, which only shows that all of it works.
"""
HOW = """
## How a figure is taken

All contestants do the same work in turn, round after round, each in a process of its own where
its threads and caches could disturb the next. A ratio is taken within a round; the table has the
median of the rounds and, in brackets, the least and the most. The floor is a C program that makes
nothing but the system calls. CPU is that of everything but the agents: host, guardian and
leashes, from a control group around the whole; where none could be made, the text says "own".
Memory is what the same kind of group is charged with, the kernel's own for its processes included,
not only what the host has. Absolute figures are this machine's; the ratios carry over better.

P10 is the lateness of a timer of the event loop, three times: alone, beside as many agents of
another process, beside our own. Two hundred programs that wake together keep two processors busy
for milliseconds whoever owns them, so the verdict is of what is more than that.
"""
ALL = """
## All works

A row's verdicts are beside its figures: `a / b` is how much more of the work a does in a second,
`, cpu` how much of b's CPU time a takes.
"""
NOT_HERE = """
## What this table does not hold

- The real Claude CLI: its start takes 350 to 900 ms by itself, far more than any row above. What
  a user waits for is decided there, which is what a pool of started processes changes (P7).
- Kills (P8): `python chaos/report.py` prints them from the ledger, and the promised table has
  them.
- Other machines than the one named at the top; macOS and Windows: never run.
"""


def cell(text: str) -> str:
    """As it may stand in a table of Markdown."""
    return text.replace("|", "\\|")


def markdown(heads: Sequence[str], lines: Iterator[Sequence[str]]) -> Iterator[str]:
    """A table."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for line in lines:
        yield "| " + " | ".join(map(cell, line)) + " |"


def all_works(found: Table) -> Iterator[Sequence[str]]:
    """A line for each row of the table: what stands on several lines there is broken here."""
    for row in found.rows:
        columns = zip(*table.lines(row), strict=True)
        yield ["<br>".join(filter(None, column)) for column in columns]


def page(found: Table) -> str:
    """The whole page."""
    facts = [f"- {name}: {value}" for name, value in found.machine.items()]
    rounds = sorted({row.rounds for row in found.rows if row.rounds})
    facts.append(f"- rounds: {', '.join(map(str, rounds))}")
    kept = sum(one.kept for row in found.rows for one in row.verdicts)
    missed = sum(not one.kept for row in found.rows for one in row.verdicts)
    facts.append(f"- targets: {kept} kept, {missed} missed")
    parts = [TOP, "\n".join(["", *facts, ""]), SMOKE if found.smoke else "", HOW]
    parts += ["\n## The promised table\n", promised(found)]
    parts += [ALL, "\n", "\n".join(markdown([*HEADS[:-1], "verdict"], all_works(found))), "\n"]
    parts.append(NOT_HERE)
    return "".join(parts)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", nargs="?", type=Path, default=RESULTS)
    given = parser.parse_args().json
    if given.resolve() != RESULTS:
        shutil.copy(given, RESULTS)
    PAGE.write_text(page(table.read(RESULTS)), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)} is made of {RESULTS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
