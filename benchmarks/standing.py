"""Responsible for what agents cost while they live: memory, a consumer that stops, a busy loop.

`python -m benchmarks.standing [P6 P9 P10] [--smoke]`; each measurement is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import vespera_agent_spawner as spawner
from benchmarks.programs import PEERS, compiled

MIB = 1 << 20


def resident() -> int:
    """Bytes of this process that are in memory and its own."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return sum(
        int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_")
    )


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
        host, machine = await settled(resident), await settled(available)
        kept = await asyncio.gather(*(sup.spawn(asked) for _ in range(number)))
        found = {
            "host": (await settled(resident) - host) / number,
            "machine": (machine - await settled(available)) / number,
        }
        assert len(kept) + len(warm) == number + 8
    return found


async def memory_plain(number: int) -> dict[str, float]:
    """The same programs, started by nobody who owns a tree: what they cost by themselves."""
    program = str(compiled("instant_cli"))

    async def start() -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(program, stdin=pipe, stdout=pipe, stderr=pipe)

    machine = await settled(available)
    kept = [await start() for _ in range(number)]
    found = {"machine": (machine - await settled(available)) / number}
    for process in kept:
        process.kill()
        await process.wait()
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


async def stall(agents: int, seconds: float) -> dict[str, float]:
    """The loop's own lateness while so many agents send 50 events a second each."""
    count = str(int(seconds * 50))
    ticker = spawner.AgentConfig(
        adapter="raw", program=str(compiled("ticker")), args=(count, "20000")
    )
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            late.append(time.perf_counter() - began - 0.005)

    async with supervisor(max(agents, 1)) as sup:
        seen = 0
        merged = sup.events()
        for _ in range(agents):
            await sup.spawn(ticker)
        ticking = asyncio.create_task(tick())
        if agents:
            began = time.monotonic()
            async for _ in merged:
                seen += 1
                if time.monotonic() - began > seconds * 0.8:
                    break
        else:
            await asyncio.sleep(seconds)
        ticking.cancel()
    late.sort()
    return {"p99_ms": late[len(late) * 99 // 100] * 1e3, "seen": seen}


MEASURES: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
    "memory_ours": memory_ours,
    "memory_plain": memory_plain,
    "memory_sdk": memory_sdk,
    "stopped": stopped,
    "stall": stall,
}


def apart(name: str, *words: object) -> dict[str, float]:
    """One measurement in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.standing", "--measure", name, *map(str, words)]
    answer = subprocess.run(
        line, check=True, stdout=subprocess.PIPE, text=True, cwd=PEERS.parent.parent
    )
    found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return found


def verdict(kept: bool) -> str:
    return "ok" if kept else "MISSED"


def p6(smoke: bool) -> None:
    """Memory per live agent."""
    number = 20 if smoke else 1000
    ours, plain = apart("memory_ours", number), apart("memory_plain", number)
    sdk = apart("memory_sdk", min(number, 200))
    added = ours["machine"] - plain["machine"]
    print(f"\nP6 - memory per live session, {number} of them")
    print(f"  host: {ours['host'] / 1024:.1f} KiB, official SDK {sdk['host'] / 1024:.1f} KiB")
    print(f"  target host <= 22 KiB: {verdict(ours['host'] <= 22 * 1024)}")
    print(
        f"  machine: {ours['machine'] / 1024:.0f} KiB, the programs alone "
        f"{plain['machine'] / 1024:.0f} KiB: we add {added / 1024:.0f} KiB"
    )
    print(f"  target added <= 128 KiB: {verdict(added <= 128 * 1024)}")


def p9(smoke: bool) -> None:
    """A consumer that stops reading."""
    megabytes = 32 if smoke else 256
    print(f"\nP9 - a consumer that stops reading {megabytes} MiB")
    for overflow in ("spill", "drop_oldest", "block"):
        found = apart("stopped", overflow, megabytes)
        kept = found["peak_mib"] <= 24 and found["lag_beside_ms"] <= found["lag_alone_ms"] + 2
        print(
            f"  {overflow:<12} host grows by at most {found['peak_mib']:.1f} MiB; another agent's "
            f"lag {found['lag_beside_ms']:.2f} ms, alone {found['lag_alone_ms']:.2f} ms: "
            f"{verdict(kept)}"
        )


def p10(smoke: bool) -> None:
    """The stall that we cause in the event loop."""
    agents, seconds = (10, 2.0) if smoke else (200, 10.0)
    idle, busy = apart("stall", 0, seconds), apart("stall", agents, seconds)
    print(f"\nP10 - lateness of a 5 ms timer, {agents} agents at 50 events/s each")
    print(f"  idle p99 {idle['p99_ms']:.2f} ms, busy p99 {busy['p99_ms']:.2f} ms", end="")
    print(f", {busy['seen']:.0f} events seen", end="")
    print(f"; target idle + 2 ms: {verdict(busy['p99_ms'] <= idle['p99_ms'] + 2)}")


ROWS = {"P6": p6, "P9": p9, "P10": p10}


def main() -> None:
    """Print the rows, or one measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", nargs="*", help="which rows; default: all")
    parser.add_argument("--smoke", action="store_true", help="small: does it work at all")
    parser.add_argument("--measure", action="store_true", help="one measurement and its numbers")
    arguments = parser.parse_args()
    if arguments.measure:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        name, *words = arguments.keys
        numbers = [word if word.isalpha() or "_" in word else float(word) for word in words]
        whole = [int(n) if isinstance(n, float) and n.is_integer() else n for n in numbers]
        print(json.dumps(asyncio.run(_run(name, whole))))
        return
    if unknown := sorted(set(arguments.keys) - ROWS.keys()):
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(ROWS)}")
    for key, row in ROWS.items():
        if not arguments.keys or key in arguments.keys:
            row(arguments.smoke)


async def _run(name: str, words: list[object]) -> dict[str, float]:
    return await MEASURES[name](*words)


if __name__ == "__main__":
    main()
