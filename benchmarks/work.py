"""Responsible for the work that is measured, done through the public API of either backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Literal

import vespera_agent_spawner as spawner

Impl = Literal["rust", "python"]
IMPLS: tuple[Impl, ...] = ("rust", "python")
WIDTH = 16
_numbers = count()


def session(program: Path, impl: Impl, turns: int) -> None:
    """Spawn, initialize, `turns` turns, EOF, exit."""
    agent_id = f"bench-{next(_numbers)}"
    spawner.spawn_claude_agent(agent_id, command=str(program), backend=impl)
    try:
        for _ in range(turns):
            turn = spawner.execute_claude_json(agent_id, {"prompt": "hi"})
            if turn["outcome"] != "completed":
                raise RuntimeError(f"the turn ended as {turn['outcome']!r}, expected 'completed'")
    finally:
        spawner.shutdown_claude_agent(agent_id)


def sessions(program: Path, impl: Impl, number: int, turns: int) -> None:
    """Run `number` sessions, WIDTH at a time."""
    with ThreadPoolExecutor(WIDTH) as pool:
        list(pool.map(lambda _: session(program, impl, turns), range(number)))
