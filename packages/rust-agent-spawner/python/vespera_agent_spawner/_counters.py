"""Responsible for the process's counters, named as Prometheus would print them.

There is no label per agent: the number of series stays bounded however many agents ran.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vespera_agent_spawner.results import TurnResult

__all__ = ["Counters", "kind_label"]


class Counters:
    """Counters that any thread may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        series = _series(name, tuple(labels.items())) if labels else name
        with self._lock:
            # Counter is typed for ints; sums of money are floats.
            self._values[series] += amount  # type: ignore[assignment]

    def count_turn(self, result: TurnResult, seconds: float) -> None:
        """What one turn adds: its outcome, its time, its cost and its tokens."""
        self.add("vespera_runs_total", outcome=result["outcome"])
        self.add("vespera_run_seconds_sum", seconds)
        self.add("vespera_run_seconds_count")
        self.add("vespera_cost_usd_total", result.get("cost_usd") or 0.0)
        for direction in ("input", "output"):
            count = result["usage"].get(f"{direction}_tokens")
            if isinstance(count, int):
                self.add("vespera_tokens_total", count, direction=direction)

    def snapshot(self) -> dict[str, float]:
        with self._lock:
            return {name: float(value) for name, value in self._values.items()}


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
