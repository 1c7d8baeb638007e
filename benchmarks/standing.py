"""Responsible for what agents cost while they live: memory, a consumer that stops, a busy loop.

`python -m benchmarks.standing [P6 P9 P10] [--rounds N] [--smoke] [--json FILE]`; each measurement
is a process of its own, and every round makes all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import vespera_agent_spawner as spawner
from benchmarks import accounting, command
from benchmarks.command import Options
from benchmarks.programs import PEERS, compiled
from benchmarks.rounds import figure
from benchmarks.table import Row, Shown

MIB = 1 << 20


def resident() -> int:
    """Bytes of this process that are in memory and its own."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(
        int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_")
    )


def used() -> int:
    """Bytes that this process and all that it started have of the machine: what their control
    group is charged with, or what the machine has less, which others move too."""
    found = accounting.charged()
    return -available() if found is None else found


def available() -> int:
    """Bytes of the machine that can be had."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo: no MemAvailable")


async def settled(value: Callable[[], int]) -> int:
    """A value of the machine once it has stopped moving much."""
    gc.collect()
    seen: list[int] = []
    for _ in range(40):
        await asyncio.sleep(0.05)
        seen = [*seen[-3:], value()]
        if len(seen) == 4 and max(seen) - min(seen) < MIB:
            break
    return int(statistics.median(seen))


@contextlib.asynccontextmanager
async def supervisor(places: int) -> AsyncIterator[spawner.Supervisor]:
    """Room for so many agents, all of the Rust backend."""
    config = spawner.SupervisorConfig(
        backend="rust", max_agents=places, max_starting=16, memory_reserve=0
    )
    async with spawner.Supervisor(config) as sup:
        yield sup


async def memory_ours(number: int) -> dict[str, float]:
    """Bytes per live session: of the host, and of the machine."""
    program = str(compiled("instant_cli"))
    asked = spawner.AgentConfig(program=program, timeouts={"queue": 600})
    async with supervisor(number + 8) as sup:
        warm = [await sup.spawn(asked) for _ in range(8)]
        host, machine = await settled(resident), await settled(used)
        kept = await asyncio.gather(*(sup.spawn(asked) for _ in range(number)))
        found = {
            "host": (await settled(resident) - host) / number,
            "machine": (await settled(used) - machine) / number,
        }
        assert len(kept) + len(warm) == number + 8
    return found


async def memory_plain(number: int) -> dict[str, float]:
    """The same programs, started by nobody who owns a tree: what they cost by themselves."""
    program = str(compiled("instant_cli"))
    pipe = subprocess.PIPE
    before = await settled(used)
    # Not by asyncio, which has a thread for each on some versions of Python.
    kept = [
        subprocess.Popen([program], stdin=pipe, stdout=pipe, stderr=pipe)  # noqa: ASYNC220
        for _ in range(number)
    ]
    found = {"machine": (await settled(used) - before) / number}
    for process in kept:
        process.kill()
        process.wait()
    return found


async def memory_sdk(number: int) -> dict[str, float]:
    """Bytes of the host per live session of the official SDK."""
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient

    program = str(compiled("instant_cli"))
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(ClaudeSDKClient(ClaudeAgentOptions(cli_path=program)))
        host = await settled(resident)
        for _ in range(number):
            await stack.enter_async_context(ClaudeSDKClient(ClaudeAgentOptions(cli_path=program)))
        return {"host": (await settled(resident) - host) / number}


async def stopped(overflow: str, megabytes: int) -> dict[str, float]:
    """One consumer stops reading a flood; what that costs the host, and another agent's lag."""
    program = str(compiled("instant_cli"))
    flood = spawner.AgentConfig(
        program=program,
        prompt="hi",
        overflow=overflow,
        environment={"INSTANT_MESSAGES": str(megabytes * 16), "INSTANT_BYTES": "65536"},
    )
    async with supervisor(8) as sup:
        alone = await lag_of_one(sup)
        before = resident()
        agent = await sup.spawn(flood)
        events = aiter(agent)
        await anext(events)
        peak = 0

        async def watch() -> None:
            nonlocal peak
            while True:
                peak = max(peak, resident() - before)
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        beside = await lag_of_one(sup)
        watching.cancel()
        agent.kill()
        delivered = 1
        async for _ in events:
            delivered += 1
        return {
            "peak_mib": peak / MIB,
            "lag_alone_ms": alone * 1e3,
            "lag_beside_ms": beside * 1e3,
            "delivered": delivered,
        }


