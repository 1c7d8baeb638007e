"""Responsible for where what an agent said is kept: told by its host, or in a run's directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vespera_agent_spawner.errors import AgentError, AgentNotFound
from vespera_agent_spawner.register import Host, Listed
from vespera_agent_spawner.transcripts import path_in
from vespera_server.state.directory import StateDirectory
from vespera_server.state.reading import ReadQueue, read_queue
from vespera_server.watch.finding import find, nearest

__all__ = ["NothingKept", "Source", "source_of"]


class NothingKept(AgentError):
    """The agent is known, and nobody writes down what it says."""

    default_code = "nothing_kept"


@dataclass(frozen=True, slots=True)
class Source:
    """A transcript, the queue that its task is in (if it is a task), and whether it may grow."""

    agent_id: str
    transcript: Path | None
    queue: ReadQueue | None = None
    agent: Listed | None = None

    def is_alive(self) -> bool:
        """Whether more may be said."""
        return self.agent is not None and self.agent.is_alive

    def events(self) -> list[dict[str, Any]]:
        """What the queue noted of the task."""
        return [] if self.queue is None else self.queue.events(self.agent_id)


def source_of(
    agent_id: str,
    hosts: Callable[[], Sequence[Host]],
    state: StateDirectory,
    *,
    pid: int | None = None,
    run: str | None = None,
    database: Path | None = None,
) -> Source:
    """A living agent's source, else that of the newest run with a task of that name.

    ``run`` (the beginning of its name) or ``database`` looks there alone. Raises ``AgentNotFound``,
    ``ConfigError`` where several living agents are meant, ``NothingKept``.
    """
    if database is not None:
        return _in_queue(agent_id, database)
    alive = [] if run is not None else hosts()
    if any(agent.agent_id == agent_id for host in alive for agent in host.agents):
        host, agent = find(agent_id, alive, pid)
        return _of_living(host, agent)
    tasks: list[str] = []
    for path in reversed([each.database for each in state.list_runs() if _is(run, each.name)]):
        try:
            queue = read_queue(path)
        except (AgentError, OSError):
            continue
        names = queue.task_ids()
        if agent_id in names:
            return _in_queue(agent_id, path)
        tasks += names
    where = f"in runs named '{run}…'" if run else f"alive, nor in a run of {state.runs}"
    known = [*(agent.agent_id for host in alive for agent in host.agents), *tasks]
    raise AgentNotFound(
        f"no agent or task '{agent_id[:80]}' {where}{nearest(agent_id, known)}; 'vespera ps' lists "
        "the living, 'vespera history' the runs",
        context={"agent_id": agent_id},
    )


def _is(run: str | None, name: str) -> bool:
    return run is None or name.startswith(run)


def _of_living(host: Host, agent: Listed) -> Source:
    if agent.transcript is None:
        raise NothingKept(
            f"nobody keeps what agent '{agent.agent_id}' of host {host.pid} says: set "
            "transcript_dir of its supervisor, transcript of its configuration, or "
            "'vespera serve --transcripts DIR', before it starts",
            context={"agent_id": agent.agent_id},
        )
    path = Path(agent.transcript)
    run = path.parent.parent
    database = run / "tasks.db"
    if run.suffix == ".files":  # of a queue that was named
        database = run.with_suffix("")
    queue = None
    if database.is_file():
        queue = read_queue(database)
        queue = queue if agent.agent_id in queue.task_ids() else None
    return Source(agent.agent_id, path, queue, agent)


def _in_queue(task_id: str, database: Path) -> Source:
    queue = read_queue(database)
    if task_id not in queue.task_ids():
        raise AgentNotFound(
            f"no task '{task_id[:80]}' in {database}{nearest(task_id, queue.task_ids())}; 'vespera "
            f"history --database {database}' lists them",
            context={"agent_id": task_id},
        )
    beside = database.parent
    if database.name != "tasks.db":
        beside = database.with_name(database.name + ".files")
    transcript = Path(path_in(str(beside / "transcripts"), task_id))
    return Source(task_id, transcript if transcript.is_file() else None, queue)
