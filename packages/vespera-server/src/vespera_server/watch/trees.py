"""Responsible for an agent's processes as anybody of the same user sees them: who they are, what
they use, and their end.

The host is not asked: it may be stuck, stopped or dead. Nobody is signalled by a number alone. A
handle of the process is taken first (pidfd), then its start time is compared with the one that its
host told; a number that was given to a stranger meanwhile has another, and is left in peace.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vespera_agent_spawner.backends.python import proc
from vespera_agent_spawner.errors import AgentFailed
from vespera_agent_spawner.register import Host, Listed, Process
from vespera_agent_spawner.results import Usage

__all__ = ["Ended", "Everybody", "end_tree", "look", "members", "usage"]

Everybody = Mapping[int, proc.Process]

_POLL = 0.02
_FORCE = 5.0  # seconds for SIGKILL to be obeyed
_SWEEP = 2.0  # for the host or the leash to end what the leader left
_LAST = 10.0  # for all of it to be gone


@dataclass(frozen=True, slots=True)
class Ended:
    """How a tree ended: ``by`` is ``terminate``, ``kill`` or ``itself``; who outlived it."""

    by: str
    seconds: float
    survivors: tuple[str, ...] = ()


def look() -> dict[int, proc.Process]:
    """Everybody on this machine, now; nobody where there is no /proc."""
    try:
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    except OSError:
        return {}
    found = (proc.look_at(number) for number in numbers)
    return {process.pid: process for process in found if process is not None}


def members(agent: Listed, everybody: Everybody) -> list[proc.Process]:
    """Who of them is of the agent's tree, zombies and the leash excepted.

    Under a leash by descent, as it adopts what loses its parent. Without one also by the leader's
    session and group: no number is given again while a session or a group has it.
    """
    caught: set[int] = set()
    if _is_under_leash(agent, everybody):
        pending = [agent.leash.pid] if agent.leash else []
    else:
        leader = agent.leader
        if leader is None or (leader.pid in everybody and not _is(leader, everybody)):
            return []
        caught = {
            process.pid
            for process in everybody.values()
            if leader.pid in (process.pid, process.session, process.group)
        }
        pending = list(caught)
    children = defaultdict(list)
    for process in everybody.values():
        children[process.parent].append(process.pid)
    while pending:
        for child in children[pending.pop()]:
            if child not in caught:
                caught.add(child)
                pending.append(child)
    born = agent.leader.start_time if agent.leader else 0
    found = (everybody[pid] for pid in sorted(caught))
    return [each for each in found if each.state not in "ZX" and each.start_time >= born]


def usage(agent: Listed, everybody: Everybody) -> Usage:
    """What the tree uses; CPU time includes that of children that its members waited for."""
    tree = members(agent, everybody)
    page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    return Usage(
        rss=sum(each.resident_pages for each in tree) * page,
        cpu_seconds=sum(each.cpu_ticks + each.reaped_ticks for each in tree) / ticks,
        processes=len(tree),
        open_files=0,
    )


def end_tree(host: Host, agent: Listed, grace: float) -> Ended:
    """SIGTERM to the agent's program, after ``grace`` seconds force; 0: force at once.

    What it leaves behind is ended by its owner (the leash, the host), and by us where that does not
    come to it. Raises ``AgentFailed`` where nobody can be named without doubt.
    """
    leader = _certain(host, agent)
    began = time.monotonic()
    # Before anything ends: whoever left the leader's session is known by descent only now.
    tree = {each.pid: each.start_time for each in members(agent, look())}
    by = "itself"
    with _handle(leader) as handle:
        if handle is not None and grace > 0 and _send(handle, signal.SIGTERM):
            by = "terminate"
            _send(handle, signal.SIGCONT)  # a stopped one hears nothing else
            _await_end(handle, grace)
        if handle is not None and not _await_end(handle, 0) and _send(handle, signal.SIGKILL):
            by = "kill"
            _await_end(handle, _FORCE)
    survivors = _await_tree(agent, tree)
    return Ended(by, time.monotonic() - began, tuple(survivors))


def _certain(host: Host, agent: Listed) -> Process:
    if host.is_alive is None:
        problem = "its host is of another machine or container: do it there"
    elif agent.leader is None and agent.state == "queued":
        problem = "it has no process yet, it waits for a place: end its host, or wait"
    elif agent.leader is None:
        problem = "its process cannot be told from a stranger's: end it through its host"
    elif not hasattr(os, "pidfd_open"):
        problem = "this system cannot name a process without doubt (pidfd): end it by its host"
    else:
        return agent.leader
    raise AgentFailed(
        f"agent '{agent.agent_id}' of host {host.pid} cannot be ended from here: {problem}",
        context={"agent_id": agent.agent_id, "host": host.pid},
    )


@contextmanager
def _handle(process: Process) -> Iterator[int | None]:
    """A handle of this very process; None when it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Compared after the handle was taken: it surely names whom we looked at.
        yield handle if proc.start_time(process.pid) == process.start_time else None
    finally:
        os.close(handle)


def _send(handle: int, number: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    return True


def _await_end(handle: int, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def _await_tree(agent: Listed, known: dict[int, int]) -> list[str]:
    """Wait until nobody of the tree is left, helping after a while; returns who is."""
    began = time.monotonic()
    while True:
        everybody = look()
        known |= {each.pid: each.start_time for each in members(agent, everybody)}
        left = [each for each in everybody.values() if _is_known(each, known)]
        passed = time.monotonic() - began
        # A leash reaps the leader when the rest is being ended, so it is not done before.
        if not left and not _is_under_leash(agent, everybody):
            return []
        if passed > _LAST:
            names = [f"pid {each.pid} ({_name(each.pid)})" for each in left]
            return names or [f"its leash, pid {agent.leash.pid}" if agent.leash else "its leash"]
        if passed > _SWEEP:
            for each in left:
                with _handle(Process(each.pid, each.start_time)) as handle:
                    if handle is not None:
                        _send(handle, signal.SIGKILL)
        time.sleep(_POLL)


def _is_known(process: proc.Process, known: Mapping[int, int]) -> bool:
    return known.get(process.pid) == process.start_time and process.state not in "ZX"


def _is(process: Process | None, everybody: Everybody) -> bool:
    """Whether this very process is there, be it a zombie."""
    if process is None or process.pid not in everybody:
        return False
    return everybody[process.pid].start_time == process.start_time


def _is_under_leash(agent: Listed, everybody: Everybody) -> bool:
    """Whether what is under its leash is its tree: a leash that has reaped the leader ends the rest
    at once, and then may have another agent."""
    return _is(agent.leash, everybody) and _is(agent.leader, everybody)


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "gone"
