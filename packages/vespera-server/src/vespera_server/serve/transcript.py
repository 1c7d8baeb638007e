"""Responsible for a transcript without secrets, in the form that ``replay`` reads.

The engine's own transcripts keep every byte as it was; a server's are read by others, so it
writes its own. Writing happens on a thread, one line after the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.events import Event
from vespera_agent_spawner.transcripts import opened
from vespera_server.redaction import Redactor

__all__ = ["Transcript"]

_log = logger_for("server.transcript")


class Transcript:
    """What one agent says and is told, appended to a 0600 file in a 0700 directory.

    A failure to write is logged once; the agent goes on.
    """

    def __init__(self, path: Path, redactor: Redactor, agent_id: str, session_id: str) -> None:
        self._path = path
        self._redactor = redactor
        # One thread: the lines stay in order.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="transcript")
        self._failed = False
        head = {
            "vespera_transcript": 1,
            "agent_id": agent_id,
            "session_id": session_id,
            "adapter": "claude",
            "started_at": time.time(),
        }
        self._write(b"# " + json.dumps(head).encode(), None)

    def said(self, event: Event) -> None:
        """Append a line of the agent."""
        mark = f"! {event.received_at:.6f} {event.length} "
        if event.kind != "oversize":
            mark = f"< {event.received_at:.6f} "
        self._write(mark.encode(), event.raw.rstrip(b"\n"))

    def told(self, prompt: str) -> None:
        """Append a prompt."""
        message = {"role": "user", "content": prompt}
        line = json.dumps({"type": "user", "message": message}, ensure_ascii=False)
        self._write(f"> {time.time():.6f} ".encode(), line.encode("utf-8", "replace"))

    async def close(self) -> None:
        """Wait until everything is written."""
        await asyncio.to_thread(self._writer.shutdown)

    def _write(self, mark: bytes, line: bytes | None) -> None:
        self._writer.submit(self._append, mark, line)

    def _append(self, mark: bytes, line: bytes | None) -> None:
        record = mark + (b"" if line is None else self._redactor.line(line)) + b"\n"
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(opened(str(self._path)), "ab") as file:
                file.write(record)
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning("transcript %s is not whole: %s", self._path, error)
