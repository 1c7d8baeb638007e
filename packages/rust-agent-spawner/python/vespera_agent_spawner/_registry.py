"""Responsible for who is known by which id: the agents that live and the last that ended.

It starts and ends nothing. One lock guards it, held for moments only, never during a wait.
"""

from __future__ import annotations

import difflib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from vespera_agent_spawner._counters import PROCESS, Bill
from vespera_agent_spawner.backends._protocol import Session
from vespera_agent_spawner.config import AgentConfig
from vespera_agent_spawner.errors import AgentExists, AgentNotFound
from vespera_agent_spawner.results import AgentInfo, ExitStatus, Outcome, State
from vespera_agent_spawner.session_hold import Hold

__all__ = ["KEPT_ENDED", "Ended", "Entry", "Registry"]

KEPT_ENDED = 1024
_KEPT_STDERR = 2_000


@dataclass(slots=True, eq=False)
class Entry:
    """An agent that lives or is being started; ``settled`` is set when the start has an end."""

    config: AgentConfig
    placeholder: AgentInfo
    program: str
    session: Session | None = None
    #: The session's id that is held last, and all that are.
    session_id: str = ""
    holds: list[Hold] = field(default_factory=list)
    bill: Bill = field(default_factory=Bill)
    settled: threading.Event = field(default_factory=threading.Event)

    def info(self) -> AgentInfo:
        return self.placeholder if self.session is None else self.session.info()


@dataclass(frozen=True, slots=True)
class Ended:
    """What is kept of an agent that ended."""

    info: AgentInfo
    exit: ExitStatus
    stderr_tail: str


class Registry:
    """Agents by id. An id is free again when its agent has ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: dict[str, Entry] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()

    def reserve(
        self, agent_id: str, config: AgentConfig, program: str, backend: str, containment: str
    ) -> Entry:
        """Take an id before the start, so that two threads cannot start the same agent."""
        placeholder = AgentInfo(
            agent_id=agent_id,
            session_id="",
            pid=None,
            state=State.STARTING,
            backend=backend,
            containment=containment,
            started_at=time.time(),
        )
        with self._lock:
            self._retire_ended()
            if agent_id in self._live:
                info = self._live[agent_id].info()
                raise AgentExists(
                    f"agent '{agent_id}' exists already (pid {info.pid}, {info.state}): shut it "
                    "down first or choose another id",
                    context={"agent_id": agent_id, "pid": info.pid, "state": info.state.value},
                )
            entry = Entry(config, placeholder, program)
            self._live[agent_id] = entry
            self._ended.pop(agent_id, None)
            return entry

    def started(self, entry: Entry, session: Session) -> None:
        with self._lock:
            entry.session, entry.session_id = session, session.session_id
        entry.settled.set()

    def failed(self, entry: Entry, error: BaseException, stderr_tail: str) -> None:
        """The start failed: the id is known as ended, so a ``finally: shutdown`` hides nothing."""
        reason = f"never started: {error}" if str(error) else f"never started: {error!r}"
        info = replace(entry.placeholder, state=State.SPAWN_FAILED, outcome=Outcome.SPAWN_FAILED)
        with self._lock:
            agent_id = info.agent_id
            if self._live.get(agent_id) is entry:
                del self._live[agent_id]
                status = ExitStatus(None, None, "spawn", reason)
                self._keep(agent_id, Ended(info, status, stderr_tail))
        entry.settled.set()

    def find(self, agent_id: str) -> Entry | Ended:
        """Raises ``AgentNotFound`` for an id that was never seen, with the nearest known one."""
        with self._lock:
            self._retire_ended()
            found: Entry | Ended | None = self._live.get(agent_id) or self._ended.get(agent_id)
            if found is not None:
                return found
            known = [*self._live, *self._ended]
        near = difflib.get_close_matches(str(agent_id), known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise AgentNotFound(
            f"no agent '{agent_id}' is known here{hint}; list_agents() shows those that live "
            f"(agents of a parent process, and those before the last {KEPT_ENDED} that ended, are "
            "not known)",
            context={"agent_id": agent_id},
        )

    def live(self) -> list[Entry]:
        with self._lock:
            self._retire_ended()
            return list(self._live.values())

    def _retire_ended(self) -> None:
        for agent_id, entry in list(self._live.items()):
            session = entry.session
            if session is None or not session.state.is_over:
                continue
            status = session.exit_status
            if status is None:
                continue
            for hold in entry.holds:
                hold.release()
            # A turn whose caller was interrupted may have told its cost since.
            PROCESS.count_spent(entry.bill, session.spent())
            del self._live[agent_id]
            self._keep(agent_id, Ended(session.info(), status, session.stderr_tail[-_KEPT_STDERR:]))

    def _keep(self, agent_id: str, ended: Ended) -> None:
        self._ended[agent_id] = ended
        self._ended.move_to_end(agent_id)
        while len(self._ended) > KEPT_ENDED:
            self._ended.popitem(last=False)
