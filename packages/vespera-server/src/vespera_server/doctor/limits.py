"""The limits that decide how many agents fit: descriptors, processes, inotify, pipes, memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from vespera_server.doctor.finding import Finding, Status

SECTION = "limits"

# Per Claude agent; measured with CLI 2.1.330, rounded up.
DESCRIPTORS_PER_AGENT = 8  # in the host: pipes, sockets, process handles
PIPES_PER_AGENT = 3
THREADS_PER_AGENT = 24  # RLIMIT_NPROC counts threads: 9 of the CLI, its tools and their shells
MEMORY_PER_AGENT = 512 * 2**20
COMFORTABLE = 16  # agents; below this a limit is worth a word

_PAGES_PER_PIPE = 16  # the kernel's default, 64 KiB


def check_limits() -> Iterator[Finding]:
    """Findings about the limits of this process, and how many agents each allows."""
    if sys.platform == "win32":
        yield Finding(SECTION, "limits", Status.NOTE, "not looked at: never run on this system")
        return
    yield _open_files()
    yield _processes()
    if sys.platform == "linux":
        yield from _inotify()
        yield _pipes()
        yield _memory()


def _open_files() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding(SECTION, "open files", Status.OK, "unlimited")
    fits = max(0, soft - 64) // DESCRIPTORS_PER_AGENT
    value = f"{soft} (hard {_number(hard)}): about {fits} agents"
    remedy = f"ulimit -n {65536 if hard < 0 else min(hard, 65536)}"
    return _judged("open files", fits, value, remedy)


def _processes() -> Finding:
    import resource

    name = "processes"
    if os.geteuid() == 0:
        limits = [_number_in("/sys/fs/cgroup/pids.max")]
    else:
        soft = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        limits = [None if soft < 0 else soft, _number_in("/sys/fs/cgroup/pids.max")]
    known = [limit for limit in limits if limit is not None]
    if not known:
        return Finding(SECTION, name, Status.OK, "unlimited")
    fits = min(known) // THREADS_PER_AGENT
    value = f"{min(known)} (threads count too): about {fits} agents"
    return _judged(name, fits, value, "raise 'ulimit -u', or pids.max of the container")


def _inotify() -> Iterator[Finding]:
    for name, per_agent in (("max_user_instances", 2), ("max_user_watches", 64)):
        found = _number_in(f"/proc/sys/fs/inotify/{name}")
        if found is None:
            continue
        fits = found // per_agent
        yield _judged(
            f"inotify {name}",
            fits,
            f"{found}: about {fits} agents that watch files",
            f"as root: sysctl fs.inotify.{name}={max(found * 4, 1024)}",
        )


def _pipes() -> Finding:
    name = "pipe-user-pages-soft"
    pages = _number_in("/proc/sys/fs/pipe-user-pages-soft")
    if pages in (None, 0) or os.geteuid() == 0:
        why = "not limited for root" if pages else "not limited"
        return Finding(SECTION, name, Status.OK, why)
    assert pages is not None
    pipes = pages // _PAGES_PER_PIPE
    fits = pipes // PIPES_PER_AGENT
    value = f"{pages}: beyond {pipes} pipes (about {fits} agents) a pipe holds 8 KiB, not 64"
    remedy = f"as root: sysctl fs.pipe-user-pages-soft={pages * 4}; it costs speed, not output"
    return _judged(name, fits, value, remedy)


def _memory() -> Finding:
    available = _available_memory()
    if available is None:
        return Finding(SECTION, "memory", Status.NOTE, "unknown: /proc/meminfo cannot be read")
    fits = available // MEMORY_PER_AGENT
    value = f"{available / 2**30:.1f} GiB available: about {fits} Claude agents at 512 MiB each"
    finding = _judged("memory", fits, value, "run fewer agents at once, or give it more memory")
    if fits < 1:
        return Finding(SECTION, "memory", Status.WARNING, value, finding.remedy)
    return finding


def _available_memory() -> int | None:
    """Bytes: what the kernel calls available, or less where a cgroup says less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration, ValueError):
        return None
    limit = _number_in("/sys/fs/cgroup/memory.max")
    used = _number_in("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used))
    return free


def _judged(name: str, fits: int, value: str, remedy: str) -> Finding:
    if fits < 4:
        return Finding(SECTION, name, Status.WARNING, value, remedy)
    if fits < COMFORTABLE:
        return Finding(SECTION, name, Status.NOTE, value, remedy)
    return Finding(SECTION, name, Status.OK, value)


def _number(limit: int) -> str:
    return "unlimited" if limit < 0 else str(limit)


def _number_in(path: str) -> int | None:
    """The number in a kernel file; None for "max", or when there is no such file."""
    try:
        return int(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
