"""Responsible for one contestant doing one piece of work once, in a process of its own.

`python -m benchmarks.contestants WHO WORK COUNT [busy]` prints what it cost as JSON: `wall` and
`cpu` seconds, `agents` (CPU seconds of the agents, included in `cpu`), `whole` (see accounting).
A process each, because a peer's threads, loop and warm caches are not the next one's business.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from benchmarks import work
from benchmarks.accounting import Cost, children_cpu, counted, enter, group
from benchmarks.peers import asyncio_reference, plain_threads
from benchmarks.programs import PEERS, compiled

WIDTH = work.WIDTH

# name of the work -> (program, turns of a session; -1: it only starts and ends)
SESSIONS = {"noop": ("noop", -1), "session": ("instant_cli", 1)}


# name of the work -> bytes of an event, and whether the consumer looks at it
EVENTS = {"events": (450, True), "big-events": (65_536, False)}


def floor(kind: str, count: int) -> Cost:
    """Nothing but system calls, in C; it measures itself."""
    program, turns = SESSIONS[kind]
    line = [str(compiled("floor")), str(compiled(program)), str(count), str(WIDTH), str(turns)]
    answer = subprocess.run(line, check=True, capture_output=True, text=True).stdout
    wall, own = map(float, answer.split())
    return Cost(wall=wall, cpu=own, whole=True)


def talk(messages: int, size: int) -> dict[str, str]:
    """The environment in which the instant CLI answers so much."""
    return {"INSTANT_MESSAGES": str(messages), "INSTANT_BYTES": str(size)}


def children_counted(do: Callable[[], object]) -> Cost:
    """For hosts whose only children are the agents, all reaped by the end."""
    before = children_cpu()
    with counted() as cost:
        do()
    cost.agents = children_cpu() - before
    return cost


def on_loop(do: Callable[[], Awaitable[object]], *, uvloop: bool = False) -> Cost:
    """The same for asyncio programs."""

    async def main() -> None:
        await do()

    if uvloop:
        import uvloop as fast

        return children_counted(lambda: fast.run(main()))
    return children_counted(lambda: asyncio.run(main()))


def asyncio_peer(kind: str, count: int, *, uvloop: bool = False) -> Cost:
    """What a careful engineer writes with asyncio."""
    if kind in EVENTS:
        size, touched = EVENTS[kind]
        program = str(compiled("instant_cli"))
        return on_loop(
            lambda: asyncio_reference.listen(program, talk(count, size), touched), uvloop=uvloop
        )
    program, turns = SESSIONS[kind]
    do = functools.partial(asyncio_reference.sessions, str(compiled(program)), count, WIDTH, turns)
    return on_loop(do, uvloop=uvloop)


def threads_peer(kind: str, count: int) -> Cost:
    """A pool of threads, each in `subprocess.run`."""
    program, turns = SESSIONS[kind]
    assert turns == -1, "threads only start and end programs"
    return children_counted(lambda: plain_threads.runs(str(compiled(program)), count, WIDTH))


def sdk_peer(kind: str, count: int) -> Cost:
    """The official SDK; its import, most of a second, is not its sessions' cost."""
    import claude_agent_sdk  # noqa: F401

    from benchmarks.peers import official_sdk

    program = str(compiled("instant_cli"))
    if kind in EVENTS:
        return on_loop(lambda: official_sdk.listen(program, talk(count, EVENTS[kind][0])))
    return on_loop(lambda: official_sdk.sessions(program, count, WIDTH))


def sdk_on(impl: work.Impl, kind: str, count: int) -> Cost:
    """The official SDK on our transport, by a backend of ours."""
    from benchmarks.peers import official_sdk

    assert kind == "session", "the SDK has sessions only"
    program = str(compiled("instant_cli"))

    return fleet_counted(
        impl, lambda number: work.sdk_sessions(official_sdk.sessions, program, impl, number), count
    )


