"""Responsible for the events that nobody has taken yet: in order, bounded in memory.

The reactor's thread puts, the consumer's loop takes. Over the bound the overflow mode decides:
``spill`` writes on to an unlinked private file, ``drop_oldest`` forgets and counts, ``block``
tells the reader to stop.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections import deque
from typing import IO

from vespera_agent_spawner._counters import Counters
from vespera_agent_spawner.events import Event, PythonEvent

__all__ = ["IN_MEMORY", "EventQueue"]

IN_MEMORY = 4 * 1024 * 1024

# kind, the bytes or their place in the file, length of the line, time of arrival
_Entry = tuple[str, bytes | tuple[int, int], int, float]


class EventQueue:
    """Undelivered events; ``limit`` bounds the bytes on disk."""

    def __init__(self, overflow: str, limit: int, counters: Counters) -> None:
        self._counters = counters
        self._overflow = overflow
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: deque[_Entry] = deque()
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
        return self._overflow == "block" and self._in_memory >= IN_MEMORY

    def put(self, kind: str, raw: bytes, length: int) -> bool:
        """Keep an event; False when there is more than ``limit`` on disk, or the disk is full."""
        entry = (kind, raw, length, time.time())
        with self._lock:
            if not self.listening:
                return True
            over = self._in_memory + len(raw) > IN_MEMORY
            if over and self._overflow == "spill":
                return self._spill(entry, raw)
            if over and self._overflow == "drop_oldest":
                self._forget(len(raw))
            self._in_memory += len(raw)
            self._entries.append(entry)
            return True

    def _spill(self, entry: _Entry, raw: bytes) -> bool:
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
        self._entries.append((entry[0], (self._written, len(raw)), entry[2], entry[3]))
        self._written += len(raw)
        self.spilled += len(raw)
        self._counters.add("vespera_spilled_bytes_total", len(raw))
        return True

    def _forget(self, wanted: int) -> None:
        while self._entries and self._in_memory + wanted > IN_MEMORY:
            _, raw, _, _ = self._entries.popleft()
            self._in_memory -= len(raw) if isinstance(raw, bytes) else 0
            self.dropped += 1
            self._counters.add("vespera_dropped_events_total")

    def take(self, limit: int) -> list[Event]:
        """Up to ``limit`` events, oldest first."""
        events: list[Event] = []
        with self._lock:
            while self._entries and len(events) < limit:
                kind, raw, length, received_at = self._entries.popleft()
                if isinstance(raw, bytes):
                    self._in_memory -= len(raw)
                else:
                    assert self._file is not None
                    self._file.seek(raw[0])
                    raw = self._file.read(raw[1])
                events.append(PythonEvent(kind, raw, received_at, length))
            if not self._entries:
                self._close_file()
        if events:
            now = time.time()
            lag = sum(max(0.0, now - event.received_at) for event in events)
            self._counters.add("vespera_event_lag_seconds_count", len(events))
            self._counters.add("vespera_event_lag_seconds_sum", lag)
        return events

    def listen(self, listening: bool) -> None:
        """Begin or end to keep events; those that wait are forgotten at the end."""
        with self._lock:
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
