"""Responsible for what a pool saves, with the real Claude CLI and a scripted model on loopback.

`python -m benchmarks.pool`. P7: from the prompt to the model's first output, cold and from the
pool, in turn. P7b: 20 tasks in 20 directories with 4 places, from a task's place to its first
output; the pool looks ahead. P7s: the official SDK on our transport, from `query()` to its first
message, in turn with and without a pool. Without the CLI there are no such rows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import vespera_agent_spawner as spawner
from benchmarks import command
from benchmarks.command import Options
from benchmarks.table import Row, Shown, Verdict
from vespera_agent_spawner.adapters.locate import find_program

# Seconds that a task's model thinks: as long as a short real answer takes.
THOUGHT = 4.0
SPOKEN = ("assistant", "stream_event")
# So many pairs in each round of the table.
PAIRS = 5
Make = Callable[..., spawner.AgentConfig]


def supervisor(warm: int, places: int) -> spawner.Supervisor:
    """As few starts at once as this machine has processors."""
    return spawner.Supervisor(
        spawner.SupervisorConfig(
            backend="rust", max_agents=places, max_starting=2, memory_reserve=0, warm=warm
        )
    )


async def first_word(sup: spawner.Supervisor, config: spawner.AgentConfig) -> float:
    """Seconds from the wish to the model's first output."""
    began = time.perf_counter()
    agent = await sup.spawn(config)
    took = None
    async for event in agent:
        if took is None and event.kind in SPOKEN:
            took = time.perf_counter() - began
    result = await agent.result()
    if took is None or result.outcome != "completed":
        raise RuntimeError(f"the run ended as {result.outcome}: {result.error}")
    return took


async def pair(config: spawner.AgentConfig) -> tuple[float, float]:
    """Cold, then pooled, in the same directory, as a host that works there would."""
    async with supervisor(0, 4) as sup:
        cold = await first_word(sup, config)
    async with supervisor(1, 4) as sup:
        await (await sup.spawn(config)).result()
        while spawner.metrics()["vespera_pool_warm"] < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        # Long enough to be initialised, which is the point of it.
        await asyncio.sleep(1.5)
        return cold, await first_word(sup, config)


async def first_message(sup: spawner.Supervisor, config: spawner.AgentConfig) -> float:
    """Seconds from the official SDK's `query()` to its first message."""
    from claude_agent_sdk import ClaudeAgentOptions, query

    from vespera_agent_spawner.claude_sdk import SupervisedTransport

    options = ClaudeAgentOptions(
        cli_path=config.program, cwd=config.working_directory, env=dict(config.environment)
    )
    began = time.perf_counter()
    took = None
    transport = SupervisedTransport(options, supervisor=sup)
    async for _ in query(prompt=config.prompt or "", options=options, transport=transport):
        took = took or time.perf_counter() - began
    result = await transport.agent.result()
    if took is None or result.outcome != "completed":
        raise RuntimeError(f"the query ended as {result.outcome}: {result.error}")
    return took


async def sdk_pair(config: spawner.AgentConfig) -> tuple[float, float]:
    """Cold, then pooled, as above."""
    async with supervisor(0, 4) as sup:
        cold = await first_message(sup, config)
    async with supervisor(2, 4) as sup:
        await first_message(sup, config)
        while spawner.metrics()["vespera_pool_warm"] < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        # Nobody tells when they have booted.
        await asyncio.sleep(3)
        return cold, await first_message(sup, config)


async def look_ahead(make: Make, number: int, warm: int, run: int) -> float:
    """Of many tasks with 4 places: seconds from a place to the first output, the median."""
    configs = [make(f"task-{run}-{warm}-{index}", "slow") for index in range(number)]
    async with supervisor(warm, 4) as sup:
        results = await sup.run(configs)
    wrong = [result for result in results if result.outcome != "completed"]
    if wrong:
        raise RuntimeError(f"a task ended as {wrong[0].outcome}: {wrong[0].error}")
    first = [result.time_to_first_output or 0.0 for result in results]
    return statistics.median(first) - THOUGHT


@contextlib.contextmanager
def tasks(claude: str) -> Iterator[Make]:
    """What makes a task's configuration, each with a directory of its own."""
    from vespera_server.demo.surroundings import Surroundings
    from vespera_server.scripted_model import Reply, Script, ScriptedModel, Text

    with tempfile.TemporaryDirectory(prefix="vb-") as root, ScriptedModel() as model:
        place = Surroundings.create(Path(root).resolve())
        model.add("quick", Script(Reply(Text("done"))))
        model.add("slow", Script(Reply(Text("done"), delay=THOUGHT)))

        def make(name: str, script: str = "quick") -> spawner.AgentConfig:
            directory = place.copy_for(name)
            directory.mkdir(parents=True, exist_ok=True)
            return spawner.AgentConfig(
                program=claude,
                prompt=f"[[script:{script}]] go",
                working_directory=directory,
                environment=place.environment(model.base_url),
                inherit_environment=False,
            )

        yield make


def row(
    key: str, title: str, found: Sequence[tuple[float, float]], target: float, rounds: int
) -> Row:
    """Cold beside pooled, as the ratio of each pair."""
    ratios = sorted(pooled / cold for cold, pooled in found)
    cold, pooled = (statistics.median(column) for column in zip(*found, strict=True))
    median = statistics.median(ratios)
    words = f"<= {target:g} x cold's time"
    verdict = Verdict("pooled / cold", median, ratios[0], ratios[-1], words, median <= target)
    shown = [
        Shown("cold", "rust", f"{cold * 1e3:,.0f} ms", 1 / cold),
        Shown("pooled", "rust", f"{pooled * 1e3:,.0f} ms", 1 / pooled),
    ]
    return Row(key, title, rounds, shown, [verdict])


def rows(options: Options) -> Iterator[Row]:
    """Both works, where the CLI is there."""
    try:
        claude = find_program(None, os.environ)
    except spawner.AgentError as error:
        print(f"(no P7: {error})")
        return
    number = 4 if options.smoke else 20
    with tasks(claude) as make:
        if options.wanted("P7"):
            pairs = 1 if options.smoke else PAIRS
            found = [asyncio.run(pair(make("pairs"))) for _ in range(options.rounds * pairs)]
            title = "real CLI: prompt to first output"
            yield row("P7", title, found, 0.30, options.rounds)
        if options.wanted("P7s"):
            pairs = 1 if options.smoke else PAIRS
            found = [asyncio.run(sdk_pair(make("sdk"))) for _ in range(options.rounds * pairs)]
            title = "real CLI, official SDK: query() to first message"
            yield row("P7s", title, found, 0.50, options.rounds)
        if options.wanted("P7b"):
            shares = [
                (
                    asyncio.run(look_ahead(make, number, 0, run)),
                    asyncio.run(look_ahead(make, number, 2, run)),
                )
                for run in range(min(options.rounds, 3))
            ]
            title = f"real CLI: {number} tasks, 4 places, warm=2: place to first output"
            yield row("P7b", title, shares, 0.35, len(shares))


GROUP = command.Group(rows, ("P7", "P7s", "P7b"))

if __name__ == "__main__":
    command.alone("pool", __doc__, GROUP)
