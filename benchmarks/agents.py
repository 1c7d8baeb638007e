"""Responsible for the works of agents: starting, streaming, beside everybody else in one run.

`python -m benchmarks.agents [P1 P2 P3 P4 …] [--rounds N] [--smoke] [--json FILE]`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from benchmarks import command
from benchmarks.accounting import Cost
from benchmarks.command import Options
from benchmarks.contestants import measure
from benchmarks.rounds import CPU, RATE, STREAM, Target, Work, play, row
from benchmarks.table import Row


def by(kind: str, *names: str, busy: bool = False) -> Mapping[str, Callable[[int], Cost]]:
    """Contestants by name, each in a process of its own."""

    def one(name: str) -> Callable[[int], Cost]:
        return lambda count: measure(name, kind, count, busy=busy)

    return {name: one(name) for name in names}


WORKS = (
    Work(
        "P1",
        "start + exit of a static no-op, idle host",
        "starts",
        by("noop", "floor", "asyncio", "uvloop", "threads", "python", "rust"),
        1_000,
        (
            Target("rust", "floor", RATE, 0.8),
            Target("rust", "asyncio", RATE, 1.5),
            Target("python", "asyncio", RATE, 1 / 1.2),
        ),
    ),
    Work(
        "P2",
        "the same while a Python thread of the host computes",
        "starts",
        by("noop", "floor", "asyncio", "python", "rust", busy=True),
        400,
        # docs/decisions/0023: 30 is about all that the floor has.
        (Target("rust", "floor", RATE, 0.7), Target("rust", "asyncio", RATE, 12)),
    ),
    Work(
        "P3",
        "one session of one turn: spawn, initialize, 10 messages, exit",
        "sessions",
        by("session", "floor", "asyncio", "sdk", "python", "rust"),
        # Two hundred are over in a tenth of a second, a third of which makes leashes.
        2_000,
        (
            # docs/decisions/0023: 4 is about all that the floor has.
            Target("rust", "floor", RATE, 0.8),
            Target("rust", "sdk", RATE, 3.2),
            Target("rust", "sdk", CPU, 1 / 5),
            Target("python", "asyncio", RATE, 1 / 1.2),
        ),
    ),
    Work(
        "P3h",
        "the session of P3 with a hook and a reader of the metrics, and with the hook called",
        "sessions",
        by("session", "rust", "rust, observed", "rust, hook called"),
        1_000,
        (Target("rust, observed", "rust", RATE, 0.95),),
    ),
    Work(
        "P3s",
        "the session of P3 by the official SDK, on its own transport and on ours",
        "sessions",
        by("session", "sdk", "sdk-on-python", "sdk-on-rust"),
        1_000,
        (Target("sdk-on-rust", "sdk", RATE, 1.5),),
    ),
    Work(
        "P4",
        "events of 450 bytes to an `async for` consumer that reads kind and text",
        "events",
        by("events", "asyncio", "sdk", "python", "rust"),
        50_000,
        (
            Target("rust", "sdk", CPU, 0.10),
            Target("rust", "asyncio", CPU, 0.30),
            Target("python", "asyncio", CPU, 1.2),
        ),
    ),
    Work(
        "P4-busy",
        "the same while a Python thread of the host computes",
        "events",
        by("events", "asyncio", "sdk", "python", "rust", busy=True),
        50_000,
        (Target("rust", "asyncio", RATE, 4),),
    ),
    Work(
        "P5",
        "event.data of 450 bytes, beside a loop over orjson.loads",
        "events",
        by("data", "orjson", "data"),
        50_000,
        (Target("data", "orjson", RATE, 0.95),),
    ),
    Work(
        "P4b",
        "events of 64 KiB that nobody touches",
        "events",
        by("big-events", "asyncio", "rust"),
        10_000,
        (Target("rust", "", STREAM, 1),),
        bytes_each=65_536,
    ),
)


def rows(options: Options) -> Iterator[Row]:
    """The works that are wanted."""
    for work in WORKS:
        if options.wanted(work.key):
            count = max(16, work.count // 20) if options.smoke else None
            yield row(play(work, options.rounds, count))


GROUP = command.Group(rows, tuple(work.key for work in WORKS))

if __name__ == "__main__":
    command.alone("agents", __doc__, GROUP)
