"""Responsible for the table of finding: `python -m benchmarks.files_find`.

A ratio is a peer's time over that of the Rust backend in the same round: above 1 ours is faster.
The table shows the median of the rounds and its spread, for wall clock and for CPU (which a machine
that others use disturbs less). `--growth` walks trees of 10,000 and 1,000,000 files instead.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import finding, trees
from benchmarks.finding import Sample


def report(task: str, found: dict[str, list[Sample]]) -> None:
    """Print one block."""
    ours = found["rust"]
    for name, samples in found.items():
        wall = sorted(s.wall / o.wall for s, o in zip(samples, ours, strict=True))
        cpu = statistics.median(
            s.cpu / max(o.cpu, 0.001) for s, o in zip(samples, ours, strict=True)
        )
        milliseconds = statistics.median(s.wall for s in samples) * 1000
        print(
            f"{task:<22}{name:<9}{samples[0].results:>9}{milliseconds:>10.1f}"
            f"{statistics.median(wall):>8.2f}{f'{wall[0]:.2f}-{wall[-1]:.2f}':>14}{cpu:>8.2f}"
        )


def table(rounds: int, small: bool) -> None:
    """Every work by everybody."""
    head = f"{'work':<22}{'who':<9}{'results':>9}{'ms':>10}{'wall x':>8}{'spread':>14}{'CPU x':>8}"
    print(f"{head}\n{'-' * len(head)}")
    sources = trees.sources(500 if small else 5000)
    for task, works in finding.SEARCHES.items():
        report(task, finding.ratios(works, sources, rounds))
    names = trees.names(5000 if small else 100_000)
    for task, works in finding.WALKS.items():
        report(task, finding.ratios(works, names, rounds))


# Peak memory is that of a process, so each size has its own.
GROWN = """
import resource, sys, time
from pathlib import Path
from vespera_file_ops.backends import python, rust
backend = {"rust": rust, "python": python}[sys.argv[2]]
before = resource.getrusage(resource.RUSAGE_SELF)
began = time.perf_counter()
number = sum(1 for _ in backend.walk(sys.argv[1], gitignore=True))
wall = time.perf_counter() - began
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(number, wall, cpu, (after.ru_maxrss - before.ru_maxrss) / 1024)
"""


def growth(rounds: int, sizes: tuple[int, ...]) -> None:
    """Cost per file and peak memory, small tree and large."""
    roots = [trees.names(size) for size in sizes]
    print(f"{'walk of':>10}{'who':>8}{'us/file':>10}{'CPU us/file':>13}{'MiB more':>10}")
    for who in ("rust", "python"):
        for root in roots:
            samples = [grown(root, who) for _ in range(rounds)]
            number = samples[0][0]
            wall, cpu, memory = (statistics.median(s[i] for s in samples) for i in (1, 2, 3))
            print(
                f"{int(number):>10}{who:>8}{wall / number * 1e6:>10.2f}"
                f"{cpu / number * 1e6:>13.2f}{memory:>10.1f}"
            )


def grown(root: Path, who: str) -> list[float]:
    """Walk in a process of its own."""
    command = [sys.executable, "-c", GROWN, str(root), who]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(text) for text in answer.split()]


def refuse_debug() -> None:
    """A debug build measures nothing."""
    from vespera_file_ops.backends import rust

    profile = rust.build_info()["profile"]
    if profile != "release":
        sys.exit(f"the extension was built in profile {profile!r}; `nox -s bench` builds a release")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="2 small rounds: does it work at all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--growth", action="store_true", help="10,000 and 1,000,000 files")
    arguments = parser.parse_args()
    refuse_debug()
    if arguments.growth:
        growth(3, (10_000, 1_000_000))
        return
    try:
        print(f"{finding.version('rg')} · {finding.version('fd')}")
    except FileNotFoundError as error:
        sys.exit(str(error))
    table(2 if arguments.smoke else arguments.rounds, arguments.smoke)


if __name__ == "__main__":
    main()
