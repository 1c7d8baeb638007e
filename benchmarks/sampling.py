"""Responsible for P11: what it costs to know what 200 agents use, once a second.

`python -m benchmarks.sampling` prints the share of one core per backend, its tree walks beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import command
from benchmarks.command import Options
from benchmarks.rounds import figure
from benchmarks.table import Column, Row, Shown
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig

AGENTS = 200
LOOKS = 5
# What is kept between two looks ages by the second, so they are as far apart as the rows say.
PAUSE = 1.0


@dataclass(frozen=True)
class Fleet:
    """Trees of one size; every so many of them, if any, is at work."""

    size: int
    title: str
    idle: str
    at_work: str = ""
    every: int = 1

    def program(self, number: int) -> str:
        """What the shell of that tree is told."""
        return self.at_work if self.at_work and number % self.every == 0 else self.idle


# An agent CLI that thinks is one process; one that runs a tool has a shell and more beside it.
# A tool that loops has run between two looks, and so has whoever it starts: they are two of
# fifteen processes where every fifth tree has one.
THREE = "sleep 600 & sleep 600 & wait"
FLEETS: dict[int | str, Fleet] = {
    1: Fleet(1, "trees of 1", "exec sleep 600"),
    3: Fleet(3, "trees of 3", THREE),
    "busy": Fleet(
        3,
        "trees of 3, every fifth at work,",
        THREE,
        "sleep 600 & while :; do sleep 0.5; done",
        every=5,
    ),
}

__all__ = ["Sampling"]


async def _share(
    backend: str,
    trees: int | str,
    look: Callable[[Supervisor], object],
    agents: int = AGENTS,
    pause: float = PAUSE,
) -> float:
    """CPU seconds of this thread for one look at all agents: at 1 Hz the share of a core."""
    fleet = FLEETS[trees]
    config = SupervisorConfig(
        max_agents=agents, max_starting=32, memory_reserve=0, backend=backend, host_death_grace=0
    )
    async with Supervisor(config) as sup:
        programs = [("-c", fleet.program(number)) for number in range(agents)]
        owned = [
            await sup.spawn(AgentConfig(adapter="raw", program="sh", args=args))
            for args in programs
        ]
        await asyncio.sleep(0.5)
        took = []
        for _ in range(LOOKS):
            began = time.thread_time()
            look(sup)
            took.append(time.thread_time() - began)
            await asyncio.sleep(pause)
        # Some loop is between two of its children.
        least = (fleet.size - bool(fleet.at_work)) * agents
        assert sum(one.processes for one in sup.usage().values()) >= least
        for agent_ in owned:
            agent_.kill()
    return statistics.median(took)


def one_pass(sup: Supervisor) -> object:
    """All trees from one reading of /proc."""
    return sup.usage()


def walks(sup: Supervisor) -> object:
    """Each tree by itself."""
    return [agent.usage() for agent in sup.agents()]


class Sampling:
    """asv: the share of a core at 1 Hz; the target of the Rust backend is 0.01."""

    # With these alone its history goes on.
    params = (("rust", "python"), (1, 3))
    param_names = ("backend", "processes")
    unit = "share of a core"

    def track_share(self, backend: str, processes: int) -> float:
        """One look per second at 200 trees of so many processes, leashes beside them."""
        return asyncio.run(_share(backend, processes, one_pass))


def rows(options: Options) -> Iterator[Row]:
    """For trees of one process, of three, and of three some of which are at work."""
    ways: tuple[tuple[str, Column, str, Callable[[Supervisor], object]], ...] = (
        ("each tree by itself", "peer", "rust", walks),
        ("python", "python", "python", one_pass),
        ("rust", "rust", "rust", one_pass),
    )
    agents = 20 if options.smoke else AGENTS
    pause = 0.05 if options.smoke else PAUSE
    for name, fleet in FLEETS.items():
        key = f"P11-{name}"
        if not options.wanted(key):
            continue
        found: dict[str, list[float]] = {who: [] for who, *_ in ways}
        for _ in range(options.rounds):
            for who, _, backend, look in ways:
                share = asyncio.run(_share(backend, name, look, agents, pause))
                found[who].append(share * 100)
        shown = [
            Shown(who, column, f"{statistics.median(found[who]):.2f} %") for who, column, *_ in ways
        ]
        verdict = figure("% of a core", found["rust"], 1, "% of a core")
        title = f"usage of {agents} {fleet.title} once a second"
        yield Row(key, title, options.rounds, shown, [verdict])


GROUP = command.Group(rows, tuple(f"P11-{name}" for name in FLEETS))

if __name__ == "__main__":
    command.alone("sampling", __doc__, GROUP)
