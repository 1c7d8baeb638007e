"""Responsible for CLIs that are started before anybody needs them.

A Claude CLI takes a second of CPU time until it takes a prompt. While runs wait for a place, the
next ones' processes are started and initialised with their own configuration; while nobody waits,
processes like those used last are kept. What reaches a process before its first prompt is its key,
and a spare one serves only who has the same. One that another library will speak with has been told
nothing: it has booted, and waits for that library's first words.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import json
import stat
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._ids import random_uuid
from vespera_agent_spawner._kernel_files import text
from vespera_agent_spawner._tracing import trace_context
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.adapters.environment import host_number
from vespera_agent_spawner.adapters.relay import waits_to_be_told
from vespera_agent_spawner.backends._protocol import LiveSession, Ownership
from vespera_agent_spawner.errors import AgentError
from vespera_agent_spawner.readying import Readying
from vespera_agent_spawner.results import State

if TYPE_CHECKING:
    from vespera_agent_spawner.admission import Admission
    from vespera_agent_spawner.backends import Backend
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["Pool", "in_place", "key_of"]

# Read by nobody but the owner of a process that runs already.
_OWNERS = frozenset({"agent_id", "prompt", "priority", "retry"})
# A process of one's own from its start: an id or a file of the caller's, functions of his.
_COLD = ("session_id", "resume", "fork_session", "transcript", "hooks", "tools", "workspace")

# Seconds: settings, credentials and memory files are read when a CLI starts.
_MAX_AGE = 300.0
_LOOK_EVERY = 15.0
_BROKEN_FOR = 60.0
# As long as a CLI computes until it reads its first line: one that is told nothing does not say.
_BOOT = 1.0
# What it says of its start all the same, and asks of whoever will speak with it (its servers).
_BEFORE_ALL = frozenset({"system", "control_request"})
# The boot of the next one would take processors from the first turn of the one that was just handed
# out, for which its owner waits. After so many seconds that turn is with the model; with one claim
# after the other nobody is started later than the second number says.
_REST = 0.5
_LONGEST_REST = 2.0
# The pause between two looks that find no room.
_NO_ROOM = 0.25


def key_of(config: AgentConfig, *, counting: bool) -> str | None:
    """Everything that reaches the process before its first prompt; None: it always starts cold."""
    adapter = adapter_named(config.adapter)
    if adapter.runs_to_exit or any(getattr(config, name) for name in _COLD):
        return None
    if adapter.relayed and not waits_to_be_told(config.args):
        return None
    # A trace goes on in the processes that were started for it.
    if "TRACEPARENT" in config.environment or trace_context(config.environment):
        return None
    return _key_now(config, counting=counting)


def _key_now(config: AgentConfig, *, counting: bool) -> str:
    told = {name: value for name, value in config._given().items() if name not in _OWNERS}
    told["on_permission"] = config.on_permission is not None
    host = [host_number(), *_rights(), _directory(config.working_directory)]
    return json.dumps([told, host, _files(config), counting], sort_keys=True, default=str)


def in_place(config: AgentConfig, here: str) -> AgentConfig:
    """The configuration with its directory as it is now: relative ones change with the host's."""
    chosen = config.working_directory or ""
    if chosen.startswith(("/", "~")):
        return config
    return config._having({"working_directory": str(Path(here, chosen))})


def _directory(path: str | None) -> tuple[int, int] | None:
    """Which one it is: a process stays in its own when another one takes the name."""
    try:
        found = Path(path or "").expanduser().stat()
    except (OSError, RuntimeError):
        return None
    return found.st_dev, found.st_ino


def _files(config: AgentConfig) -> list[tuple[int, ...]]:
    """Which files the command line names, and as of when: a CLI reads them once, at its start.

    A directory is read later, and changes with all that is done in it.
    """
    found: list[tuple[int, ...]] = []
    for word in (config.program or "", *map(str, config.args)):
        path = word.partition("=")[2] if word.startswith("--") else word
        if not path or path.startswith(("-", "{", "[")):
            continue
        # What is no path fails as fast as one that leads nowhere.
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            seen = Path(config.working_directory or "").expanduser().joinpath(path).stat()
            state = (seen.st_dev, seen.st_ino)
            found.append(state if stat.S_ISDIR(seen.st_mode) else (*state, seen.st_mtime_ns))
    return found


