"""Responsible for what an agent said, as callers read it later: short entries with cursors.

The newest entries are kept; whoever asks from a cursor that has gone by is told how many are
missing. Text is redacted and cut before it is stored.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from pydantic import BaseModel, Field

from vespera_agent_spawner.events import Event
from vespera_server.redaction import Redactor

__all__ = ["Entry", "EventLog"]

_KEPT = 1000
_LONGEST = 4000


class Entry(BaseModel):
    """One thing that happened to an agent."""

    cursor: int = Field(description="Where this entry ends; ask from here for what follows.")
    at: float = Field(description="Unix seconds.")
    kind: str = Field(description="assistant, user, result, system, … or 'server' for our own.")
    subtype: str | None = None
    text: str | None = Field(default=None, description="At most 4,000 characters of it.")
    tool_name: str | None = None
    is_error: bool = False


class EventLog:
    """The last entries of one agent. Runs on one event loop."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._entries: deque[Entry] = deque(maxlen=_KEPT)
        self._cursor = 0
        self._bell = asyncio.Event()

    @property
    def cursor(self) -> int:
        """Where the next entry begins."""
        return self._cursor

    @property
    def last(self) -> Entry | None:
        return self._entries[-1] if self._entries else None

    def add(self, event: Event) -> None:
        """Keep an agent's event, if it says something.

        Of streamed parts only the whole message is kept, and nothing of frames that say neither
        words nor what happened: whoever reads this pays for every line.
        """
        said = event.text or event.tool_name or event.subtype or event.is_error
        if said and event.kind != "stream_event":
            self._append(
                event.received_at,
                event.kind,
                subtype=event.subtype,
                text=event.text,
                tool_name=event.tool_name,
                is_error=event.is_error,
            )

    def redact(self, text: str) -> str:
        """The text as it may leave."""
        return self._redactor.text(text)

    def note(self, text: str, *, is_error: bool = False) -> None:
        """Keep something that the server has to say."""
        self._append(time.time(), "server", text=text, is_error=is_error)

    def since(self, cursor: int, limit: int) -> tuple[list[Entry], int]:
        """At most ``limit`` entries after ``cursor``, and how many before them are gone."""
        first = self._cursor - len(self._entries)
        start = max(cursor, first)
        found = [self._entries[i - first] for i in range(start, min(start + limit, self._cursor))]
        return found, max(0, first - cursor)

    async def wait(self, cursor: int) -> None:
        """Until there is something after ``cursor``."""
        while self._cursor <= cursor:
            await self._bell.wait()

    def _append(
        self,
        at: float,
        kind: str,
        *,
        subtype: str | None = None,
        text: str | None = None,
        tool_name: str | None = None,
        is_error: bool = False,
    ) -> None:
        self._cursor += 1
        if text is not None:
            # Cut with room first: redaction of megabytes would hold up the loop.
            text = self._redactor.text(text[: 4 * _LONGEST])
            if len(text) > _LONGEST:
                text = text[:_LONGEST] + "…"
        self._entries.append(
            Entry(
                cursor=self._cursor,
                at=at,
                kind=kind,
                subtype=subtype,
                text=text,
                tool_name=tool_name,
                is_error=is_error,
            )
        )
        self._bell.set()
        self._bell = asyncio.Event()
