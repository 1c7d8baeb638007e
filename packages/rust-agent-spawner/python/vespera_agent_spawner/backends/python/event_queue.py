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
from vespera_agent_spawner._units import format_size
from vespera_agent_spawner.events import Event, PythonEvent

__all__ = ["IN_MEMORY", "EventQueue"]

IN_MEMORY = 4 * 1024 * 1024

# A decoded frame is several times as large as its line: events keep theirs only while few wait.
_DECODED = 256 * 1024

# A file in which so much, and more than half, was read is written on in another: it gives nothing
# back before its end, and a reader that keeps up never comes to one.
_RENEWED = 16 * 1024 * 1024

# kind, place and length among all that was spilled, length of the line, time of arrival
_OnDisk = tuple[str, int, int, int, float]


class EventQueue:
    """Undelivered events, for one thread; ``limit`` bounds the bytes on disk."""

    def __init__(self, overflow: str, limit: int, counters: Counters) -> None:
        self._counters = counters
        self._overflow = overflow
        self._limit = limit
        self._entries: deque[PythonEvent | _OnDisk] = deque()
        self._in_memory = 0
        # With the place of its first byte; at most two: the older one is read to its end.
        self._files: deque[tuple[IO[bytes], int]] = deque()
        self._written = 0
        # Bytes that are spilled and not taken.
        self._waiting = 0
        self.dropped = 0
        self.spilled = 0
        self.listening = False

    def __len__(self) -> int:
        return len(self._entries)

    def kinds(self) -> set[str]:
        """Of which kinds those are that wait."""
        return {one.kind if isinstance(one, PythonEvent) else one[0] for one in self._entries}

    @property
    def is_full(self) -> bool:
        """The reader must stop."""
        return self._in_memory >= IN_MEMORY and self._overflow == "block"

    def put(self, kind: str, raw: bytes, length: int, frame: dict[str, Any] | None) -> str | None:
        """Keep an event. More than ``limit`` on disk, or a disk that takes no more, in words."""
        if not self.listening:
            return None
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
        return None

    def _spill(self, kind: str, raw: bytes, length: int) -> str | None:
        waiting = self._waiting + len(raw)
        if waiting > self._limit:
            most = format_size(self._limit)
            return f"limits.output: {format_size(waiting)} of undelivered events on disk, of {most}"
        try:
            if self._wants_file():
                self._add_file()
            file, begin = self._files[-1]
            file.seek(self._written - begin)
            file.write(raw)
        except OSError as error:
            return f"limits.output: the disk takes no more of its undelivered events: {error}"
        self._entries.append((kind, self._written, len(raw), length, time.time()))
        self._written += len(raw)
        self._waiting = waiting
        self.spilled += len(raw)
        self._counters.add("vespera_spilled_bytes_total", len(raw))
        return None

    def _wants_file(self) -> bool:
        if len(self._files) != 1:
            return not self._files
        read = self._written - self._files[0][1] - self._waiting
        return read >= max(_RENEWED, self._waiting)

    def _add_file(self) -> None:
        try:
            # Open as long as anything waits in it; closing it is what removes it.
            file = tempfile.TemporaryFile(prefix="vespera-spill-", buffering=0)  # noqa: SIM115
        except OSError:
            # An old one goes on growing.
            if not self._files:
                raise
        else:
            self._files.append((file, self._written))

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
                events.append(PythonEvent(kind, self._read(place, size), received_at, length))
        if not entries:
            self._close_files()
        if events:
            now = time.time()
            lag = sum(max(0.0, now - event.received_at) for event in events)
            self._counters.add("vespera_event_lag_seconds_count", len(events))
            self._counters.add("vespera_event_lag_seconds_sum", lag)
        return events

    def _read(self, place: int, size: int) -> bytes:
        if len(self._files) > 1 and place >= self._files[1][1]:
            self._files.popleft()[0].close()
        file, begin = self._files[0]
        file.seek(place - begin)
        self._waiting -= size
        return file.read(size)

    def listen(self, listening: bool) -> None:
        """Begin or end to keep events; those that wait are forgotten at the end."""
        self.listening = listening
        if not listening:
            self._entries.clear()
            self._in_memory = 0
            self._close_files()

    def _close_files(self) -> None:
        while self._files:
            self._files.popleft()[0].close()
        self._written = 0
        self._waiting = 0
