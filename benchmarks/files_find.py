"""Responsible for the works of finding: searching and walking, beside ripgrep, fd and the rest.

`python -m benchmarks.files_find [F1 F2 …] [--rounds N] [--smoke] [--json FILE]`. A ratio is a
peer's time over that of the Rust backend in the same round: above 1 ours is faster. The CPU time
beside it is what a machine that others use disturbs less.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import command, finding, trees
from benchmarks.accounting import Cost
from benchmarks.command import Options
from benchmarks.rounds import RATE, Target, Work, figure, play, row
from benchmarks.table import Row, Shown

# Key, name of the work in `finding`, and what is promised against whom.
SEARCHES = {
    "F1": ("search, literal", (("ripgrep", 0.9), ("python", 2.0))),
    "F1-regex": ("search, regex", (("ripgrep", 0.9),)),
    "F1-many": ("search, many matches", (("ripgrep", 0.9),)),
}
WALKS = {
    "F2": ("glob *.py", (("fd", 0.9), ("pathlib", 5.0), ("os.walk", 1.5))),
    "F2-walk": ("walk", (("fd", 0.9), ("os.walk", 1.5))),
}


def contestant(work: finding.Work, root: Path) -> Callable[[int], Cost]:
    """Its results are consumed; CPU is that of this process and of the program it starts."""

    def once(count: int) -> Cost:
        samples = [finding.measure(work, root) for _ in range(count)]
        wall, cpu = (sum(getattr(s, name) for s in samples) for name in ("wall", "cpu"))
        return Cost(wall=wall, cpu=cpu, whole=True)

    return once


def works(options: Options) -> Iterator[Work]:
    """The works that are wanted, each by everybody who is installed here."""
    sizes = (500, 5000) if options.smoke else (5000, 100_000)
    for kinds, known, made, size, noun in (
        (SEARCHES, finding.SEARCHES, trees.sources, sizes[0], "small files"),
        (WALKS, finding.WALKS, trees.names, sizes[1], "files, .gitignore honoured"),
    ):
        for key, (name, promised) in kinds.items():
            if not options.wanted(key):
                continue
            root = made(size)
            given = {
                who: contestant(work, root)
                for who, work in known[name].items()
                if who not in finding.PEERS or finding.installed(finding.PEERS[who])
            }
            targets = tuple(Target("rust", who, RATE, least) for who, least in promised)
            yield Work(key, f"{name}, {size:,} {noun}", "calls", given, 1, targets)


def rows(options: Options) -> Iterator[Row]:
    """The works that are wanted, then what a walk costs in a tree ten and a hundred times
    larger."""
    for work in works(options):
        yield row(play(work, options.rounds))
    if options.wanted("F2-growth"):
        sizes = (1000, 10_000) if options.smoke else (10_000, 1_000_000)
        yield growth(1 if options.smoke else 3, sizes)


# MiB: results that wait for the consumer, 4 at most, and the names of directories on the way.
MOST_MEMORY = 8
# Peak memory is that of a process, so each size has its own. Not `ru_maxrss`: a child starts at the
# peak of the process that forked it.
GROWN = """
import re, resource, sys, time
from pathlib import Path
from vespera_file_ops.backends import python, rust

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

backend = {"rust": rust, "python": python}[sys.argv[2]]
Path("/proc/self/clear_refs").write_text("5")  # the peak is what is used now
memory = peak()
before = resource.getrusage(resource.RUSAGE_SELF)
began = time.perf_counter()
number = sum(1 for _ in backend.walk(sys.argv[1], gitignore=True))
wall = time.perf_counter() - began
after = resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(number, wall, cpu, peak() - memory)
"""


def growth(rounds: int, sizes: Sequence[int]) -> Row:
    """CPU per file and peak memory, small tree and large: memory must not grow with the tree."""
    small, large = (trees.names(size) for size in sizes)
    samples = [(grown(small, "rust"), grown(large, "rust")) for _ in range(rounds)]
    ratios = [(big[2] / big[0]) / (few[2] / few[0]) for few, big in samples]
    verdict = figure("CPU per file, large / small", ratios, 1.3, "x per file")
    peaks = [big[3] for _, big in samples]
    bounded = figure("peak memory of the large walk", peaks, MOST_MEMORY, "MiB")
    title = f"walk of {sizes[1]:,} files beside {sizes[0]:,}, in bounded memory"
    said = (
        f"{statistics.median(peaks):.1f} MiB at the peak of the large one, beyond the interpreter's"
    )
    return Row("F2-growth", title, rounds, [Shown("rust", "rust", said)], [verdict, bounded])


def grown(root: Path, who: str) -> list[float]:
    """Walk in a process of its own."""
    command = [sys.executable, "-c", GROWN, str(root), who]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(text) for text in answer.split()]


GROUP = command.Group(rows, (*SEARCHES, *WALKS, "F2-growth"))

if __name__ == "__main__":
    command.alone("files_find", __doc__, GROUP)
