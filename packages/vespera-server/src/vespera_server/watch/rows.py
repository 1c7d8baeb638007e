"""Responsible for listed agents as rows: for a table, and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from vespera_agent_spawner._units import format_size
from vespera_agent_spawner.register import Host, Listed
from vespera_agent_spawner.results import Usage
from vespera_server.redaction import Redactor
from vespera_server.words import money, span

__all__ = ["agent_json", "command_of", "host_json", "listing", "load_table", "wide_console"]

_LONGEST_COMMAND = 200
_WIDE = 500
_COLOURS = {"in_turn": "cyan", "waiting_for_permission": "yellow", "orphaned": "red"}


def wide_console() -> Console:
    """Rows are for people and for grep: outside of a terminal none is folded."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)


def command_of(host: Host) -> str:
    """What the host was started as, without secrets; empty when nobody can tell."""
    if not host.is_alive:
        return ""
    try:
        words = Path(f"/proc/{host.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return ""
    texts = [word.decode("utf-8", "replace") for word in words]
    if texts and Path(texts[0]).name.startswith("python"):
        texts = texts[1:]
    if texts[:1] == ["-m"]:
        texts = texts[1:]
    texts[:1] = [Path(texts[0]).name.replace("vespera_server", "vespera")] if texts else []
    line = Redactor().text(" ".join(texts))[:_LONGEST_COMMAND]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def state_of(host: Host, agent: Listed) -> str:
    """Its state; ``orphaned`` when its host is dead."""
    return "orphaned" if host.is_alive is False else agent.state


def agent_json(host: Host, agent: Listed, now: float) -> dict[str, Any]:
    """One agent as data; ages and durations in seconds."""
    return {
        "agent_id": agent.agent_id,
        "state": state_of(host, agent),
        "pid": None if agent.leader is None else agent.leader.pid,
        "host_pid": host.pid,
        "session_id": agent.session_id or None,
        "backend": agent.backend or None,
        "containment": agent.containment or None,
        "model": agent.model,
        "started_at": agent.started_at or None,
        "age": round(now - agent.started_at, 1) if agent.started_at else None,
        "turns": agent.turns,
        "cost_usd": agent.cost_usd,
        "working_directory": agent.working_directory,
        "transcript": agent.transcript,
    }


def host_json(host: Host, now: float) -> dict[str, Any]:
    """One host with its agents, as data. ``alive`` is null where nobody can look."""
    return {
        "pid": host.pid,
        "alive": host.is_alive,
        "command": command_of(host),
        "version": host.version,
        "started_at": host.started_at,
        "told_at": host.told_at,
        "working_directory": host.working_directory,
        "agents": [agent_json(host, agent, now) for agent in host.agents],
    }


def listing(hosts: Sequence[Host]) -> Table:
    """The table of `vespera ps`."""
    table = _table("agent", "state", right=("pid", "age", "turns", "cost"))
    for name in ("model", "backend/tier", "host"):
        table.add_column(name, no_wrap=True)
    now = time.time()
    for host, agent in _everybody(hosts):
        table.add_row(
            *_beginning(host, agent, now),
            escape(agent.model or ""),
            f"{agent.backend}/{agent.containment}" if agent.backend else "",
            str(host.pid),
        )
    return table


def load_table(hosts: Sequence[Host], used: dict[int, tuple[Usage, float]]) -> Table:
    """The table of `vespera top`: ``used`` has usage and share of one CPU by leader."""
    table = _table(
        "agent", "state", right=("pid", "age", "turns", "cost", "cpu", "memory", "procs")
    )
    table.add_column("host", no_wrap=True)
    now = time.time()
    for host, agent in _everybody(hosts):
        load = used.get(agent.leader.pid) if agent.leader else None
        cells = ("", "", "")
        if load is not None:
            usage, share = load
            cells = (f"{share * 100:.0f}%", format_size(usage.rss), str(usage.processes))
        table.add_row(*_beginning(host, agent, now), *cells, str(host.pid))
    return table


def _table(*left: str, right: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _beginning(host: Host, agent: Listed, now: float) -> Iterator[str]:
    state = state_of(host, agent)
    yield escape(agent.agent_id)
    yield f"[{_COLOURS[state]}]{state}[/]" if state in _COLOURS else state
    yield "" if agent.leader is None else str(agent.leader.pid)
    yield span(now - agent.started_at if agent.started_at else None)
    yield str(agent.turns)
    yield money(agent.cost_usd)


def _everybody(hosts: Sequence[Host]) -> Iterator[tuple[Host, Listed]]:
    yield from ((host, agent) for host in hosts for agent in host.agents)
