"""Responsible for honest ratios: interleaved rounds, medians with their spread, verdicts.

A machine's mood changes by the minute, so a figure is a ratio inside one round: every contestant
does the work in turn, and only the ratios of one round are compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.accounting import Cost
from benchmarks.table import Column, Row, Shown, Verdict

RATE, CPU, STREAM = "rate", "cpu", "stream"
FLOORS = frozenset({"floor", "C twin"})
# Contestants that are the Rust backend under another name, because the work is one part of it.
OURS = frozenset({"rust", "rust, observed", "rust, hook called", "data"})


@dataclass(frozen=True)
class Target:
    """``who`` against ``against``: at least so many times its rate, or at most so much of its CPU.

    ``STREAM`` is against nobody: at least so many GB of stream for each second of CPU.
    """

    who: str
    against: str
    figure: str
    value: float

    def words(self) -> str:
        if self.figure == STREAM:
            return f">= {self.value:g} GB/s of stream per core"
        sign = ">=" if self.figure == RATE else "<="
        return f"{sign} {self.value:.3g} x {self.against}'s {self.figure}"

    def what(self) -> str:
        if self.figure == STREAM:
            return f"{self.who} GB/s"
        return f"{self.who} / {self.against}" + ("" if self.figure == RATE else f", {self.figure}")

    def kept(self, ratio: float) -> bool:
        return ratio <= self.value if self.figure == CPU else ratio >= self.value


@dataclass(frozen=True)
class Work:
    """One row of performance.md: what is done, by whom, how often, and what is promised."""

    key: str
    title: str
    unit: str
    contestants: Mapping[str, Callable[[int], Cost]]
    count: int
    targets: Sequence[Target] = field(default=())
    bytes_each: int = 0


@dataclass(frozen=True)
class Played:
    """The costs of each contestant, round by round."""

    work: Work
    count: int
    costs: Mapping[str, list[Cost]]

    def ratios(self, target: Target) -> list[float]:
        """Of the target's figure, one per round, sorted."""
        if target.figure == STREAM:
            size = self.work.bytes_each * self.count / 1e9
            return sorted(size / cost.ours for cost in self.costs[target.who])
        pairs = zip(self.costs[target.who], self.costs[target.against], strict=True)
        if target.figure == RATE:
            return sorted(other.wall / own.wall for own, other in pairs)
        return sorted(own.ours / other.ours for own, other in pairs)


def play(work: Work, rounds: int, count: int | None = None) -> Played:
    """All contestants, `rounds` times in turn, after one round that does not count."""
    number = count or work.count
    costs: dict[str, list[Cost]] = {name: [] for name in work.contestants}
    for contestant in work.contestants.values():
        contestant(max(1, number // 10))
    for _ in range(rounds):
        for name, contestant in work.contestants.items():
            costs[name].append(contestant(number))
    return Played(work, number, costs)


def timed(seconds: Callable[[], float]) -> Callable[[int], Cost]:
    """A contestant that says the seconds of one item by itself."""
    return lambda count: Cost(wall=seconds() * count)


def column_of(who: str) -> Column:
    """Where a contestant stands in the table."""
    if who in FLOORS:
        return "floor"
    if who in OURS:
        return "rust"
    return "python" if who == "python" else "peer"


def quantity(seconds: float, unit: str) -> str:
    """Items of a kind by their number in a second, calls by the time of one."""
    if unit != "calls":
        return f"{1 / seconds:,.{0 if seconds < 0.1 else 1}f}/s"
    if seconds < 0.001:
        return f"{seconds * 1e6:,.1f} us"
    return f"{seconds * 1e3:,.{1 if seconds < 1 else 0}f} ms"


def row(played: Played) -> Row:
    """The row of the table."""
    work = played.work
    shown: list[Shown] = []
    for name, costs in played.costs.items():
        each = statistics.median(cost.wall for cost in costs) / played.count
        said = quantity(each, work.unit)
        cpu = statistics.median(cost.ours for cost in costs) / played.count * 1e6
        if cpu:
            said += f", CPU {cpu:,.1f} us"
            # What other processes used for it is not in that figure.
            said += "" if all(cost.whole for cost in costs) else " (own)"
        shown.append(Shown(name, column_of(name), said, 1 / each))
    verdicts: list[Verdict] = []
    for target in work.targets:
        if {target.who, target.against} - played.costs.keys() - {""}:
            continue  # that peer is not installed here
        ratios = played.ratios(target)
        median = statistics.median(ratios)
        kept = target.kept(median)
        verdicts.append(Verdict(target.what(), median, ratios[0], ratios[-1], target.words(), kept))
    rounds = len(next(iter(played.costs.values())))
    return Row(work.key, work.title, rounds, shown, verdicts)


def figure(
    what: str, values: Sequence[float], limit: float, unit: str, *, least: bool = False
) -> Verdict:
    """A verdict about a figure that stands for itself."""
    median = statistics.median(values)
    sign = ">=" if least else "<="
    kept = median >= limit if least else median <= limit
    return Verdict(what, median, min(values), max(values), f"{sign} {limit:g} {unit}", kept)
