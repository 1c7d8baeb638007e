"""Responsible for the works of file operations: ours beside the peers, in interleaved rounds.

`python -m benchmarks.files [F3 …] [--rounds N] [--smoke] [--json FILE]`. A ratio is the peer's
seconds over ours, so above 1 is faster; memory and growth are figures that have no peer.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks import command
from benchmarks import file_work as work
from benchmarks.command import Options
from benchmarks.rounds import RATE, Target, Work, figure, play, row, timed
from benchmarks.table import Row, Shown

Times = dict[str, list[float]]


def interleaved(contestants: dict[str, work.Round], rounds: int) -> Times:
    """Seconds of each in every round, after one round that is not measured."""
    played = play(_work("", "", contestants), rounds)
    return {name: [cost.wall for cost in costs] for name, costs in played.costs.items()}


def ratio(times: Times, name: str) -> list[float]:
    """The first one's seconds over those of `name`, in each round, sorted."""
    base = next(iter(times.values()))
    return sorted(peer / ours for peer, ours in zip(base, times[name], strict=True))


def _work(
    key: str, title: str, contestants: dict[str, work.Round], least: float | None = None
) -> Work:
    """The first contestant is the one that the Rust backend is measured against."""
    against = next(iter(contestants))
    targets = () if least is None else (Target("rust", against, RATE, least),)
    given = {name: timed(seconds) for name, seconds in contestants.items()}
    return Work(key, title, "calls", given, 1, targets)


def rows(options: Options) -> Iterator[Row]:
    """The works that are wanted, in the order of the design page."""
    for each in (_edits, _reads, _hashes, _writes, _memory, _growth):
        yield from each(options)


def _edits(options: Options) -> Iterator[Row]:
    size = work.MEGABYTE * (1 if options.smoke else 10)
    times = 2 if options.smoke else 5
    megabytes = size // work.MEGABYTE
    for place in ("memory", "disk"):
        key = "F3" if place == "memory" else "F3-disk"
        if options.wanted(key):
            with work.folder(place) as folder:
                found = work.edits(folder / "f", size, times)
                title = f"one edit of {megabytes} MB, {place}"
                yield row(play(_work(key, title, found, 1 / 1.3), options.rounds))
        if options.wanted(f"{key}-multi"):
            with work.folder(place) as folder:
                found = work.multi_edits(folder / "f", size, times)
                title = f"four edits at once of {megabytes} MB, {place}"
                yield row(play(_work(f"{key}-multi", title, found, 1 / 1.3), options.rounds))


def _reads(options: Options) -> Iterator[Row]:
    few, many = (200, 20) if options.smoke else (5000, 100)
    with work.folder("memory") as folder:
        if options.wanted("F4"):
            found = work.reads(folder / "f", 4096, few)
            yield row(play(_work("F4", "read of 4 KB", found, 1.3), options.rounds))
        if options.wanted("F4-large"):
            found = work.reads(folder / "f", 10 * work.MEGABYTE, many)
            yield row(play(_work("F4-large", "read of 10 MB", found), options.rounds))


def _hashes(options: Options) -> Iterator[Row]:
    size = work.MEGABYTE * (16 if options.smoke else 1000)
    for algorithm in ("blake3", "sha256"):
        key = f"F5-{algorithm}"
        if not options.wanted(key):
            continue
        title = f"{algorithm} of {size // work.MEGABYTE} MB"
        with work.folder("disk") as folder:
            try:
                found = work.hashes(folder / "f", size, algorithm)
            except FileNotFoundError as error:
                yield Row(key, title, 0, [Shown("b3sum", "peer", f"missing: {error}")])
                continue
            yield row(play(_work(key, title, found, 0.95), options.rounds))


def _writes(options: Options) -> Iterator[Row]:
    # Forced to disk is what is promised; in memory the system calls stand alone.
    for key, place, least, times in (("F6", "disk", 0.95, 20), ("F6-memory", "memory", None, 500)):
        if options.wanted(key):
            with work.folder(place) as folder:
                found = work.writes(folder / "f", 4096, 5 if options.smoke else times)
                title = f"atomic write of 4 KB with fsync, {place}"
                yield row(play(_work(key, title, found, least), options.rounds))


def _memory(options: Options) -> Iterator[Row]:
    """Peak memory of an edit."""
    if not options.wanted("F3-peak"):
        return
    size = work.MEGABYTE * (1 if options.smoke else 10)
    with work.folder("memory") as folder:
        verdicts = []
        for what, many in (("one edit / file", False), ("three edits / file", True)):
            peaks = [work.edit_peak(folder / "f", size, many) for _ in range(options.rounds)]
            verdicts.append(figure(what, peaks, 2.2, "x the file's size"))
        yield Row("F3-peak", "most memory of an edit", options.rounds, [], verdicts)


def _growth(options: Options) -> Iterator[Row]:
    """Cost per byte at the largest size over that at the middle one: 1 is linear."""
    if not options.wanted("F3-growth"):
        return
    top = 6 if options.smoke else 8
    pairs = {
        f"10^{top} / 10^{top - 1} bytes": ((10 ** (top - 1), 80), (10**top, 80)),
        f"lines of 10^{top - 1} / 10^{top // 2}": (
            (10**top, 10 ** (top // 2)),
            (10**top, 10 ** (top - 1)),
        ),
    }
    verdicts = []
    with work.folder("memory") as folder:
        for what, (middle, largest) in pairs.items():
            grown = [
                _per_byte(folder / "f", largest) / _per_byte(folder / "f", middle)
                for _ in range(max(3, options.rounds // 2))
            ]
            verdicts.append(figure(what, grown, 1.3, "x per byte"))
    yield Row("F3-growth", "cost of an edit as it grows", options.rounds, [], verdicts)


def _per_byte(path: Path, shape: tuple[int, int]) -> float:
    size, line = shape
    edit = work.edits(path, size, 1, line)["rust"]
    return statistics.median(edit() for _ in range(3)) / size


GROUP = command.Group(
    rows,
    (
        *("F3", "F3-multi", "F3-disk", "F3-disk-multi", "F4", "F4-large", "F5-blake3"),
        *("F5-sha256", "F6", "F6-memory", "F3-peak", "F3-growth"),
    ),
)

if __name__ == "__main__":
    command.alone("files", __doc__, GROUP)
