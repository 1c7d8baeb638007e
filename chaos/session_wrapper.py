#!/usr/bin/env python3
"""Responsible for proof that a session has one process: locks it, then becomes the CLI.

The lock lives as long as the CLI does, since the CLI inherits its descriptor. A second CLI on the
same session finds it locked: that is written down as ``doubled`` and is what must never be.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


def note(word: str, session: str) -> None:
    """One line, in one write: many of these run at once."""
    log = os.open(os.environ["LAUNCH_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(log, f"{word} {session}\n".encode())
    os.close(log)


def main() -> None:
    word, session = "other", ""
    for argument in sys.argv:
        flag, _, value = argument.partition("=")
        if flag in ("--session-id", "--resume"):
            word, session = ("fresh" if flag == "--session-id" else "resume"), value
    lock = os.open(Path(os.environ["LOCKS"]) / (session or "none"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("doubled", session)
    note(word, session)
    os.set_inheritable(lock, True)
    program = os.environ["REAL_CLI"]
    os.execv(program, [program, *sys.argv[1:]])


main()
