"""Responsible for what is left for one more agent: memory, file descriptors, processes.

The limits of the host's own cgroup and of those above it count as the machine's do: a host in a
container has what its container has. Everything here is None where the system does not tell.
"""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from vespera_agent_spawner import _kernel_files as kernel_files

__all__ = ["free_descriptors", "free_memory", "free_processes", "total_memory"]


def free_memory() -> int | None:
    """Bytes that can be had without swapping."""
    known = [free for free in (_available(), *_free_in_cgroups()) if free is not None]
    return min(known, default=None)


def total_memory() -> int | None:
    """Bytes that can be had when nobody else has any."""
    known = [_named("/proc/meminfo", "MemTotal:", 1024), *map(_limit_of, _cgroups(os.getpid()))]
    return min((total for total in known if total is not None), default=None)


def free_descriptors() -> int | None:
    """Descriptors that this process may still open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = kernel_files.count("/proc/self/fd")
    return None if used is None else soft - used


def free_processes() -> tuple[int, str] | None:
    """Processes and threads that may still be started, and the limit that says so."""
    found = [limit for limit in (_free_by_rlimit(), *_free_by_pids()) if limit is not None]
    return min(found, default=None)


def _available() -> int | None:
    return _named("/proc/meminfo", "MemAvailable:", 1024)


def _free_in_cgroups() -> Iterator[int | None]:
    for group in _cgroups(os.getpid()):
        limit = _limit_of(group)
        used = _number(group / "memory.current")
        if limit is not None and used is not None:
            # Cached files are given up before anybody is killed.
            yield max(0, limit - used + _cached(group))


def _limit_of(group: Path) -> int | None:
    limits = [_number(group / name) for name in ("memory.max", "memory.high")]
    return min((limit for limit in limits if limit is not None), default=None)


def _cached(group: Path) -> int:
    return _named(group / "memory.stat", "inactive_file ", 1) or 0


def _free_by_pids() -> Iterator[tuple[int, str] | None]:
    for group in _cgroups(os.getpid()):
        limit, used = _number(group / "pids.max"), _number(group / "pids.current")
        if limit is not None and used is not None:
            yield limit - used, f"pids.max={limit} of {group}"


def _free_by_rlimit() -> tuple[int, str] | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    # The kernel asks nothing of root.
    if soft == resource.RLIM_INFINITY or os.getuid() == 0:
        return None
    try:
        # All of the machine: where that is little, nobody needs to be counted.
        everybody = int(kernel_files.text("/proc/loadavg").split()[3].partition("/")[2])
    except (ValueError, IndexError):
        return None
    used = everybody if everybody < soft // 2 else _threads_of(os.getuid())
    return soft - used, f"ulimit -u {soft}"


def _threads_of(user: int) -> int:
    count = 0
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is slower
        if not name.isdigit():
            continue
        try:
            process = Path("/proc", name)
            if process.stat().st_uid == user:
                text = (process / "stat").read_bytes()
                # Threads are field 20; the name in field 2 may hold spaces and parentheses.
                count += int(text[text.rfind(b")") + 2 :].split()[17])
        except (OSError, ValueError, IndexError):
            continue
    return count


def _number(file: Path) -> int | None:
    """A file that holds a number; None for "max" and for one that is not there."""
    try:
        return int(kernel_files.text(file))
    except ValueError:
        return None


def _named(file: str | Path, start: str, unit: int) -> int | None:
    """The number of the line that starts so, times ``unit``."""
    for line in kernel_files.text(file).splitlines():
        if line.startswith(start):
            try:
                return int(line.split()[1]) * unit
            except (ValueError, IndexError):
                return None
    return None


@functools.cache
def _cgroups(process: int) -> tuple[Path, ...]:
    """The cgroup2 of a process and those above it, as far as they can be seen (cgroups(7))."""
    try:
        mounts = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
        groups = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    except OSError:
        return ()
    mount = next(
        (
            line.split(" - ")[0].split(" ")[4]
            for line in mounts
            if line.partition(" - ")[2].startswith("cgroup2 ")
        ),
        None,
    )
    own = next((line.removeprefix("0::") for line in groups if line.startswith("0::")), None)
    if mount is None or own is None:
        return ()
    root = Path(mount)
    group = Path(os.path.normpath(root / own.lstrip("/")))
    return tuple(place for place in (group, *group.parents) if place.is_relative_to(root))
