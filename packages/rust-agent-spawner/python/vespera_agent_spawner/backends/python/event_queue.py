"""Responsible for the events that nobody has taken yet: in order, bounded in memory.

Over the bound the overflow mode decides: ``spill`` writes on to an unlinked private file,
``drop_oldest`` forgets and counts, ``block`` tells the reader to stop.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from typing import IO, Any

from vespera_agent_spawner._counters import Counters
from vespera_agent_spawner.events import Event, PythonEvent

__all__ = ["IN_MEMORY", "EventQueue"]

IN_MEMORY = 4 * 1024 * 1024

# A decoded frame is several times as large as its line: events keep theirs only while few wait.
_DECODED = 256 * 1024

# kind, place and length in the file, length of the line, time of arrival
_OnDisk = tuple[str, int, int, int, float]


class EventQueue:
    """Undelivered events, for one thread; ``limit`` bounds the bytes on disk."""

    def __init__(self, overflow: str, limit: int, counters: Counters) -> None:
        self._counters = counters
        self._overflow = overflow
        self._limit = limit
        self._entries: deque[PythonEvent | _OnDisk] = deque()
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._written = 0
        self.dropped = 0
        self.spilled = 0
        self.listening = False

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """The reader must stop."""
        return self._in_memory >= IN_MEMORY and self._overflow == "block"

    def put(self, kind: str, raw: bytes, length: int, frame: dict[str, Any] | None) -> bool:
        """Keep an event; False when there is more than ``limit`` on disk, or the disk is full."""
        if not self.listening:
            return True
        size = len(raw)
        if self._in_memory + size > IN_MEMORY:
            if self._overflow == "spill":
                return self._spill(kind, raw, length)
            if self._overflow == "drop_oldest":
                self._forget(size)
        self._in_memory += size
        if self._in_memory > _DECODED:
            frame = None
        self._entries.append(PythonEvent(kind, raw, time.time(), length, frame))
        return True

    def _spill(self, kind: str, raw: bytes, length: int) -> bool:
        if self._written + len(raw) > self._limit:
            return False
        try:
            if self._file is None:
                # Open as long as anything waits in it; closing it is what removes it.
                self._file = tempfile.TemporaryFile(  # noqa: SIM115
                    prefix="vespera-spill-", buffering=0
                )
            self._file.seek(self._written)
            self._file.write(raw)
        except OSError:
            return False
        self._entries.append((kind, self._written, len(raw), length, time.time()))
        self._written += len(raw)
        self.spilled += len(raw)
        self._counters.add("vespera_spilled_bytes_total", len(raw))
        return True

    def _forget(self, wanted: int) -> None:
        while self._entries and self._in_memory + wanted > IN_MEMORY:
            entry = self._entries.popleft()
            self._in_memory -= len(entry.raw) if isinstance(entry, PythonEvent) else 0
            self.dropped += 1
            self._counters.add("vespera_dropped_events_total")

    def take(self, limit: int) -> list[Event]:
        """Up to ``limit`` events, oldest first."""
        events: list[Event] = []
        entries = self._entries
        for _ in range(min(limit, len(entries))):
            entry = entries.popleft()
            if isinstance(entry, PythonEvent):
                self._in_memory -= len(entry.raw)
                events.append(entry)
            else:
                kind, place, size, length, received_at = entry
                assert self._file is not None
                self._file.seek(place)
                events.append(PythonEvent(kind, self._file.read(size), received_at, length))
        if not entries:
            self._close_file()
        if events:
            now = time.time()
            lag = sum(max(0.0, now - event.received_at) for event in events)
            self._counters.add("vespera_event_lag_seconds_count", len(events))
            self._counters.add("vespera_event_lag_seconds_sum", lag)
        return events

    def listen(self, listening: bool) -> None:
        """Begin or end to keep events; those that wait are forgotten at the end."""
        self.listening = listening
        if not listening:
            self._entries.clear()
            self._in_memory = 0
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._written = 0