async def lag_of_one(sup: spawner.Supervisor) -> float:
    """Median seconds from a line's writing to the consumer that awaits it."""
    ticker = spawner.AgentConfig(
        adapter="raw", program=str(compiled("ticker")), args=("500", "2000")
    )
    agent = await sup.spawn(ticker)
    lags = [time.time() - int((event.text or "0").split()[0]) / 1e9 async for event in agent]
    return statistics.median(lags)


class Lateness:
    """How late a timer of the running loop is, again and again."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            self._late.append(time.perf_counter() - began - 0.005)

    def p99_ms(self) -> float:
        """Ends it."""
        self._task.cancel()
        self._late.sort()
        return self._late[len(self._late) * 99 // 100] * 1e3


def ticker_for(seconds: float) -> tuple[str, str, str]:
    """A program that says 50 lines a second, and its arguments."""
    return (str(compiled("ticker")), str(int(seconds * 50)), "20000")


async def foreign(agents: int, seconds: float) -> dict[str, float]:
    """The lateness of a loop that has nothing to do with so many agents of somebody else's."""
    program = [str(compiled("drain")), str(agents), *ticker_for(seconds + 1)]
    other = await asyncio.create_subprocess_exec(*program)
    await asyncio.sleep(0.5)
    lateness = Lateness()
    await asyncio.sleep(seconds * 0.8)
    found = {"p99_ms": lateness.p99_ms()}
    await other.wait()
    return found


async def stall(agents: int, seconds: float) -> dict[str, float]:
    """The loop's own lateness while so many agents send 50 events a second each."""
    program, *words = ticker_for(seconds)
    ticker = spawner.AgentConfig(adapter="raw", program=program, args=tuple(words))
    async with supervisor(max(agents, 1)) as sup:
        seen = grown = 0
        before = await settled(resident)
        merged = sup.events()
        for _ in range(agents):
            await sup.spawn(ticker)
        lateness = Lateness()
        if agents:
            began = time.monotonic()
            async for _ in merged:
                seen += 1
                if time.monotonic() - began > seconds * 0.8:
                    break
            grown = resident() - before
        else:
            await asyncio.sleep(seconds)
        p99 = lateness.p99_ms()
    return {"p99_ms": p99, "seen": seen, "host": grown}


MEASURES: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
    "memory_ours": memory_ours,
    "memory_plain": memory_plain,
    "memory_sdk": memory_sdk,
    "stopped": stopped,
    "foreign": foreign,
    "stall": stall,
}


