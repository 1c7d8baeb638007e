"""Responsible for being process 1 of a container: hand signals on, reap what nobody waits for.

The kernel gives every orphan of a pid namespace to process 1 and drops signals that it has no
handler for. The work is done by a child; process 1 does only this, and leaves as the child did.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

__all__ = ["as_init"]

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def as_init() -> None:
    """In process 1: does not return, the work goes on in a child. Elsewhere: does nothing.

    Call it before there are threads.
    """
    if os.name != "posix" or os.getpid() != 1:
        return
    # Until the child's number is known a signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child == 0:
        # Its own group, in the foreground: one Ctrl-C of the terminal is then one signal.
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            if os.isatty(0):
                os.tcsetpgrp(0, os.getpid())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        return

    def forward(number: int, frame: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            # When process 1 leaves the kernel kills whatever else is in the namespace.
            os._exit(code if code >= 0 else 128 - code)
