"""Responsible for a CLI that another library of the host speaks with, such as the official SDK.

Its lines pass through both ways as they are. The engine owns the process tree and the limits, reads
what the frames tell of cost and outcome, and answers none of them; the input is open until
``Agent.end_input()``.
"""

from __future__ import annotations

import re

from vespera_agent_spawner.adapters.adapter import Adapter
from vespera_agent_spawner.adapters.claude import CLAUDE
from vespera_agent_spawner.adapters.raw import OF_A_CLI, raw_argv

__all__ = ["RELAY", "waits_to_be_told"]

# What names one conversation, or does something at once: each such process is somebody's own.
_OWN = (
    *("--resume", "--continue", "--session", "--fork-session", "--from-pr", "--teleport"),
    *("--cloud", "--remote", "--bg", "--background", "--worktree", "--tmux", "--init"),
    *("--maintenance", "--file"),
)
# Theirs of one letter, alone or with others.
_OWN_LETTERS = re.compile(r"-[A-Za-z]*[crw][A-Za-z]*")

RELAY = Adapter(
    name="relay",
    argv=raw_argv,
    initialize=lambda _: None,
    runs_to_exit=False,
    program=None,
    memory_reserve=CLAUDE.memory_reserve,
    host_death_grace=CLAUDE.host_death_grace,
    # A prompt is the other library's to send, and its turns are nobody's to count.
    unknown=("prompt", "budget", *OF_A_CLI),
    relayed=True,
)


def waits_to_be_told(args: tuple[str, ...]) -> bool:
    """Whether what is started so does nothing, for nobody in particular, before its first line of
    input."""
    takes_frames = "--input-format=stream-json" in args or any(
        args[at : at + 2] == ("--input-format", "stream-json") for at in range(len(args))
    )
    return takes_frames and not any(
        word.startswith(_OWN) or _OWN_LETTERS.fullmatch(word) for word in args
    )
