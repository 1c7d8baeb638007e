"""Responsible for honest ratios: interleaved rounds, medians with their spread, verdicts.

A machine's mood changes by the minute, so a figure is a ratio inside one round: every contestant
does the work in turn, and only the ratios of one round are compared.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.accounting import Cost

RATE, CPU, STREAM = "rate", "cpu", "stream"


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
    """The costs of each contestant, per item, round by round."""

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


def report(played: Played) -> list[dict[str, object]]:
    """Print a block of the table; returns it as rows of plain data."""
    work = played.work
    rounds = len(next(iter(played.costs.values())))
    print(f"\n{work.key} - {work.title}  ({rounds} rounds of {played.count})")
    print(f"  {'who':<16}{work.unit + '/s':>14}{'CPU us each':>14}")
    rows: list[dict[str, object]] = []
    for name, costs in played.costs.items():
        rate = played.count / statistics.median(cost.wall for cost in costs)
        cpu = statistics.median(cost.ours for cost in costs) / played.count * 1e6
        note = "" if all(cost.whole for cost in costs) else "  (own process only)"
        print(f"  {name:<16}{rate:>14,.0f}{cpu:>14,.1f}{note}")
        rows.append({"work": work.key, "who": name, "rate": rate, "cpu_us": cpu})
    for target in work.targets:
        ratios = played.ratios(target)
        median = statistics.median(ratios)
        verdict = "ok" if target.kept(median) else "MISSED"
        spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        print(f"  {target.who}: {median:.2f} ({spread}), target {target.words()}: {verdict}")
        rows.append(
            {
                "work": work.key,
                "who": target.who,
                "target": target.words(),
                "ratio": median,
                "low": ratios[0],
                "high": ratios[-1],
                "kept": target.kept(median),
            }
        )
    return rows
