"""Responsible for what the Rust engine tells the log: its records go to Python's loggers.

The engine keeps records only while somebody listens. Whether anybody does is looked up when an
agent starts; then one thread waits for records in the engine, without the interpreter's lock.
"""

from __future__ import annotations

import logging
import threading

from vespera_agent_spawner import _native
from vespera_agent_spawner._logging import logger_for

__all__ = ["Diagnostics"]

_OFF = 255
_PARTS = ("agent", "guardian", "reactor")


class Diagnostics:
    """The way from the engine to the loggers ``vespera.agent_spawner.*``."""

    def __init__(self) -> None:
        self._loggers = [logging.getLogger(f"vespera.agent_spawner.{part}") for part in _PARTS]
        self._level = _OFF
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Tell the engine which levels are wanted now; start the thread at the first."""
        level = _OFF if self._are_silent() else min(map(_wanted, self._loggers))
        if level == self._level:
            return
        with self._lock:
            if level != _OFF and self._thread is None:
                self._thread = threading.Thread(
                    target=_pass_on, name="vespera-diagnostics", daemon=True
                )
                try:
                    self._thread.start()
                except RuntimeError:
                    # No thread is left, or the interpreter exits: nothing is told.
                    self._thread = None
                    return
            self._level = level
            _native.want_diagnostics(level)

    def _are_silent(self) -> bool:
        """Whether nobody listens, as in most programs: every start asks, so without a detour."""
        for logger in self._loggers:
            if logger.handlers or not logger.propagate:
                return False
        at = self._loggers[0].parent
        while at is not None:
            for handler in at.handlers:
                if type(handler) is not logging.NullHandler:
                    return False
            at = at.parent if at.propagate else None
        return True

    def close(self) -> None:
        """End the thread, for the interpreter's exit: it may not come back after that."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._level = _OFF
        while thread is not None and thread.is_alive():
            _native.close_diagnostics()
            thread.join(0.1)

    def forget_in_fork(self) -> None:
        """In a forked child the thread is the parent's."""
        self._lock = threading.Lock()
        self._thread = None
        self._level = _OFF
        _native.want_diagnostics(_OFF)


def _wanted(logger: logging.Logger) -> int:
    """The lowest level that any handler shows; ``_OFF`` when nobody listens."""
    lowest = _OFF
    at: logging.Logger | None = logger
    while at is not None:
        for handler in at.handlers:
            if not isinstance(handler, logging.NullHandler):
                lowest = min(lowest, handler.level)
        at = at.parent if at.propagate else None
    if lowest == _OFF:
        return _OFF
    return min(max(lowest, logger.getEffectiveLevel(), logger.manager.disable + 1), _OFF)


def _pass_on() -> None:
    while records := _native.wait_for_diagnostics():
        for level, part, agent_id, words in records:
            logger_for(f"agent_spawner.{part}", agent_id or None).log(level, "%s", words)
