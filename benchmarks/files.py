"""Responsible for the table of file operations: ours beside the peers, in interleaved rounds.

`python -m benchmarks.files` prints it. A figure is the median over the rounds of the peer's seconds
divided by ours, so above 1 is faster than the peer; the last rows are figures that have no peer.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from . import file_work as work

Times = dict[str, list[float]]


def interleaved(contestants: dict[str, work.Round], rounds: int) -> Times:
    """Seconds of each in every round, after one round that is not measured."""
    for run in contestants.values():
        run()
    found: Times = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            found[name].append(run())
    return found


def ratio(times: Times, name: str) -> list[float]:
    """The first one's seconds over those of `name`, in each round, sorted."""
    base = next(iter(times.values()))
    return sorted(peer / ours for peer, ours in zip(base, times[name], strict=True))


def report(title: str, target: str, times: Times) -> None:
    """Print one block of the table."""
    for name, seconds in times.items():
        ratios = ratio(times, name)
        spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        figure = statistics.median(ratios)
        micros = statistics.median(seconds) * 1e6
        goal = target if name == "rust" else ""
        print(f"{title:<30}{name:<15}{micros:>12.1f}{figure:>8.2f}{spread:>12}  {goal}")


def tables(smoke: bool, rounds: int) -> None:
    """Every figure, in the order of the design page."""
    large = work.MEGABYTE * (1 if smoke else 10)
    times = 2 if smoke else 5
    for place in ("memory", "disk"):
        with work.folder(place) as folder:
            path = folder / "f"
            report(
                f"F3 edit, {place}", ">= 0.77", interleaved(work.edits(path, large, times), rounds)
            )
            found = interleaved(work.multi_edits(path, large, times), rounds)
            report(f"F3 four edits, {place}", ">= 0.77", found)
    with work.folder("memory") as folder:
        path = folder / "f"
        few, many = (200, 20) if smoke else (5000, 100)
        report("F4 read 4 KB", ">= 1.30", interleaved(work.reads(path, 4096, few), rounds))
        report("   read 10 MB", "", interleaved(work.reads(path, large, many), rounds))
    with work.folder("disk") as folder:
        path = folder / "f"
        size = work.MEGABYTE * (16 if smoke else 1000)
        for algorithm in ("blake3", "sha256"):
            title = f"F5 {algorithm} of {size // work.MEGABYTE} MB"
            try:
                found = interleaved(work.hashes(path, size, algorithm), rounds)
            except FileNotFoundError as error:
                print(f"{title:<30}{error}")
                continue
            report(title, ">= 0.95", found)
    # Forced to disk is what is promised; in memory the system calls stand alone.
    for place, target, few in (("disk", ">= 0.95", 20), ("memory", "", 500)):
        with work.folder(place) as folder:
            found = interleaved(work.writes(folder / "f", 4096, 5 if smoke else few), rounds)
            report(f"F6 atomic write 4 KB, {place}", target, found)
    with work.folder("memory") as folder:
        memory(folder, large)
        growth(folder, smoke, rounds)


def memory(folder: Path, size: int) -> None:
    """Peak memory of an edit."""
    for title, many in (("F3 peak memory, edit", False), ("F3 peak memory, three edits", True)):
        figure = work.edit_peak(folder / "f", size, many)
        print(f"{title:<30}{'rust':<15}{'':>12}{figure:>8.2f}{'':>12}  <= 2.20 x the file")


def growth(folder: Path, smoke: bool, rounds: int) -> None:
    """Cost per byte at the largest size over that at the middle one: 1 is linear."""
    path = folder / "f"
    top = 6 if smoke else 8
    sizes = {f"edit, 10^{n} bytes": (10**n, 80) for n in (top - 1, top)}
    lines = {f"edit, lines of 10^{n}": (10**top, 10**n) for n in (top // 2, top - 1)}
    for title, pair in (("growth by file size", sizes), ("growth by line length", lines)):
        runs = [
            [work.edits(path, size, 1, line)["rust"]() / size for _ in range(max(3, rounds // 2))]
            for size, line in pair.values()
        ]
        figure = statistics.median(runs[1]) / statistics.median(runs[0])
        print(f"{title:<30}{'rust':<15}{'':>12}{figure:>8.2f}{'':>12}  <= 1.30 per byte")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="2 small rounds: does it work at all")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    head = f"{'work':<30}{'who':<15}{'us':>12}{'x peer':>8}{'spread':>12}  target"
    print(f"{head}\n{'-' * len(head)}")
    tables(arguments.smoke, 2 if arguments.smoke else arguments.rounds)
    print("x peer: the first row's time over this one's, median of the rounds; above 1 is faster")


if __name__ == "__main__":
    main()
