"""Responsible for the process's counters, named as Prometheus would print them.

There is no label per agent: the number of series stays bounded however many agents ran.
"""

from __future__ import annotations

import threading
from collections import Counter

__all__ = ["Counters"]


class Counters:
    """Counters that any thread may raise."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: Counter[str] = Counter()

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        text = ",".join(f'{key}="{labels[key]}"' for key in sorted(labels))
        series = f"{name}{{{text}}}" if text else name
        with self._lock:
            # Counter is typed for ints; sums of money are floats.
            self._values[series] += amount  # type: ignore[assignment]

    def snapshot(self) -> dict[str, float]:
        with self._lock:
            return {name: float(value) for name, value in self._values.items()}
