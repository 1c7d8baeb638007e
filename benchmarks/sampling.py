"""Responsible for P11: what it costs to know what 200 agents use, once a second.

`python -m benchmarks.sampling` prints the share of one core per backend, its tree walks beside it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator

from benchmarks import command
from benchmarks.command import Options
from benchmarks.rounds import figure
from benchmarks.table import Column, Row, Shown
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig

AGENTS = 200
ROUNDS = 9
# An agent CLI that thinks is one process; one that runs a tool has a shell and more beside it.
TREES = {1: "exec sleep 600", 3: "sleep 600 & sleep 600 & wait"}

__all__ = ["Sampling"]


async def _share(
    backend: str, size: int, look: Callable[[Supervisor], object], agents: int = AGENTS
) -> float:
    """CPU seconds of this thread for one look at all agents: at 1 Hz the share of a core."""
    config = SupervisorConfig(
        max_agents=agents, max_starting=32, memory_reserve=0, backend=backend, host_death_grace=0
    )
    async with Supervisor(config) as sup:
        agent = AgentConfig(adapter="raw", program="sh", args=("-c", TREES[size]))
        owned = [await sup.spawn(agent) for _ in range(agents)]
        await asyncio.sleep(0.5)
        took = []
        for _ in range(ROUNDS):
            began = time.thread_time()
            look(sup)
            took.append(time.thread_time() - began)
            await asyncio.sleep(0.05)
        assert sum(one.processes for one in sup.usage().values()) >= size * agents
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

    params = (("rust", "python"), tuple(TREES))
    param_names = ("backend", "processes")
    unit = "share of a core"

    def track_share(self, backend: str, processes: int) -> float:
        """One look per second at 200 trees of so many processes, leashes beside them."""
        return asyncio.run(_share(backend, processes, one_pass))


def rows(options: Options) -> Iterator[Row]:
    """For trees of one process and of three."""
    ways: tuple[tuple[str, Column, str, Callable[[Supervisor], object]], ...] = (
        ("each tree by itself", "peer", "rust", walks),
        ("python", "python", "python", one_pass),
        ("rust", "rust", "rust", one_pass),
    )
    agents = 20 if options.smoke else AGENTS
    for size in TREES:
        key = f"P11-{size}"
        if not options.wanted(key):
            continue
        found: dict[str, list[float]] = {who: [] for who, *_ in ways}
        for _ in range(options.rounds):
            for who, _, backend, look in ways:
                found[who].append(asyncio.run(_share(backend, size, look, agents)) * 100)
        shown = [
            Shown(who, column, f"{statistics.median(found[who]):.2f} %") for who, column, *_ in ways
        ]
        verdict = figure("% of a core", found["rust"], 1, "% of a core")
        title = f"usage of {agents} trees of {size} once a second"
        yield Row(key, title, options.rounds, shown, [verdict])


GROUP = command.Group(rows, tuple(f"P11-{size}" for size in TREES))

if __name__ == "__main__":
    command.alone("sampling", __doc__, GROUP)
