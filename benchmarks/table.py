"""Responsible for the one table: every implementation in the same run, in interleaved rounds.

A machine's mood changes by the minute, so a figure is a ratio inside one round, and the table shows
the median ratio with its spread. CPU is that of the host process, its children not counted.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import work
from benchmarks.programs import PEERS, compiled

# Turns of a session, and whether a Python thread of the host computes meanwhile.
TASKS = {
    "spawn + exit": (0, False),
    "spawn + exit, busy": (0, True),
    "one-turn session": (1, False),
}

# Beside a program that is not Python, the same load is a process.
COMPUTE = [sys.executable, "-c", "while True: pass"]


@dataclass(frozen=True)
class Sample:
    """Seconds of wall clock and of host CPU per session."""

    wall: float
    cpu: float


Measure = Callable[[int, int, bool], Sample]


def peer(command: list[str]) -> Measure:
    """A peer is a program that prints wall and CPU seconds of `sessions` sessions."""
    is_python = command[0] == sys.executable

    def measure(sessions: int, turns: int, busy: bool) -> Sample:
        line = [*command, str(compiled("instant_cli")), str(sessions), str(work.WIDTH), str(turns)]
        beside = subprocess.Popen(COMPUTE) if busy and not is_python else None
        try:
            line += ["busy"] if busy and is_python else []
            answer = subprocess.run(line, check=True, capture_output=True, text=True).stdout
        finally:
            if beside is not None:
                beside.kill()
                beside.wait()
        wall, cpu = (float(text) / sessions for text in answer.split())
        return Sample(wall, cpu)

    return measure


def ours(impl: work.Impl, way: Callable[[Path, work.Impl, int, int], None]) -> Measure:
    """One of our backends, in this process, by one of its two faces."""

    def measure(sessions: int, turns: int, busy: bool) -> Sample:
        with work.computing(busy):
            before = resource.getrusage(resource.RUSAGE_SELF)
            began = time.perf_counter()
            way(compiled("instant_cli"), impl, sessions, turns)
            wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Sample(wall / sessions, cpu / sessions)

    return measure


def contestants() -> dict[str, Measure]:
    """The floor first: every ratio is to it."""
    return {
        "C posix_spawn (floor)": peer([str(compiled("floor"))]),
        "asyncio reference": peer([sys.executable, str(PEERS / "asyncio_reference.py")]),
        "rust, Supervisor": ours("rust", work.fleet),
        "rust, threads": ours("rust", work.sessions),
        "python, Supervisor": ours("python", work.fleet),
        "python, threads": ours("python", work.sessions),
    }


def rounds(turns: int, busy: bool, sessions: int, number: int) -> dict[str, list[Sample]]:
    """`number` interleaved rounds after one unmeasured round."""
    measures = contestants()
    found: dict[str, list[Sample]] = {name: [] for name in measures}
    for measure in measures.values():
        measure(min(sessions, work.WIDTH), turns, busy)
    for _ in range(number):
        for name, measure in measures.items():
            found[name].append(measure(sessions, turns, busy))
    return found


def report(task: str, found: dict[str, list[Sample]]) -> None:
    """Print one block of the table."""
    floor = next(iter(found.values()))
    for name, samples in found.items():
        ratios = sorted(f.wall / s.wall for f, s in zip(floor, samples, strict=True))
        rate = 1 / statistics.median(s.wall for s in samples)
        cpu = statistics.median(s.cpu for s in samples) * 1e6
        spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        ratio = statistics.median(ratios)
        print(f"{task:<18}{name:<24}{rate:>9.0f}{ratio:>9.2f}{spread:>12}{cpu:>10.0f}")


def refuse_debug() -> None:
    """A debug build measures nothing."""
    from vespera_agent_spawner import _native

    profile = _native.build_info()["profile"]
    if profile != "release":
        sys.exit(f"the extension was built in profile {profile!r}; `nox -s bench` builds a release")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="2 small rounds: does it work at all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sessions", type=int, default=200)
    arguments = parser.parse_args()
    refuse_debug()
    number, sessions = (2, 16) if arguments.smoke else (arguments.rounds, arguments.sessions)
    print(f"{number} interleaved rounds of {sessions} sessions, {work.WIDTH} at a time")
    head = f"{'work':<18}{'who':<24}{'sess./s':>9}{'x floor':>9}{'spread':>12}{'CPU us':>10}"
    print(f"{head}\n{'-' * len(head)}")
    for task, (turns, busy) in TASKS.items():
        # A busy asyncio takes so long that fewer have to do.
        part = max(work.WIDTH, sessions // 4) if busy else sessions
        report(task, rounds(turns, busy, part, number))
    print(
        "x floor: sessions/s over the floor's, median of the rounds and its spread; 1 is the floor"
    )


if __name__ == "__main__":
    main()
