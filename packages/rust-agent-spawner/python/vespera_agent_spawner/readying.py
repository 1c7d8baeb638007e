"""Responsible for the work of a first prompt that a spare CLI can do before there is one.

A CLI makes its system prompt, its tools' schemas and its list of skills when something needs them:
a prompt, or a question how full its context is. Such a question costs an idle process less than
somebody who waits. With ``detail`` "summary" it is answered by estimates. Without, and by a CLI
that does not know the word, each part is counted by the service; so the version is asked first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vespera_agent_spawner.backends._protocol import LiveSession

__all__ = ["Readying"]

# The CLI whose "summary" was seen to ask the service for nothing.
_SINCE = (2, 1, 330)
_VERSION = {"subtype": "get_binary_version"}
_WORK = {"subtype": "get_context_usage", "detail": "summary"}


class Readying:
    """Begins when it is made.

    Whoever claims the session meanwhile gets answers to what he has not asked, which nobody reads,
    and a first turn as it would have been.
    """

    def __init__(self, session: LiveSession) -> None:
        self._session = session
        self._asked = session.request(_VERSION)
        self._works = False
        #: The CLI has nothing more to do.
        self.done = False

    def hear(self) -> None:
        """The CLI may have answered."""
        if not self._session.has_answers:
            return
        for request_id, frame in self._session.take_answers():
            if request_id != self._asked:
                continue
            if not self._works and _version(json.loads(frame)) >= _SINCE:
                self._works = True
                self._asked = self._session.request(_WORK)
            else:
                self.done = True


def _version(frame: Mapping[str, Any]) -> tuple[int, ...]:
    """Of an answer; empty where it tells none, as a CLI that does not know the question."""
    told = frame.get("response")
    for name in ("response", "version"):
        told = told.get(name) if isinstance(told, dict) else None
    numbers = told.split(".") if isinstance(told, str) else []
    if not all(number.isascii() and number.isdigit() and len(number) < 10 for number in numbers):
        return ()
    return tuple(map(int, numbers))
