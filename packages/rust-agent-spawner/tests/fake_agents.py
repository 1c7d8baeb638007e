"""Responsible for starting fake agents in tests and for seeing what is left of them."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import vespera_agent_spawner as spawner

FAKE = Path(__file__).with_name("fake_claude.py")
NUMBERS = itertools.count(1)


class Agents:
    """Starts fake agents on one backend and ends them all after the test."""

    def __init__(self, backend: str, trace: str) -> None:
        self.backend = backend
        self.trace = trace
        self._ids: list[str] = []

    def spawn(self, how: str = "", *, agent_id: str | None = None, **config: Any) -> str:
        """Start one and return its id; ``how`` is what the fake does from its start."""
        name = agent_id or f"agent-{next(NUMBERS)}"
        self._ids.append(name)
        environment = {"FAKE_CLAUDE": how, "FAKE_TRACE": self.trace}
        environment |= config.pop("environment", {})
        spawner.spawn_claude_agent(
            name,
            sys.executable,
            config.pop("timeout_seconds", 300),
            config={
                "args": [str(FAKE)],
                "environment": environment,
                "timeouts": {"startup": 20},
                **config,
            },
            backend=self.backend,
        )
        return name

    def say(self, agent_id: str, prompt: str, **fields: Any) -> spawner.TurnResult:
        return spawner.execute_claude_json(agent_id, {"prompt": prompt, **fields})

    def end_all(self) -> None:
        for name in self._ids:
            with contextlib.suppress(spawner.AgentNotFound):
                spawner.shutdown_claude_agent(name, 0)


def traced(trace: str) -> list[int]:
    """Living processes that carry a test's mark in their environment."""
    mark = f"FAKE_TRACE={trace}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            alive = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
            if alive and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def policy_of(pid: int) -> int:
    """Of sched(7), as proc_pid_stat(5) tells it: musl's function refuses."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[38])


def children_of(process: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        # A thread of another test may end at any moment.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (task / "children").read_text().split())
    return found


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def eventually(condition: Callable[[], Any], within: float = 5.0) -> Any:
    """Wait for something that has no event to wait for; returns its last value."""
    end = time.monotonic() + within
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    return value
