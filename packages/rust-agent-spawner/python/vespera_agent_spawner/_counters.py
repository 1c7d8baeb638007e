"""Responsible for the process's counters, named as Prometheus would print them.

There is no label per agent: the number of series stays bounded however many agents ran.
"""

from __future__ import annotations

import bisect
import functools
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PROCESS", "Bill", "Counters", "kind_label", "merge", "series"]

# Upper bounds of a histogram's buckets, in seconds; the Rust twin is src/metrics.rs.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0)


@dataclass(slots=True, eq=False)
class Bill:
    """What of one agent's spending is counted already: dollars, tokens in and out."""

    counted: tuple[float, int, int] = (0.0, 0, 0)


class Counters:
    """Counters that any thread may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        one = series(name, **labels) if labels else name
        with self._lock:
            # Counter is typed for ints; sums of money are floats.
            self._values[one] += amount  # type: ignore[assignment]

    def count_run(self, outcome: str, seconds: float) -> None:
        """A run, or a turn of a session, has an end."""
        one = _runs(outcome)
        with self._lock:
            self._values[one] += 1
            self._observe("vespera_run_seconds", seconds)

    def observe(self, name: str, seconds: float) -> None:
        """One more took this long, in buckets."""
        with self._lock:
            self._observe(name, seconds)

    def _observe(self, name: str, seconds: float) -> None:
        values, (buckets, count, total) = self._values, _histogram(name)
        at = bisect.bisect_left(_BOUNDS, seconds)
        if at < len(_BOUNDS):
            values[buckets[at]] += 1
        values[count] += 1
        values[total] += seconds  # type: ignore[assignment]

    def count_spent(self, bill: Bill, spent: tuple[float, int, int]) -> None:
        """What an agent has spent since it was counted last; also for turns without a result of
        their own, whose cost the CLI has told all the same."""
        if spent == bill.counted:
            return
        cost, taken, given = spent
        with self._lock:
            values, (cost_before, taken_before, given_before) = self._values, bill.counted
            # Another thread may have told more in the meantime.
            cost, taken = max(cost, cost_before), max(taken, taken_before)
            given = max(given, given_before)
            # A series of what cost nothing is there too.
            values[_COST] += cost - cost_before  # type: ignore[assignment]
            values[_TAKEN] += taken - taken_before
            values[_GIVEN] += given - given_before
            bill.counted = (cost, taken, given)

    def snapshot(self) -> dict[str, float]:
        with self._lock:
            values = {name: float(value) for name, value in self._values.items()}
        for name in [name for name in values if name.endswith("_count")]:
            _add_up(values, name.removesuffix("_count"))
        return values

    def forget_in_fork(self) -> None:
        """In a forked child: nothing was counted yet, and the lock may have been held."""
        self.__init__()  # type: ignore[misc]


@functools.lru_cache(maxsize=64)
def _runs(outcome: str) -> str:
    return series("vespera_runs_total", outcome=outcome)


@functools.lru_cache(maxsize=64)
def _histogram(name: str) -> tuple[tuple[str, ...], str, str]:
    """The series of its buckets, of how many there were and of their sum."""
    buckets = tuple(f'{name}_bucket{{le="{bound:g}"}}' for bound in _BOUNDS)
    return buckets, f"{name}_count", f"{name}_sum"


def _add_up(values: dict[str, float], name: str) -> None:
    """Buckets are kept apart and told as Prometheus wants them: each with all below it."""
    if not any(series.startswith(f"{name}_bucket{{") for series in values):
        return
    below = 0.0
    for series in _histogram(name)[0]:
        below += values.get(series, 0.0)
        values[series] = below
    values[f'{name}_bucket{{le="+Inf"}}'] = values[f"{name}_count"]


def merge(into: dict[str, float], values: Mapping[str, float]) -> None:
    """Add up the counters and gauges of several places."""
    for name, value in values.items():
        into[name] = into.get(name, 0.0) + value


def series(name: str, **labels: str) -> str:
    """The name of a counter with its labels; whoever adds to it for every agent keeps it."""
    return _series(name, tuple(labels.items()))


@functools.lru_cache(maxsize=256)
def _series(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    text = ",".join(f'{key}="{value}"' for key, value in sorted(labels))
    return f"{name}{{{text}}}"


def kind_label(kind: object) -> str:
    """Metric labels stay few, whatever an agent prints."""
    return kind if isinstance(kind, str) and kind in _KINDS else "other"


_KINDS = frozenset(
    {
        "assistant",
        "control_cancel_request",
        "control_request",
        "control_response",
        "conversation_reset",
        "keep_alive",
        "rate_limit_event",
        "result",
        "stream_event",
        "system",
        "tool_progress",
        "user",
    }
)

_COST = "vespera_cost_usd_total"
_TAKEN = series("vespera_tokens_total", direction="input")
_GIVEN = series("vespera_tokens_total", direction="output")

#: What does not depend on a backend: runs, their cost and their time.
PROCESS = Counters()
