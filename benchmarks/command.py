"""Responsible for the command line that all tables share: which works, how many rounds, JSON.

`python -m benchmarks [GROUP or KEY …] [--rounds N] [--smoke] [--json FILE]`; a group is a module
with `rows` and `KEYS`, and `python -m benchmarks.GROUP` is the same with that one group.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import cleanup, table
from benchmarks.table import Row, Table


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    rounds: int
    smoke: bool
    keys: frozenset[str] = frozenset()

    def wanted(self, key: str) -> bool:
        """Whether the row of that key is to be measured."""
        return not self.keys or key in self.keys


@dataclass(frozen=True)
class Group:
    """Works that are measured by one module."""

    rows: Callable[[Options], Iterator[Row]]
    keys: Sequence[str]


def refuse_debug() -> None:
    """A debug build measures nothing."""
    import vespera_agent_spawner._native
    import vespera_file_ops._native

    for module in (vespera_agent_spawner._native, vespera_file_ops._native):
        profile = module.build_info()["profile"]
        if profile != "release":
            sys.exit(
                f"{module.__name__} was built in profile {profile!r}; `nox -s bench` makes a "
                "release build"
            )


def machine() -> dict[str, str]:
    """What the figures depend on; no name of the machine."""
    cpu = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "processors": f"{os.cpu_count()} x {cpu}",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "load before": load,
    }


def run(doc: str | None, groups: Mapping[str, Group]) -> None:
    """Measure and print, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("keys", nargs="*", help="groups or works; default: all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--smoke", action="store_true", help="1 small round: does it work at all")
    parser.add_argument("--json", type=Path, help="write the table there")
    arguments = parser.parse_args()
    known = {key: name for name, group in groups.items() for key in group.keys}
    keys: set[str] = set()
    for word in arguments.keys:
        if word not in known and word not in groups:
            parser.error(f"unknown: {word}; known: {', '.join([*groups, *known])}")
        keys |= set(groups[word].keys) if word in groups else {word}
    refuse_debug()
    rounds = 1 if arguments.smoke else arguments.rounds
    options = Options(rounds, arguments.smoke, frozenset(keys))
    before = machine()
    head, rule, *_ = table.text([])
    print(f"{head}\n{rule}", flush=True)
    rows: list[Row] = []
    for group in groups.values():
        for row in group.rows(options):
            rows.append(row)
            print("\n".join(list(table.text([row]))[2:]), flush=True)
    missed = sum(not each.kept for row in rows for each in row.verdicts)
    kept = sum(each.kept for row in rows for each in row.verdicts)
    print(f"{rule}\n{kept} targets kept, {missed} missed. Figures are medians of {rounds} rounds;")
    print("a ratio is of one round, beside it the least and the most. A smoke run's mean nothing.")
    if arguments.json:
        table.write(Table(before, arguments.smoke, rows, cleanup.summary()), arguments.json)


def alone(name: str, doc: str | None, group: Group) -> None:
    """The command of one module."""
    run(doc, {name: group})
