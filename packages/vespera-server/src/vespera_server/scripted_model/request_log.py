"""The server's record of what was asked and what was answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from vespera_server.scripted_model.request import ModelRequest


@dataclass(frozen=True)
class RequestRecord:
    """One answered (or broken off) request.

    `received_at` and `duration` are seconds, the first since the server's start. `answer` reads
    `200 end_turn`, `429 rate_limit_error`, `stall`, `200 cut`, or `client gone` when the client
    closed the stream first. `request` is None for anything but `/v1/messages`.
    """

    method: str
    path: str
    answer: str
    received_at: float
    duration: float
    script: str | None = None
    step: int | None = None
    request: ModelRequest | None = None


class RequestLog:
    """An append-only list that can be waited on."""

    def __init__(self) -> None:
        self._records: list[RequestRecord] = []
        self._changed = threading.Condition()

    def append(self, record: RequestRecord) -> None:
        """Adds a record and wakes every waiter."""
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()

    def snapshot(self) -> tuple[RequestRecord, ...]:
        """All records so far, in the order in which they ended."""
        with self._changed:
            return tuple(self._records)

    def wait_for(self, wanted: Callable[[RequestRecord], bool], timeout: float) -> RequestRecord:
        """The first record for which `wanted` holds; raises TimeoutError after `timeout` s."""
        found: list[RequestRecord] = []

        def look() -> bool:
            found[:] = [record for record in self._records if wanted(record)][:1]
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(look, timeout):
                seen = [f"{r.method} {r.path}: {r.answer}" for r in self._records]
                raise TimeoutError(f"no such request within {timeout} s; seen: {seen}")
        return found[0]
