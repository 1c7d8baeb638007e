"""Responsible for showing that a host which runs agents for hours stays as it was.

`nox -s soak` keeps two hundred agents busy for an hour, a million prompts in and more than ten
million events out; `-- --minutes 5` for less, `-- --smoke` for a minute with forty. Agents take
turns, end by shutdown, by force and by being dropped, leave processes behind, and are replaced.
Resident memory, descriptors, threads and zombies are looked at all the while. The exit code is 1
when one of them grew; `TOLERANCE` says how much is none.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import sys
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.programs import compiled
from vespera_agent_spawner import (
    Agent,
    AgentConfig,
    AgentError,
    Outcome,
    Supervisor,
    SupervisorConfig,
    metrics,
)

# A million prompts an hour.
PROMPTS_PER_SECOND = 280.0
TURNS_OF_A_LIFE = (20, 200)
LEAVES_SOMEBODY = ("sh", "-c", "setsid sleep 300 & echo left")
NEVER_ENDS = ("sh", "-c", "trap '' TERM; sleep 300 & wait; wait")


@dataclass(frozen=True)
class Tolerance:
    """What counts as flat, from the first measured fifth of the run to its last."""

    #: Of the median resident memory of host, and of guardian and leashes for each agent.
    memory: float = 0.05
    #: Allocators keep what they may need: so much more is no leak, in bytes.
    memory_floor: int = 8 << 20
    #: With all agents gone, compared with the same moment after the warm-up.
    descriptors: int = 0
    threads: int = 0
    zombies: int = 0


TOLERANCE = Tolerance()

# The guardian, and the leashes that wait for an agent (MOST_FREE in agent/process.rs).
STAYING = 1 + 16


@dataclass(frozen=True)
class Sample:
    """The host and what it started, at one moment."""

    at: float
    rss: int
    own_rss: int
    descriptors: int
    threads: int
    zombies: int
    processes: int
    #: Of them neither the guardian nor a leash.
    agents: int

    @property
    def own_rss_each(self) -> float:
        """Of guardian and leashes, for each process beneath the host."""
        return self.own_rss / max(1, self.processes)


@dataclass
class Tally:
    """What was done."""

    prompts: int = 0
    events: int = 0
    lives: Counter[str] = field(default_factory=Counter)
    trouble: list[str] = field(default_factory=list)


def look(began: float) -> Sample:
    """One walk through /proc: the host, and guardian and leashes beneath it."""
    me = os.getpid()
    parents: dict[int, int] = {}
    facts: dict[int, tuple[str, str, int]] = {}
    page = os.sysconf("SC_PAGE_SIZE")
    for entry in os.listdir("/proc"):  # noqa: PTH208 - pathlib is slower
        if not entry.isdigit():
            continue
        try:
            name, _, rest = Path(f"/proc/{entry}/stat").read_text().rpartition(")")
        except OSError:
            continue
        words = rest.split()
        parents[int(entry)] = int(words[1])
        facts[int(entry)] = (name.partition("(")[2], words[0], int(words[21]) * page)

    def ours(pid: int) -> bool:
        while pid not in (0, me):
            pid = parents.get(pid, 0)
        return pid == me

    mine = [facts[pid] for pid in facts if pid != me and ours(pid)]
    return Sample(
        at=time.monotonic() - began,
        rss=facts[me][2],
        own_rss=sum(rss for name, _, rss in mine if name.startswith("vespera-")),
        descriptors=len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        threads=len(os.listdir("/proc/self/task")),  # noqa: PTH208
        zombies=sum(state == "Z" for _, state, _ in mine),
        processes=len(mine),
        agents=sum(not name.startswith("vespera-") for name, _, _ in mine),
    )


class Soak:
    """One run: a supervisor, its agents, and whoever looks at them."""

    def __init__(self, agents: int, seconds: float, seed: int) -> None:
        self.agents = agents
        self.seconds = seconds
        self.chance = random.Random(seed)
        self.tally = Tally()
        self.samples: list[Sample] = []
        self.began = time.monotonic()
        self.program = str(compiled("instant_cli"))
        # Seconds between two prompts of one agent.
        self.pace = 200 / PROMPTS_PER_SECOND

    async def run(self) -> tuple[Sample, Sample]:
        """The quiet moments: after a tenth of the time, and at the end."""
        config = SupervisorConfig(
            backend="rust", max_agents=self.agents + 16, max_starting=8, memory_reserve=0
        )
        async with Supervisor(config) as sup:
            await self._phase(sup, self.seconds * 0.1)
            before = await self._quiet()
            self.samples.clear()
            await self._phase(sup, self.seconds * 0.9)
            after = await self._quiet()
        return before, after

    async def _phase(self, sup: Supervisor, seconds: float) -> None:
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(self.agents):
                group.create_task(self._keep_one(sup, until))
            group.create_task(self._watch(until))

    async def _watch(self, until: float) -> None:
        every = max(0.5, min(5.0, self.seconds / 120))
        while time.monotonic() < until:
            await asyncio.sleep(every)
            self.samples.append(await asyncio.to_thread(look, self.began))

    async def _quiet(self) -> Sample:
        """With all agents gone and the garbage collected."""
        for _ in range(50):
            gc.collect()
            await asyncio.sleep(0.2)
            sample = look(self.began)
            if sample.agents == 0 and sample.processes <= STAYING and sample.zombies == 0:
                break
        return sample

    async def _keep_one(self, sup: Supervisor, until: float) -> None:
        # Not all at once: a fleet that breathes in step shows less.
        await asyncio.sleep(self.chance.random() * self.pace)
        while time.monotonic() < until:
            lives: list[tuple[str, Callable[[Supervisor, float], Awaitable[None]], int]] = [
                ("session", self._session, 90),
                ("leaves somebody", self._leaves, 5),
                ("cancelled", self._cancelled, 5),
            ]
            [(name, life, _)] = self.chance.choices(lives, [weight for *_, weight in lives])
            try:
                await life(sup, until)
            except AgentError as error:
                self.tally.trouble.append(f"{name}: {error!r}")
            self.tally.lives[name] += 1

    async def _session(self, sup: Supervisor, until: float) -> None:
        agent = await sup.spawn(AgentConfig(program=self.program))
        reader = None
        if self.chance.random() < 0.5:
            reader = asyncio.ensure_future(self._read(agent))
        for _ in range(self.chance.randint(*TURNS_OF_A_LIFE)):
            if time.monotonic() >= until:
                break
            result = await agent.run("go")
            self.tally.prompts += 1
            if result.outcome is not Outcome.COMPLETED:
                self.tally.trouble.append(f"turn: {result.outcome} {result.error}")
            # Whoever is behind the million an hour does not rest.
            due = (time.monotonic() - self.began) * self.agents / self.pace
            if self.tally.prompts > due:
                await asyncio.sleep(self.pace * (0.5 + self.chance.random()))
        end = self.chance.random()
        if end < 0.6:
            await agent.shutdown()
        elif end < 0.9 or reader is not None:
            agent.kill()
            await agent.result()
        if reader is not None:
            await reader
        # The rest is dropped: it warns, and its tree is ended.
        del agent

    async def _read(self, agent: Agent) -> None:
        async for event in agent:
            self.tally.events += bool(event.kind)

    async def _leaves(self, sup: Supervisor, until: float) -> None:
        config = AgentConfig(adapter="raw", program=LEAVES_SOMEBODY[0], args=LEAVES_SOMEBODY[1:])
        [result] = await sup.run([config])
        if result.outcome is not Outcome.COMPLETED or result.orphans_reaped < 1:
            self.tally.trouble.append(f"leaves somebody: {result}")

    async def _cancelled(self, sup: Supervisor, until: float) -> None:
        config = AgentConfig(adapter="raw", program=NEVER_ENDS[0], args=NEVER_ENDS[1:])
        try:
            async with asyncio.timeout(0.5):
                await sup.run([config])
        except TimeoutError:
            return
        self.tally.trouble.append("cancelled: it ended by itself")


def judge(samples: list[Sample], before: Sample, after: Sample) -> list[str]:
    """What grew, in words."""
    grown = []
    fifth = max(1, len(samples) // 5)
    for name, floor in (("rss", TOLERANCE.memory_floor), ("own_rss_each", 0)):
        first, last = (
            statistics.median(getattr(sample, name) for sample in part)
            for part in (samples[:fifth], samples[-fifth:])
        )
        allowed = max(first * TOLERANCE.memory, floor)
        if last - first > allowed:
            grown.append(f"{name}: {first / 2**20:.2f} -> {last / 2**20:.2f} MiB")
    for name in ("descriptors", "threads", "zombies"):
        more = getattr(after, name) - getattr(before, name)
        if more > getattr(TOLERANCE, name):
            grown.append(f"{name}: {more} more with all agents gone")
    if after.agents:
        grown.append(f"processes: {after.agents} of agents left")
    if after.processes - after.agents > STAYING:
        own = after.processes - after.agents
        grown.append(f"processes: {own} of our own left, more than {STAYING}")
    most = max(sample.zombies for sample in samples)
    if most > 64:
        grown.append(f"zombies: up to {most} at a time")
    return grown


def main() -> int:
    """Exit code 1 when something grew or went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--smoke", action="store_true", help="a minute with forty agents")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.minutes, arguments.agents = 0.9, 40
    # Some agents are dropped on purpose.
    warnings.simplefilter("ignore", ResourceWarning)
    soak = Soak(arguments.agents, arguments.minutes * 60, arguments.seed)
    print(
        f"{arguments.agents} agents for {arguments.minutes:g} min, seed {arguments.seed}",
        flush=True,
    )
    before, after = asyncio.run(soak.run())
    tally, samples = soak.tally, soak.samples
    told = {name: value for name, value in metrics().items() if "events_total" in name}
    events = f"{int(sum(told.values())):,}"
    print(f"prompts {tally.prompts:,}, events out {events}, lives {dict(tally.lives)}")
    for name, sample in [
        ("after the warm-up, quiet", before),
        ("first", samples[0]),
        ("last", samples[-1]),
        ("at the end, quiet", after),
    ]:
        print(
            f"{name:>24}: {sample.at:7.1f} s  host {sample.rss / 2**20:6.1f} MiB  "
            f"guardian + leashes {sample.own_rss / 2**20:6.1f} MiB  fds {sample.descriptors:5}  "
            f"threads {sample.threads:3}  zombies {sample.zombies:3}  processes {sample.processes}"
        )
    grown = judge(samples, before, after)
    for line in [*grown, *tally.trouble[:10]]:
        print(f"NOT FLAT: {line}" if line in grown else f"TROUBLE: {line}")
    print(json.dumps({"flat": not grown, "trouble": len(tally.trouble)}))
    return 1 if grown or tally.trouble else 0


if __name__ == "__main__":
    sys.exit(main())
