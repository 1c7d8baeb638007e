"""Responsible for what an adapter is: everything that differs from one program to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Adapter"]

Argv = Callable[[Mapping[str, Any], str, str, Mapping[str, str] | None], list[str]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """One kind of program.

    ``argv`` makes the argv from a configuration, the program, the session id and the private
    files of ``file_flags``' fields. ``initialize`` is the request that is answered before the
    agent is ready; None: it is ready once it runs. ``runs_to_exit``: its exit is the end of its
    work, there are no turns. ``program`` is what is started when the configuration names none.
    ``relayed``: another library of the host speaks with it, and nothing is answered here.
    ``memory_reserve`` (bytes) and ``host_death_grace`` (seconds) are what None means for it;
    ``unknown`` are the fields of a configuration that mean nothing to it.
    """

    name: str
    argv: Argv
    initialize: Callable[[Mapping[str, Any]], dict[str, Any] | None]
    runs_to_exit: bool
    program: str | None
    memory_reserve: int
    host_death_grace: float
    file_flags: Mapping[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    relayed: bool = False