def _rights() -> list[str]:
    """What a process gets of the host at its birth, besides its environment."""
    kept = ("Umask:", "Uid:", "Gid:", "Groups:")
    return [line for line in text("/proc/thread-self/status").splitlines() if line.startswith(kept)]


@dataclass(eq=False)
class _Spare:
    key: str
    reserve: int
    session: LiveSession
    #: It is told nothing, so that only time tells how far it is.
    boots: bool
    relayed: bool
    since: float = field(default_factory=time.monotonic)
    ready: bool = False
    #: What it does until somebody needs it, once it is ready.
    readying: Readying | None = None


class Pool:
    """The spare processes of one supervisor. Runs on its loop."""

    def __init__(
        self,
        size: int,
        places: Admission,
        backend: Backend,
        ownership: Ownership,
    ) -> None:
        self._size = size
        self._places = places
        self._backend = backend
        self._ownership = ownership
        self._loop = asyncio.get_running_loop()
        self._spares: list[_Spare] = []
        self._configs: dict[str, tuple[AgentConfig, int, bool]] = {}
        self._recent: deque[str] = deque(maxlen=size)
        self._broken: dict[str, float] = {}
        self._ending: set[LiveSession] = set()
        self._gone = asyncio.Event()
        self._soon = False
        self._timer: asyncio.TimerHandle | None = None
        #: Since when, and until when, nothing is started because of a claim.
        self._rest = (0.0, 0.0)
        self._closed = False
        #: The configurations of those who wait for a place, in their order, each with its memory
        #: reserve and whether its messages are counted.
        self.next_ones: Callable[[int], list[tuple[AgentConfig, int, bool]]] = lambda count: []

    def __len__(self) -> int:
        """Processes that are ready or will be."""
        return len(self._spares)

    def take(self, config: AgentConfig, reserve: int, *, counting: bool) -> LiveSession | None:
        """A process for this configuration, the readiest; None: start one."""
        key = key_of(config, counting=counting)
        if key is None or self._closed:
            return None
        self._recent.append(key)
        self._configs[key] = (config, reserve, counting)
        self.look_soon()
        fitting = [spare for spare in self._spares if spare.key == key and _is_good(spare)]
        if not fitting:
            return None
        chosen = max(fitting, key=_readiness)
        self._forget(chosen)
        now = time.monotonic()
        since = self._rest[0] if now < self._rest[1] else now
        self._rest = (since, min(now + _REST, since + _LONGEST_REST))
        return chosen.session

    def look_soon(self) -> None:
        """Something changed: see what is wanted now, once the loop is done with it."""
        if not self._soon and not self._closed:
            self._soon = True
            self._loop.call_soon(self._look)

    async def close(self) -> None:
        """End all; nobody owns them and nothing is lost."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for spare in list(self._spares):
            self._end(spare)
        while self._ending:
            self._gone.clear()
            await self._gone.wait()

    # -- inside ----------------------------------------------------------------------------

    def _look(self) -> None:
        self._soon = False
        if self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        wanted = self._wanted()
        kept: Counter[str] = Counter()
        for spare in list(self._spares):
            if spare not in self._spares:
                continue  # claimed, or ended, because of the one before
            old = time.monotonic() - spare.since > _MAX_AGE
            if old or kept[spare.key] >= wanted[spare.key]:
                self._end(spare)
            else:
                kept[spare.key] += 1
        pause = _LOOK_EVERY
        rest = self._rest[1] - time.monotonic()
        for key in wanted - kept:
            if rest > 0:
                pause = rest
                break
            for _ in range(wanted[key] - kept[key]):
                config, reserve, counting = self._configs[key]
                if not self._places.may_prepare(reserve):
                    pause = _NO_ROOM
                    break
                self._start(key, config, reserve, counting)
        self._configs = {key: one for key, one in self._configs.items() if key in wanted}
        if self._spares or pause < _LOOK_EVERY:
            self._timer = self._loop.call_later(pause, self.look_soon)

    def _wanted(self) -> Counter[str]:
        """Those that will be needed next, then those that were used last."""
        wanted: Counter[str] = Counter()
        for config, reserve, counting in self.next_ones(self._size):
            key = key_of(config, counting=counting)
            if key is not None:
                self._configs[key] = (config, reserve, counting)
                wanted[key] += 1
        room = self._size - wanted.total()
        if room > 0:
            for key in itertools.islice(itertools.cycle(self._recent_ones()), room):
                wanted[key] += 1
        now = time.monotonic()
        self._broken = {key: until for key, until in self._broken.items() if until > now}
        for key in self._broken:
            wanted.pop(key, None)
        return wanted

    def _recent_ones(self) -> list[str]:
        """Those that were used last, newest first, which somebody may still ask for."""
        # The host or the directory may have changed since: then the same configuration has another
        # key, and what is started now is no longer what this one names.
        current = {
            key
            for key in set(self._recent)
            if (known := self._configs.get(key)) is not None
            and _key_now(known[0], counting=known[2]) == key
        }
        return [key for key in reversed(self._recent) if key in current]

    def _start(self, key: str, config: AgentConfig, reserve: int, counting: bool) -> None:
        unnamed = config._having({"agent_id": f"spare-{random_uuid()[:8]}", "prompt": None})
        holder: list[_Spare] = []
        relayed = adapter_named(config.adapter).relayed
        try:
            # In nobody's context: whoever claims it has his own.
            session = contextvars.Context().run(
                self._backend.start,
                unnamed,
                _news_of(self, holder),
                # What it says of its own start is for whoever will speak with it.
                listening=relayed,
                ownership=self._ownership,
                counting=counting,
                spare=True,
            )
        except (AgentError, OSError):
            # Whoever needs it is told why; here nobody does yet.
            self._broken[key] = time.monotonic() + _BROKEN_FOR
            return
        spare = _Spare(key, reserve, session, boots=relayed, relayed=relayed)
        holder.append(spare)
        self._spares.append(spare)
        self._places.prepare(reserve)
        if relayed:
            self._loop.call_later(_BOOT, self._booted, spare)
        self._news(spare)

    def _booted(self, spare: _Spare) -> None:
        spare.boots = False
        # Of one that was claimed only its owner hears.
        if spare in self._spares:
            self._news(spare)

    def _news(self, spare: _Spare) -> None:
        spare.session.heard()
        over = _is_over(spare)
        if spare.session in self._ending:
            if over:
                self._ending.discard(spare.session)
                self._gone.set()
            return
        if spare not in self._spares:
            return
        if over or not _is_silent(spare):
            self._broken[spare.key] = time.monotonic() + _BROKEN_FOR
            self._end(spare)
        elif not (spare.ready or spare.boots or spare.session.state is State.STARTING):
            spare.ready = True
            self._places.prepared(spare.reserve)
            self.look_soon()
            if not spare.relayed:
                spare.readying = Readying(spare.session)
        elif spare.readying is not None:
            spare.readying.hear()

    def _forget(self, spare: _Spare) -> None:
        self._spares.remove(spare)
        if not spare.ready:
            self._places.prepared(spare.reserve)

    def _end(self, spare: _Spare) -> None:
        self._forget(spare)
        # Nobody takes what it has said.
        spare.session.listen(False)
        if not _is_over(spare):
            self._ending.add(spare.session)
            with contextlib.suppress(AgentError):
                spare.session.kill()

    def __del__(self) -> None:
        for spare in self._spares:
            with contextlib.suppress(Exception):
                spare.session.kill()


def _is_over(spare: _Spare) -> bool:
    return spare.session.state.is_over


def _readiness(spare: _Spare) -> tuple[bool, bool, float]:
    done = spare.readying is not None and spare.readying.done
    return spare.ready, done, -spare.since


def _is_silent(spare: _Spare) -> bool:
    """Whether it has answered nothing, as nobody has said anything."""
    return spare.session.waiting_kinds() <= _BEFORE_ALL


def _is_good(spare: _Spare) -> bool:
    """Whether it is there, as the kernel has it, and waits: a busy loop has not heard yet."""
    if _is_over(spare) or not _is_silent(spare):
        return False
    pid = spare.session.pid
    if not pid or not Path("/proc/self/stat").exists():
        return True
    state = text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return bool(state) and state[0] not in "ZX"


def _news_of(pool: Pool, holder: list[Any]) -> Callable[[], bool]:
    """What the backend calls; it must not keep alive what its owner dropped."""
    weak = weakref.ref(pool)

    def news() -> bool:
        living = weak()
        if living is None:
            return False
        if holder:
            living._news(holder[0])
        return True

    return news