def apart(name: str, *words: object) -> dict[str, float]:
    """One measurement in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.standing", "--measure", name, *map(str, words)]
    with accounting.group() as groups:
        answer = subprocess.run(
            line,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PEERS.parent.parent,
            env={**os.environ, **groups},
        )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def rounds_of(
    options: Options, *names: tuple[str, *tuple[object, ...]]
) -> list[list[dict[str, float]]]:
    """The measurements in turn, round by round."""
    return [[apart(*words) for words in names] for _ in range(options.rounds)]


def kib(values: list[float]) -> list[float]:
    """Bytes as KiB."""
    return [value / 1024 for value in values]


def p6(options: Options) -> Row:
    """Memory per live agent, between turns."""
    number = 20 if options.smoke else 1000
    beside = min(number, 200)
    found = rounds_of(
        options, ("memory_ours", number), ("memory_plain", number), ("memory_sdk", beside)
    )
    host = kib([ours["host"] for ours, _, _ in found])
    sdk = kib([peer["host"] for _, _, peer in found])
    added = kib([ours["machine"] - plain["machine"] for ours, plain, _ in found])
    plain_kib = statistics.median(kib([plain["machine"] for _, plain, _ in found]))
    shown = [
        Shown("floor", "floor", f"{plain_kib:,.0f} KiB, the program", plain_kib),
        Shown("sdk", "peer", f"{statistics.median(sdk):.1f} KiB of host", statistics.median(sdk)),
        Shown(
            "rust", "rust", f"{statistics.median(host):.1f} KiB of host", statistics.median(host)
        ),
    ]
    verdicts = [
        figure("host KiB", host, 22, "KiB"),
        figure("all that we add, KiB", added, 128, "KiB"),
        figure("host / sdk", [a / b for a, b in zip(host, sdk, strict=True)], 0.6, "x sdk's host"),
    ]
    title = f"memory of a live session, {number:,} of them"
    return Row("P6", title, options.rounds, shown, verdicts)


def p6_busy(options: Options) -> Row:
    """Memory per agent while its events stream to a consumer; nothing is promised of it."""
    agents, seconds = (10, 2.0) if options.smoke else (200, 10.0)
    found = rounds_of(options, ("stall", agents, seconds))
    host = statistics.median(kib([one["host"] / agents for (one,) in found]))
    shown = [Shown("rust", "rust", f"{host:.1f} KiB of host", host)]
    title = f"memory of an agent that streams, {agents} at 50 events/s"
    return Row("P6-busy", title, options.rounds, shown)


def p9(options: Options) -> Row:
    """A consumer that stops reading."""
    megabytes = 32 if options.smoke else 256
    modes = ("spill", "drop_oldest", "block")
    found = rounds_of(options, *(("stopped", mode, megabytes) for mode in modes))
    verdicts = []
    for number, mode in enumerate(modes):
        samples = [one[number] for one in found]
        verdicts.append(figure(f"{mode}: MiB more", [s["peak_mib"] for s in samples], 24, "MiB"))
        late = [s["lag_beside_ms"] - s["lag_alone_ms"] for s in samples]
        verdicts.append(figure(f"{mode}: another's lag, ms", late, 2, "ms more than alone"))
    title = f"a consumer that stops reading {megabytes} MiB"
    return Row("P9", title, options.rounds, [], verdicts)


def p10(options: Options) -> Row:
    """The stall that we cause in the event loop."""
    agents, seconds = (10, 2.0) if options.smoke else (200, 10.0)
    found = rounds_of(
        options, ("stall", 0, seconds), ("foreign", agents, seconds), ("stall", agents, seconds)
    )
    idle, others, busy = ([one[which]["p99_ms"] for one in found] for which in range(3))
    caused = [late - beside for beside, late in zip(others, busy, strict=True)]
    shown = [
        Shown("floor", "floor", f"{statistics.median(idle):.2f} ms, loop alone"),
        Shown(
            "foreign", "peer", f"{statistics.median(others):.2f} ms, beside as many of another's"
        ),
        Shown("rust", "rust", f"{statistics.median(busy):.2f} ms"),
    ]
    title = f"p99 lateness of a timer of the loop, {agents} agents at 50 events/s"
    verdict = figure("p99 caused by us, ms", caused, 2, "ms more than by their mere presence")
    return Row("P10", title, options.rounds, shown, [verdict])


ROWS: dict[str, Callable[[Options], Row]] = {"P6": p6, "P6-busy": p6_busy, "P9": p9, "P10": p10}


def rows(options: Options) -> Iterator[Row]:
    """The works that are wanted."""
    for key, row in ROWS.items():
        if options.wanted(key):
            yield row(options)


GROUP = command.Group(rows, tuple(ROWS))


def measure(words: list[str]) -> None:
    """One measurement and its numbers, as JSON."""
    accounting.enter()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    name, *given = words
    numbers = [word if word.isalpha() or "_" in word else float(word) for word in given]
    whole = [int(n) if isinstance(n, float) and n.is_integer() else n for n in numbers]

    async def once() -> dict[str, float]:
        return await MEASURES[name](*whole)

    print(json.dumps(asyncio.run(once())))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2:])
    else:
        command.alone("standing", __doc__, GROUP)
