"""Responsible for asv's series of whole sessions: spawn and exit, one turn, both backends."""

from __future__ import annotations

from pathlib import Path

from . import work
from .programs import compiled


class Sessions:
    """Seconds for 32 sessions, 16 at a time, against a CLI that answers at once."""

    params = (list(work.IMPLS), [0, 1])
    param_names = ("impl", "turns")
    number = 1
    timeout = 120.0
    program: Path

    def setup(self, impl: work.Impl, turns: int) -> None:
        """Compile the instant CLI; one session loads what is loaded once."""
        self.program = compiled("instant_cli")
        work.session(self.program, impl, turns)

    def time_sessions(self, impl: work.Impl, turns: int) -> None:
        """32 sessions."""
        work.sessions(self.program, impl, 32, turns)

    time_sessions.version = "1"  # type: ignore[attr-defined]
