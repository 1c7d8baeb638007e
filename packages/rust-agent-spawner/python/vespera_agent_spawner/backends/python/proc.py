"""Responsible for reading process trees out of /proc. Where there is none, it finds nothing.

Written with ``os`` calls alone: every process of the machine is read when an agent ends, and
``pathlib`` takes four times as long as the kernel.
"""

# ruff: noqa: PTH116, PTH208 - os.stat and os.listdir, for the reason above
from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from vespera_agent_spawner.results import Usage

__all__ = ["Process", "Table", "descendants", "host_tag_name", "start_time", "tree_usage"]

_READ = 4096


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/<pid>/stat. A pid means something only together with ``start_time``."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    start_time: int
    cpu_ticks: int
    reaped_ticks: int
    resident_pages: int


def host_tag_name() -> str:
    """``VESPERA_<pid>_<starttime>``: the variable that marks everything this host starts."""
    return _tag_name_of(os.getpid())


@functools.cache
def _tag_name_of(host: int) -> str:
    return f"VESPERA_{host}_{start_time(host) or 0}"


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started; None if it is gone."""
    found = _read(pid)
    return None if found is None else found.start_time


def _content(path: str) -> bytes:
    """A file of /proc; raises ``OSError``. It knows no length, so it is read until it ends."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(descriptor, _READ)
        while len(text) % _READ == 0 and (more := os.read(descriptor, 16 * _READ)):
            text += more
    finally:
        os.close(descriptor)
    return text


def _read(pid: int) -> Process | None:
    try:
        text = _content(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name may hold spaces and parentheses: fields start after the last ')'.
    fields = text[text.rfind(b")") + 2 :].split()
    try:
        return Process(
            pid=pid,
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            state=fields[0].decode("ascii"),
            start_time=int(fields[19]),
            cpu_ticks=int(fields[11]) + int(fields[12]),
            reaped_ticks=int(fields[13]) + int(fields[14]),
            resident_pages=int(fields[21]),
        )
    except (IndexError, ValueError):
        return None


class Table:
    """All processes at one moment; whose environment they have is read when it is asked."""

    def __init__(self) -> None:
        self._environments: dict[int, bytes] = {}
        try:
            names = os.listdir("/proc")
        except OSError:
            names = []
        found = (_read(int(name)) for name in names if name.isdigit())
        self.processes = {process.pid: process for process in found if process is not None}

    def members(
        self, leader: int, born: int, tag: bytes, known: frozenset[tuple[int, int]]
    ) -> list[Process]:
        """Living processes of an agent's tree, the leader excepted.

        Four nets, since each has a hole: descent (a double fork escapes it), group and session
        (setsid escapes them), the tag in the environment (a scrubbed environment escapes it), and
        what was seen in the tree before (``known``: pid and start time). Nobody who was there
        before the leader was ``born`` is asked for the tag.
        """
        inside = {leader}
        grown = True
        while grown:
            grown = False
            for process in self.processes.values():
                if process.pid not in inside and process.parent in inside:
                    inside.add(process.pid)
                    grown = True
        own = os.getpid()
        return [
            process
            for process in self.processes.values()
            if process.pid not in (leader, own)
            and process.state not in "ZX"
            and (
                process.pid in inside
                or leader in (process.group, process.session)
                or (process.pid, process.start_time) in known
                or (process.start_time >= born and self._carries(process.pid, tag))
            )
        ]

    def _carries(self, pid: int, tag: bytes) -> bool:
        if pid not in self._environments:
            try:
                self._environments[pid] = b"\0" + _content(f"/proc/{pid}/environ")
            except OSError:
                # Another user's process, or gone.
                self._environments[pid] = b""
        return b"\0" + tag + b"\0" in self._environments[pid]


def descendants(leader: int) -> list[Process] | None:
    """Who descends from the leader now; None where the kernel does not tell quickly."""
    found: list[Process] = []
    pending = [leader]
    while pending:
        try:
            children = _children(pending.pop())
        except FileNotFoundError:
            return None
        except OSError:
            continue
        pending += children
        found += [process for child in children if (process := _read(child)) is not None]
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [
        int(child)
        for task in tasks
        for child in _content(f"/proc/{pid}/task/{task}/children").split()
    ]


def tree_usage(
    leader: int,
    tag: bytes,
    *,
    reaped: bool = False,
    files: bool = True,
    table: Table | None = None,
) -> Usage:
    """Sum over the tree; shared pages are counted once per process that maps them.

    ``reaped`` adds the CPU time of the children that were waited for; without ``files`` no open
    file is counted, which is cheaper.
    """
    table = Table() if table is None else table
    top = table.processes.get(leader)
    found = table.members(leader, 0 if top is None else top.start_time, tag, frozenset())
    if top is not None and top.state not in "ZX":
        found.append(top)
    page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    return Usage(
        rss=sum(process.resident_pages for process in found) * page,
        cpu_seconds=sum(
            process.cpu_ticks + (process.reaped_ticks if reaped else 0) for process in found
        )
        / ticks,
        processes=len(found),
        open_files=sum(_open_files(process.pid) for process in found) if files else 0,
    )


def _open_files(pid: int) -> int:
    try:
        # Since Linux 6.2 the directory's size is their number; before that it is 0.
        if size := os.stat(f"/proc/{pid}/fd").st_size:
            return size
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
