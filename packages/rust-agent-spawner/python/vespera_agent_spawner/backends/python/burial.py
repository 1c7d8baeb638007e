"""Responsible for ending agents whose event loop runs no more: it was closed, or the host exits.

It needs neither a loop nor a thread, which nobody can start any more by then: it looks and waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vespera_agent_spawner.backends.python.roll import Roll

if TYPE_CHECKING:
    from vespera_agent_spawner.backends.python.conversation import Conversation

__all__ = ["bury"]

_PAUSE = 0.005
_DEADLINE = 2.0  # for the dead to be seen dead, and for the sweep


def bury(talks: Iterable[Conversation], grace: float) -> None:
    """End of input, SIGTERM after half of ``grace`` seconds, force after all of it; then the sweep.

    Blocks, at most ``grace`` and a few seconds.
    """
    all_of_them = [talk for talk in talks if not talk.state.is_over]
    for talk in all_of_them:
        talk.buried = True
    left = all_of_them
    if grace > 0:
        left = _descend(left, lambda talk: talk.close_input(), grace / 2)
        left = _descend(left, lambda talk: talk.terminate(), grace / 2)
    _descend(left, lambda talk: talk.force(), _DEADLINE)
    roll = Roll()
    for talk in all_of_them:
        talk.note_exit()
        talk.conclude(_swept(talk, roll))


def _descend(
    talks: list[Conversation], step: Callable[[Conversation], None], wait: float
) -> list[Conversation]:
    """Take a step with each; returns who has not exited within ``wait`` seconds."""
    for talk in talks:
        step(talk)
    end = time.monotonic() + wait
    while left := [talk for talk in talks if not talk.has_exited()]:
        if time.monotonic() >= end:
            break
        time.sleep(_PAUSE)
    return left


def _swept(talk: Conversation, roll: Roll) -> list[int]:
    end = time.monotonic() + _DEADLINE
    while True:
        roll.look()
        survivors = talk.sweeper.kill(roll)
        if not survivors or time.monotonic() >= end:
            return survivors
        time.sleep(_PAUSE)
