"""Responsible for what a piece of work costs: wall clock, and the CPU time of all that it started.

The CPU time is that of a control group which holds a process and all that it starts, guardian
and leashes included, less what the agents themselves used. Without a writable cgroup2 only the
process's own time is known, and the sample says so.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

GROUP = "VESPERA_BENCH_CGROUP"
MEMORY = "VESPERA_BENCH_MEMORY"


@dataclass
class Cost:
    """Seconds; ``agents`` is filled in by whoever knows what the agents used."""

    wall: float = 0.0
    cpu: float = 0.0
    agents: float = 0.0
    whole: bool = False

    @property
    def ours(self) -> float:
        """CPU seconds of everything but the agents."""
        return self.cpu - self.agents if self.whole else self.cpu


@contextlib.contextmanager
def group() -> Iterator[dict[str, str]]:
    """Control groups for one child; what its environment must hold so that it can `enter`."""
    roots = {GROUP: _cgroup2(), MEMORY: _memory()}
    with contextlib.ExitStack() as stack:
        # One root may serve for both, and a process is in one folder of it.
        made = {root: stack.enter_context(_folder(root)) for root in {*roots.values()}}
        places = {name: made[root] for name, root in roots.items()}
        yield {name: str(place) for name, place in places.items() if place is not None}


@contextlib.contextmanager
def _folder(root: Path | None) -> Iterator[Path | None]:
    place = root / f"vespera-bench-{os.getpid()}-{time.monotonic_ns()}" if root else None
    try:
        if place is not None:
            place.mkdir()
    except OSError:
        place = None
    try:
        yield place
    finally:
        if place is not None:
            # A guardian ends a moment after its host.
            deadline = time.monotonic() + 10
            while (place / "cgroup.procs").read_text() and time.monotonic() < deadline:
                time.sleep(0.01)
            place.rmdir()


def enter() -> None:
    """Move this process into the groups that its parent made for it, if it did."""
    global _entered, _charged
    _entered, _charged = _entered_as(GROUP), _entered_as(MEMORY)


def _entered_as(name: str) -> Path | None:
    place = os.environ.pop(name, None)
    if place is None:
        return None
    (Path(place) / "cgroup.procs").write_text("0")
    return Path(place)


def charged() -> int | None:
    """Bytes that the group's processes have of the machine, the kernel's for them included; None
    where no group could be made."""
    if _charged is None:
        return None
    counters = (_charged / name for name in ("memory.current", "memory.usage_in_bytes"))
    return next(int(counter.read_text()) for counter in counters if counter.exists())


_entered: Path | None = None
_charged: Path | None = None


@contextlib.contextmanager
def counted() -> Iterator[Cost]:
    """Measure the body; the cost is whole once the block is left."""
    cost = Cost()
    before, began = _cpu(), time.perf_counter()
    yield cost
    cost.wall = time.perf_counter() - began
    cost.cpu = _cpu() - before
    cost.whole = _entered is not None


def children_cpu() -> float:
    """CPU seconds of the children that this process has reaped."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cgroup2() -> Path | None:
    """Where cgroup2 is mounted: at the usual place, or beside the old kind."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


def _memory() -> Path | None:
    """Where memory is accounted: in a hierarchy of its own, or in cgroup2."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "memory" in options.split(","):
            return Path(place)
    root = _cgroup2()
    handed = root is not None and "memory" in (root / "cgroup.subtree_control").read_text().split()
    return root if handed else None


def _cpu() -> float:
    if _entered is None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime
    name, value = (_entered / "cpu.stat").read_text().split(maxsplit=2)[:2]
    assert name == "usage_usec"
    return int(value) / 1e6