def fleet_counted(
    impl: work.Impl, run: Callable[[int], Coroutine[Any, Any, float]], count: int
) -> Cost:
    """A fleet of so many; ``run`` gives the CPU seconds that its agents used."""
    asyncio.run(run(2))  # the guardian is started once
    before = children_cpu()
    with counted() as cost:
        used = asyncio.run(run(count))
    # The leash tells what its tree used; children of the Python backend are our own.
    cost.agents = used if impl == "rust" else children_cpu() - before
    return cost


def ours(impl: work.Impl, kind: str, count: int) -> Cost:
    """A backend of ours, through the Supervisor."""
    if kind in EVENTS:
        size, touched = EVENTS[kind]
        asyncio.run(work.listen(compiled("instant_cli"), impl, talk(1, size), touched))
        with counted() as cost:
            cost.agents = asyncio.run(
                work.listen(compiled("instant_cli"), impl, talk(count, size), touched)
            )
        return cost
    program, turns = SESSIONS[kind]
    path = compiled(program)
    return fleet_counted(impl, lambda number: work.fleet(path, impl, number, turns), count)


def observed(impl: work.Impl, calls: int, kind: str, count: int) -> Cost:
    """A backend of ours with a hook, which is called so often in each session, and with a reader
    of its metrics."""
    assert kind == "session", "hooks are of sessions"
    path = compiled("instant_cli")
    return fleet_counted(impl, lambda number: work.observed_fleet(path, impl, number, calls), count)


def data(who: str, kind: str, count: int) -> Cost:
    """The whole frame as a dict, of events that are there already; a loop over the raw lines with
    orjson alone is what it is compared with."""
    import orjson  # type: ignore[import-not-found, unused-ignore]

    assert kind == "data"
    events = asyncio.run(work.collect(compiled("instant_cli"), talk(count, 450)))
    raws = [event.raw for event in events]
    gc.disable()  # so many living dicts would be walked again and again, in either loop
    if who == "event":
        with counted() as cost:
            kept = [event.data for event in events]
        assert len(kept) >= count
        return cost
    decode = orjson.loads
    with counted() as cost:
        kept = [decode(raw) for raw in raws]
    assert len(kept) >= count
    return cost


CONTESTANTS: dict[str, Callable[[str, int], Cost]] = {
    "floor": floor,
    "asyncio": asyncio_peer,
    "uvloop": functools.partial(asyncio_peer, uvloop=True),
    "threads": threads_peer,
    "sdk": sdk_peer,
    "sdk-on-rust": functools.partial(sdk_on, "rust"),
    "sdk-on-python": functools.partial(sdk_on, "python"),
    "rust": functools.partial(ours, "rust"),
    "python": functools.partial(ours, "python"),
    "rust, observed": functools.partial(observed, "rust", 0),
    "rust, hook called": functools.partial(observed, "rust", 1),
    "orjson": functools.partial(data, "decoder"),
    "data": functools.partial(data, "event"),
}

# Beside a program that is not Python, the same load is a process.
COMPUTE = [sys.executable, "-c", "while True: pass"]


def measure(who: str, kind: str, count: int, *, busy: bool = False) -> Cost:
    """Run one contestant once in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.contestants", who, kind, str(count)]
    beside = subprocess.Popen(COMPUTE) if busy and who == "floor" else None
    try:
        line += ["busy"] if busy and beside is None else []
        with group() as environment:
            answer = subprocess.run(
                line,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                cwd=PEERS.parent.parent,
                env={**os.environ, **environment},
            )
    finally:
        if beside is not None:
            beside.kill()
            beside.wait()
    return Cost(**json.loads(answer.stdout.splitlines()[-1]))


def main() -> None:
    """Measure and print."""
    who, kind, count, *rest = sys.argv[1:]
    enter()
    os.environ.setdefault("CLAUDE_AGENT_SDK_SKIP_VERSION_CHECK", "1")
    with work.computing("busy" in rest):
        cost = CONTESTANTS[who](kind, int(count))
    print(json.dumps(dataclasses.asdict(cost)))


if __name__ == "__main__":
    main()
