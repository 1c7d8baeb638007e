"""Responsible for the work that is measured, done through the public API of either backend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, Literal

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


async def fleet(program: Path, impl: Impl, number: int, turns: int, **more: Any) -> float:
    """The same through a Supervisor: programs that only start and end (-1), sessions (0), or
    runs of one turn, configured with ``more``, WIDTH at a time; returns the CPU seconds that the
    agents used."""
    config = spawner.SupervisorConfig(
        backend=impl, max_agents=WIDTH, max_starting=WIDTH, memory_reserve=0
    )
    async with spawner.Supervisor(config) as supervisor:
        if turns:
            raw = turns < 0
            adapter, prompt = ("raw", None) if raw else ("claude", "hi")
            asked = [
                spawner.AgentConfig(adapter=adapter, program=str(program), prompt=prompt, **more)
                for _ in range(number)
            ]
            results = await supervisor.run(asked)
            for result in results:
                if result.outcome != "completed":
                    raise RuntimeError(f"a run ended as {result.outcome}: {result.error}")
            return sum(result.cpu_seconds or 0.0 for result in results)

        async def one() -> float:
            agent = await supervisor.spawn(
                spawner.AgentConfig(program=str(program), timeouts={"queue": 120})
            )
            await agent.shutdown()
            return agent.usage().cpu_seconds

        return sum(await asyncio.gather(*(one() for _ in range(number))))


async def observed_fleet(program: Path, impl: Impl, number: int, calls: int) -> float:
    """Runs of one turn with a hook that the CLI calls so often in each, while somebody reads the
    metrics once a second; returns the CPU seconds that the agents used."""
    os.environ["INSTANT_HOOKS"] = str(calls)
    called = 0

    async def allow(event: dict[str, Any]) -> None:
        nonlocal called
        called += 1

    async def read() -> None:
        while True:
            spawner.metrics()
            await asyncio.sleep(1)

    reading = asyncio.create_task(read())
    try:
        used = await fleet(program, impl, number, 1, hooks={"PreToolUse": allow})
    finally:
        reading.cancel()
    if called != number * calls:
        raise RuntimeError(f"the hook was called {called} times, not {number * calls}")
    return used


async def sdk_sessions(
    sessions: Callable[..., Awaitable[None]], program: str, impl: Impl, number: int
) -> float:
    """The official SDK's sessions on our transport, WIDTH at a time; returns the CPU seconds that
    the agents used."""
    from vespera_agent_spawner.claude_sdk import SupervisedTransport

    config = spawner.SupervisorConfig(
        backend=impl, max_agents=WIDTH, max_starting=WIDTH, memory_reserve=0
    )
    carried: list[SupervisedTransport] = []
    async with spawner.Supervisor(config) as supervisor:

        def carry(options: Any) -> SupervisedTransport:
            carried.append(SupervisedTransport(options, supervisor=supervisor))
            return carried[-1]

        await sessions(program, number, WIDTH, carry)
        return sum(one.agent.usage().cpu_seconds for one in carried)


async def listen(program: Path, impl: Impl, environment: dict[str, str], touched: bool) -> float:
    """One run with a long answer to an iterating consumer, which reads kind and text of each event
    that is to be `touched`; returns the CPU seconds that the agent used."""
    config = spawner.SupervisorConfig(backend=impl, memory_reserve=0)
    asked = spawner.AgentConfig(program=str(program), prompt="hi", environment=environment)
    seen = characters = 0
    async with spawner.Supervisor(config) as supervisor:
        agent = await supervisor.spawn(asked)
        async for event in agent:
            seen += 1
            if touched and event.kind == "assistant":
                characters += len(event.text or "")
        await agent.result()
        if seen < int(environment["INSTANT_MESSAGES"]):
            raise RuntimeError(f"{seen} events came of {environment['INSTANT_MESSAGES']}")
        return agent.usage().cpu_seconds


async def collect(program: Path, environment: dict[str, str]) -> list[spawner.Event]:
    """The events of one run with a long answer, on the Rust backend, none looked at."""
    config = spawner.SupervisorConfig(backend="rust", memory_reserve=0)
    asked = spawner.AgentConfig(program=str(program), prompt="hi", environment=environment)
    async with spawner.Supervisor(config) as supervisor:
        agent = await supervisor.spawn(asked)
        return [event async for event in agent]


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
