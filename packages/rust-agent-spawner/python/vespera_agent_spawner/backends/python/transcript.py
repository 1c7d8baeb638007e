"""Responsible for an agent's transcript while it lives: lines of both sides, appended as read."""

from __future__ import annotations

import os
import time

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.backends.python.framing import Oversize
from vespera_agent_spawner.transcripts import opened

__all__ = ["Transcript"]


class Transcript:
    """An open transcript; ``lost`` says why it is not whole."""

    def __init__(self, path: str, agent_id: str) -> None:
        self._log = logger_for("agent_spawner.agent", agent_id)
        self._descriptor = opened(path)
        self.lost: str | None = None

    def agent(self, line: bytes | Oversize) -> None:
        """A line of the agent, without its newline."""
        if isinstance(line, Oversize):
            self._write(b"! %s %d %s\n" % (_now(), line.length, line.head))
        else:
            self._write(b"< %s %s\n" % (_now(), line))

    def host(self, lines: bytes) -> None:
        """What the host writes: one line or several."""
        now = _now()
        said = lines.removesuffix(b"\n").split(b"\n")
        self._write(b"".join(b"> %s %s\n" % (now, line) for line in said))

    def _write(self, record: bytes) -> None:
        if self._descriptor == -1:
            return
        try:
            while record:
                record = record[os.write(self._descriptor, record) :]
        except OSError as error:
            # The agent matters more than what is written about it.
            self.lost = error.strerror or str(error)
            self._log.warning("its transcript ends here: %s", self.lost)
            self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor != -1:
            os.close(descriptor)


def _now() -> bytes:
    return b"%.6f" % time.time()
