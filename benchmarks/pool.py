"""Responsible for what a pool saves, with the real Claude CLI and a scripted model on loopback.

`python -m benchmarks.pool [--pairs N] [--tasks N] [--json FILE]`

P7: prompt to first output of the model, cold and from the pool, in turn. P7b: tasks in directories
of their own, more than there are places for, from a place to the first output; the pool looks
ahead. A machine without the CLI cannot measure it, and says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import vespera_agent_spawner as spawner
from benchmarks.agents import refuse_debug
from vespera_agent_spawner.adapters.locate import find_program
from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import Reply, Script, ScriptedModel, Text

# Seconds that a task's model thinks: as long as a short real answer takes.
_THOUGHT = 4.0
_SPOKEN = ("assistant", "stream_event")
Make = Callable[[str], spawner.AgentConfig]


def supervisor(warm: int, places: int) -> spawner.Supervisor:
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
        if took is None and event.kind in _SPOKEN:
            took = time.perf_counter() - began
    result = await agent.result()
    if took is None or result.outcome != "completed":
        raise RuntimeError(f"the run ended as {result.outcome}: {result.error}")
    return took


async def pairs(make: Make, number: int) -> list[tuple[float, float]]:
    """Cold and pooled in turn; both in the same directory, as a host that works there would."""
    config = make("pairs")
    found = []
    for _ in range(number):
        async with supervisor(0, 4) as sup:
            cold = await first_word(sup, config)
        async with supervisor(1, 4) as sup:
            await (await sup.spawn(config)).result()
            pool = sup._pool
            while pool is None or not any(spare.ready for spare in pool._spares):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.2)
            pooled = await first_word(sup, config)
        found.append((cold, pooled))
    return found


async def look_ahead(make: Make, number: int, warm: int, run: int) -> list[float]:
    """Of many tasks with 4 places: seconds from its place to its first output, each."""
    configs = [make(f"task-{run}-{warm}-{index}") for index in range(number)]
    async with supervisor(warm, 4) as sup:
        results = await sup.run(configs)
    wrong = [result for result in results if result.outcome != "completed"]
    if wrong:
        raise RuntimeError(f"a task ended as {wrong[0].outcome}: {wrong[0].error}")
    return [result.time_to_first_output or 0.0 for result in results]


def main() -> None:
    """Print both rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3, help="of the tasks, with and without")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    refuse_debug()
    try:
        claude = find_program(None, os.environ)
    except spawner.AgentError as error:
        sys.exit(f"needs the real Claude CLI: {error}")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="vb-") as root, ScriptedModel() as model:
        place = Surroundings.create(Path(root).resolve())
        model.add("quick", Script(Reply(Text("done"))))
        model.add("slow", Script(Reply(Text("done"), delay=_THOUGHT)))

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

        found = asyncio.run(pairs(make, arguments.pairs))
        ratios = sorted(pooled / cold for cold, pooled in found)
        cold, pooled = (statistics.median(column) * 1e3 for column in zip(*found, strict=True))
        rows.append(row("P7", ratios, 0.30))
        print(f"\nP7 - prompt to first output ({len(found)} pairs): ", end="")
        print(f"cold {cold:.0f} ms, pooled {pooled:.0f} ms")
        tell(rows[-1])
        shares = []
        for run in range(arguments.rounds):
            medians = [
                statistics.median(
                    asyncio.run(
                        look_ahead(lambda name: make(name, "slow"), arguments.tasks, w, run)
                    )
                )
                - _THOUGHT
                for w in (0, 2)
            ]
            print(f"P7b round: warm=0 {medians[0] * 1e3:.0f} ms, warm=2 {medians[1] * 1e3:.0f} ms")
            shares.append(medians[1] / medians[0])
        rows.append(row("P7b", sorted(shares), 0.35))
        tell(rows[-1])
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def row(work: str, ratios: list[float], target: float) -> dict[str, object]:
    """One target as plain data, in the form of `rounds.report`."""
    median = statistics.median(ratios)
    return {
        "work": work,
        "who": "pooled",
        "target": f"<= {target} x cold's time",
        "ratio": median,
        "low": ratios[0],
        "high": ratios[-1],
        "kept": median <= target,
    }


def tell(told: dict[str, object]) -> None:
    """Print it."""
    verdict = "ok" if told["kept"] else "MISSED"
    print(
        f"  {told['work']}: {told['ratio']:.2f} ({told['low']:.2f}-{told['high']:.2f}), "
        f"target {told['target']}: {verdict}"
    )


if __name__ == "__main__":
    main()
