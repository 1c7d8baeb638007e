"""Responsible for what agents of one list have in common: looked up for one, known for all.

Every look at the file system gives the interpreter away. Beside a thread that computes, getting
it back takes the 5 ms of a thread switch, several times the start of an agent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from typing import TypeAlias, TypeVar

__all__ = ["SHORTLY", "Found", "Lookups"]

T = TypeVar("T")

# What was there so many seconds ago is looked up again (what is made of it may be as old again); if
# it is gone earlier, the start fails and says so.
_FRESH = 1.0

# As long for agents that are started one by one, whose owners may have looked in between.
SHORTLY = 0.05

# What was found, and until when it may be used (``time.monotonic``).
Found: TypeAlias = dict[Hashable, tuple[float, object]]

# A list in which nobody is like another one keeps no more than so many.
_MOST = 64


class Lookups:
    """Where the host was when the list was given, and what was found for it a moment ago.

    ``found``: what others have found, who kept it for ``fresh`` seconds.
    """

    def __init__(self, found: Found | None = None, fresh: float = _FRESH) -> None:
        #: Of the loop, in which only its own callbacks run and nothing of the host changes; 0: any.
        self.moment = 0
        self._here: str | None = None
        self._found: Found = {} if found is None else found
        self._fresh = fresh

    @property
    def here(self) -> str:
        """The host's working directory, asked for once: a list's relative paths mean one place."""
        if self._here is None:
            self._here = os.getcwd()  # noqa: PTH109 - a fraction of the time, and the same text
        return self._here

    def found(self, key: Hashable, look: Callable[[], T]) -> T:
        """What ``look`` finds, or found a moment ago; a failure is not kept."""
        known = self.known(key)
        if known is None:
            known = look()
            self.keep(key, known)
        return known  # type: ignore[return-value]

    def known(self, key: Hashable) -> object:
        """What was kept a moment ago; None without that."""
        known = self._found.get(key)
        return known[1] if known is not None and time.monotonic() < known[0] else None

    def keep(self, key: Hashable, found: object) -> None:
        """For the next moments."""
        if len(self._found) >= _MOST:
            self._found.clear()
        self._found[key] = (time.monotonic() + self._fresh, found)
