"""Responsible for telling ``register`` once a second which agents this process runs.

A thread does it, not a task: a host whose loop is stuck is the one that people look for. It writes
when something has changed, and seldom else, so that a quiet fleet costs a look a second. What is
told are names, numbers and places: no prompt, no answer and no environment.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import os
import threading
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner import register
from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._snapshot import snapshot
from vespera_agent_spawner.backends.python.proc import look_at
from vespera_agent_spawner.register import Host, Listed, Process

if TYPE_CHECKING:
    from vespera_agent_spawner.agent import Agent
    from vespera_agent_spawner.supervisor import Supervisor

__all__ = ["enter", "note_transcript"]

_EVERY = 1.0
_log = logger_for("agent_spawner.register")


def enter(supervisor: Supervisor) -> None:
    """List the supervisor's agents until it is closed, if its configuration asks for that.

    A register that cannot be written is a warning: the work is worth more than being seen.
    """
    if supervisor.config.register:
        _registrar.enter(supervisor)


def note_transcript(agent: Agent, path: str) -> None:
    """Say where somebody else than the engine keeps what the agent says."""
    _registrar.transcripts[agent] = path


class _Registrar:
    """What one process tells of itself."""

    def __init__(self) -> None:
        self.transcripts: weakref.WeakKeyDictionary[Agent, str] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._supervisors: dict[int, weakref.ref[Supervisor]] = {}
        self._processes: weakref.WeakKeyDictionary[Agent, _Tree] = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        self._where = Path()
        self._path: Path | None = None
        self._began = time.time()
        self._told: tuple[object, float] = (None, 0.0)
        self._warned = False

    def enter(self, supervisor: Supervisor) -> None:
        with self._lock:
            self._warned = False
            try:
                where = register.directory()
            except RuntimeError as error:
                self._warn(error)
                return
            if where != self._where:
                self._remove()
                self._where = where
            self._supervisors[next(self._numbers)] = weakref.ref(supervisor)
            self._tell()
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._go_on, name="vespera-register")
            self._thread.daemon = True
            try:
                self._thread.start()
            except RuntimeError as error:  # a subinterpreter has no daemons
                self._thread = None
                self._warn(error)

    def leave(self) -> None:
        """The process ends."""
        if self._lock.acquire(timeout=_EVERY):
            self._supervisors.clear()
            self._remove()
            self._lock.release()

    def _go_on(self) -> None:
        while True:
            time.sleep(_EVERY)
            with self._lock:
                if not self._tell():
                    self._remove()
                    self._thread = None
                    return

    def _tell(self) -> bool:
        """Write what there is to be told; False when nobody is left to be told of."""
        try:
            host = self._host()
            if host is None:
                return False
            now = time.monotonic()
            before, when = self._told
            if host.agents != before or now - when > register.BEAT or self._path is None:
                self._write(host)
                self._told = (host.agents, now)
        except RuntimeError:
            # Somebody came or went while we looked: in a second we look again.
            pass
        except Exception as error:
            # Also what nobody foresaw: it is a warning, and no end of being seen.
            self._warn(error)
        return True

    def _host(self) -> Host | None:
        agents: list[Listed] = []
        for number, reference in snapshot(self._supervisors.items):
            supervisor = reference()
            if supervisor is None or (supervisor._closed and not supervisor.agents()):
                del self._supervisors[number]
            else:
                agents += self._agents_of(supervisor, number)
        if not self._supervisors:
            return None
        me = look_at(os.getpid())
        return Host(
            pid=os.getpid(),
            start_time=0 if me is None else me.start_time,
            started_at=self._began,
            told_at=time.time(),
            version=_version(),
            working_directory=_here(),
            agents=tuple(agents),
        )

    def _agents_of(self, supervisor: Supervisor, number: int) -> list[Listed]:
        held = supervisor.agents()
        told = [self._listed(agent, number) for agent in held]
        # Who was dropped meanwhile ends where it belongs: on its loop's thread, not on this one.
        if held and supervisor._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                supervisor._loop.call_soon_threadsafe(held.clear)
        return told

    def _listed(self, agent: Agent, supervisor: int) -> Listed:
        config = agent.config
        told: dict[str, Any] = {
            "agent_id": agent.agent_id,
            "supervisor": supervisor,
            "model": config.model,
            "working_directory": config.working_directory,
            "transcript": self.transcripts.get(agent) or _absolute(config.transcript),
        }
        session = agent._session
        if session is None:
            return Listed(**told, state="queued", backend="", containment="", started_at=0.0)
        info = session.info()
        tree = self._processes.get(agent)
        if tree is None or tree.pid != info.pid:
            tree = _Tree(info.pid, getattr(session, "leash", 0))
            if tree.leader is not None:
                self._processes[agent] = tree
        return Listed(
            **told,
            state=str(info.state),
            session_id=info.session_id,
            backend=info.backend,
            containment=info.containment,
            started_at=info.started_at,
            leader=tree.leader,
            leash=tree.leash,
            turns=info.turns,
            cost_usd=info.cost_usd,
        )

    def _write(self, host: Host) -> None:
        # Each its own: the mode is that of the last directory alone.
        for place in (self._where.parent, self._where):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._where / register.file_name(Process(host.pid, host.start_time))
        # Whole or not at all: readers come at any moment.
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            # In one piece: json.dump would take Python's own encoder, at a tenth of the speed.
            file.write(json.dumps(register.to_json(host), ensure_ascii=False))
        fresh.replace(path)
        self._path = path

    def _remove(self) -> None:
        path, self._path, self._told = self._path, None, (None, 0.0)
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("'vespera ps' does not see this process: %s", error)


class _Tree:
    """An agent's processes, told apart for good: looked at once, while they are surely its own."""

    def __init__(self, pid: int | None, leash: int) -> None:
        self.pid = pid
        self.leader: Process | None = None
        self.leash: Process | None = None
        found = None if pid is None else look_at(pid)
        # Its parent says that the number is not a stranger's already.
        if found is None or found.parent != (leash or os.getpid()):
            return
        self.leader = Process(found.pid, found.start_time)
        above = look_at(leash) if leash else None
        if above is not None:
            self.leash = Process(above.pid, above.start_time)


def _version() -> str:
    from vespera_agent_spawner import __version__

    return __version__


def _here() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser().absolute())


def _start_empty_in_fork() -> None:
    """A forked child tells nothing of its parent's agents."""
    global _registrar
    _forgotten.append(_registrar)
    _registrar = _Registrar()


_forgotten: list[object] = []
_registrar = _Registrar()
atexit.register(lambda: _registrar.leave())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_empty_in_fork)
