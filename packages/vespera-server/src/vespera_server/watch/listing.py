"""`vespera ps` and `vespera top` as the user calls them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from vespera_agent_spawner.errors import AgentError
from vespera_agent_spawner.register import Host, Process
from vespera_agent_spawner.results import Usage
from vespera_server.demo.screen import console_for
from vespera_server.watch.finding import living
from vespera_server.watch.rows import (
    agent_json,
    command_of,
    host_json,
    listing,
    load_table,
    wide_console,
)
from vespera_server.watch.trees import look, usage

__all__ = ["ps", "top"]

_FIRST = 0.5  # seconds between the first two looks: a share of the CPU needs two


def ps(*, as_json: bool) -> int:
    """Who runs agents now. 0, also when nobody does; 2 when that cannot be read."""
    try:
        hosts = living()
    except (AgentError, OSError, RuntimeError) as error:
        return _unreadable("ps", error)
    if as_json:
        now = time.time()
        answer = {"hosts": [host_json(host, now) for host in hosts]}
        print(json.dumps(answer, indent=2, ensure_ascii=False))
        return 0
    wide_console().print(_with_hosts(hosts, listing(hosts)), soft_wrap=True)
    return 0


def top(*, interval: float, count: int | None, as_json: bool) -> int:
    """What agents use, again and again, ``count`` times or until Ctrl-C.

    Once where no terminal is. 0; 2 when it cannot be read.
    """
    console = wide_console()
    loads = _Loads()
    if count is None and (as_json or not console.is_terminal):
        count = 1
    try:
        loads.take(living())
        if as_json or not console.is_terminal:
            _again(interval, count, loads, lambda hosts: _plainly(console, hosts, loads, as_json))
        else:
            with Live(console=console, auto_refresh=False) as live:
                _again(
                    interval,
                    count,
                    loads,
                    lambda hosts: live.update(_picture(hosts, loads), refresh=True),
                )
    except KeyboardInterrupt:
        return 0
    except (AgentError, OSError, RuntimeError) as error:
        return _unreadable("top", error)
    return 0


def _again(
    interval: float, count: int | None, loads: _Loads, show: Callable[[Sequence[Host]], None]
) -> None:
    done = 0
    while count is None or done < count:
        time.sleep(interval if done else min(interval, _FIRST))
        hosts = living()
        loads.take(hosts)
        show(hosts)
        done += 1


class _Loads:
    """What each tree uses, and which share of one CPU it took since the last look."""

    def __init__(self) -> None:
        self._at = 0.0
        self._before: dict[Process, float] = {}
        self.used: dict[int, tuple[Usage, float]] = {}

    def take(self, hosts: Sequence[Host]) -> None:
        now, everybody = time.monotonic(), look()
        passed, self._at = now - self._at, now
        before, self._before, self.used = self._before, {}, {}
        for agent in (agent for host in hosts for agent in host.agents):
            # Numbers of another machine or container mean somebody else here.
            if agent.leader is None or not agent.is_alive:
                continue
            used = usage(agent, everybody)
            self._before[agent.leader] = used.cpu_seconds
            since = used.cpu_seconds - before.get(agent.leader, used.cpu_seconds)
            # Less than before: somebody ended whom nobody of the tree waited for.
            self.used[agent.leader.pid] = (used, max(0.0, since / passed))


def _plainly(console: Console, hosts: Sequence[Host], loads: _Loads, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_sample(hosts, loads), ensure_ascii=False), flush=True)
    else:
        console.print(_picture(hosts, loads), soft_wrap=True)


def _sample(hosts: Sequence[Host], loads: _Loads) -> dict[str, Any]:
    now = time.time()
    rows = []
    for host in hosts:
        for agent in host.agents:
            row = agent_json(host, agent, now)
            used = loads.used.get(agent.leader.pid) if agent.leader else None
            row["cpu"] = None if used is None else round(used[1], 3)
            row["cpu_seconds"] = None if used is None else used[0].cpu_seconds
            row["rss"] = None if used is None else used[0].rss
            row["processes"] = None if used is None else used[0].processes
            rows.append(row)
    return {"at": now, "agents": rows}


def _picture(hosts: Sequence[Host], loads: _Loads) -> RenderableType:
    return _with_hosts(hosts, load_table(hosts, loads.used))


def _with_hosts(hosts: Sequence[Host], table: RenderableType) -> RenderableType:
    """The table, and beneath it who its hosts are."""
    if not hosts:
        return Text(
            "no agent runs here that anybody told of: 'vespera run', 'vespera serve' and "
            "supervisors with register=True do"
        )
    words = {True: "", False: " (dead; its agents are not)", None: " (elsewhere; not looked at)"}
    lines = [
        Text(
            f"host {host.pid}{words[host.is_alive]}: {command_of(host) or '?'} "
            f"in {host.working_directory}"
        )
        for host in hosts
    ]
    parts: list[RenderableType] = [*lines]
    if any(host.agents for host in hosts):
        parts = [table, *lines]
    return Group(*parts)


def _unreadable(command: str, error: Exception) -> int:
    console_for(stderr=True).print(
        f"vespera {command}: who runs agents cannot be read: {error}",
        style="red",
        markup=False,
        soft_wrap=True,
    )
    return 2
