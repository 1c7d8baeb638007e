"""Responsible for the work that is measured, done through the public API of either backend."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
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


def fleet(program: Path, impl: Impl, number: int, turns: int) -> None:
    """The same through a Supervisor: `number` sessions, or runs of one turn, WIDTH at a time."""
    asyncio.run(_fleet(program, impl, number, turns))


async def _fleet(program: Path, impl: Impl, number: int, turns: int) -> None:
    config = spawner.SupervisorConfig(
        backend=impl, max_agents=WIDTH, max_starting=WIDTH, memory_reserve=0
    )
    async with spawner.Supervisor(config) as supervisor:
        if turns:
            asked = [spawner.AgentConfig(program=str(program), prompt="hi") for _ in range(number)]
            for result in await supervisor.run(asked):
                if result.outcome != "completed":
                    raise RuntimeError(f"a run ended as {result.outcome}: {result.error}")
            return

        async def one() -> None:
            agent = await supervisor.spawn(
                spawner.AgentConfig(program=str(program), timeouts={"queue": 120})
            )
            await agent.shutdown()

        await asyncio.gather(*(one() for _ in range(number)))


@contextlib.contextmanager
def computing(busy: bool) -> Iterator[None]:
    """A Python thread that computes meanwhile, if wanted."""
    done = threading.Event()

    def compute() -> None:
        while not done.is_set():
            pass

    thread = threading.Thread(target=compute, daemon=True)
    if busy:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if busy:
            thread.join()
