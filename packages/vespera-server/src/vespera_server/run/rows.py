"""Responsible for what is shown of each task while a run is at work: what it does, since when."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from vespera_server.tasks import DurableExecutor, TaskNews, TaskQueue

__all__ = ["Board", "Row"]

_ENDED_SHOWN = 12


@dataclass
class Row:
    """One task of this process. ``start`` is how it began: started, resumed, restarted."""

    task_id: str
    start: str
    attempts: int
    model: str
    began: float = field(default_factory=time.monotonic)
    state: str = "waiting"
    outcome: str | None = None
    cost_usd: float | None = None
    duration: float | None = None
    error: str | None = None

    @property
    def seconds(self) -> float:
        """How long it took, or takes so far."""
        return time.monotonic() - self.began if self.duration is None else self.duration


class Board:
    """All tasks in work, the last ones that ended, and how many there are of each kind."""

    def __init__(self, queue: TaskQueue, *, scripted: bool) -> None:
        self.counts: Counter[str] = Counter(queue.counts())
        self.cost_usd = queue.cost_usd()
        self.working: dict[str, Row] = {}
        self.ended: list[Row] = []
        self.note = ""
        self._scripted = scripted
        self._queue = queue

    def hear(self, news: TaskNews) -> Row:
        """Take what the executor tells; returns the row that it is about."""
        task_id = news.claim.task_id
        row = self.working.get(task_id)
        if row is None:
            model = str(news.claim.config.get("model") or "default")
            model = "scripted" if self._scripted else model
            row = self.working[task_id] = Row(task_id, news.kind, news.claim.attempts, model)
        if news.kind in ("ended", "released", "lost"):
            row.outcome = news.outcome or news.kind
            row.error = news.error
            row.cost_usd = news.cost_usd
            row.duration = row.seconds
            self.cost_usd += news.cost_usd or 0.0
            self.working.pop(task_id, None)
            self.ended = [*self.ended[1 - _ENDED_SHOWN :], row]
        else:
            row.start, row.attempts = news.kind, news.claim.attempts
        return row

    def refresh(self, executor: DurableExecutor) -> None:
        """Look at what the agents do now and what other processes did to the queue."""
        for row in list(self.working.values()):
            row.state = executor.state_of(row.task_id)
        self.counts = Counter(self._queue.counts())

    def line(self) -> str:
        """The counts in words."""
        total = sum(self.counts.values())
        left = self.counts["pending"] + self.counts["running"]
        words = [f"{total - left} of {total} ended"]
        ended = sorted(set(self.counts) - {"pending", "running"})
        words += [f"{self.counts[name]} {name}" for name in ended]
        words += [f"{len(self.working)} at work", f"${self.cost_usd:.3f}"]
        return " · ".join(words)

    def to_json(self) -> dict[str, Any]:
        """The counts as data."""
        return dict(self.counts)
