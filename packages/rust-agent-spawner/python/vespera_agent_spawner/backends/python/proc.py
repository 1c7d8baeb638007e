"""Responsible for reading process trees out of /proc. Where there is none, it finds nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vespera_agent_spawner.results import Usage

__all__ = ["Process", "host_tag_name", "members", "start_time", "tree_usage"]

_PROC = Path("/proc")


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
    return f"VESPERA_{os.getpid()}_{start_time(os.getpid()) or 0}"


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started; None if it is gone."""
    found = _read(pid)
    return None if found is None else found.start_time


def _read(pid: int) -> Process | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
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


def _all() -> Iterator[Process]:
    try:
        entries = list(_PROC.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.isdigit() and (found := _read(int(entry.name))) is not None:
            yield found


def _carries(pid: int, tag: bytes) -> bool:
    try:
        return tag in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        # Another user's process, or gone.
        return False


def members(leader: int, tag: bytes, known: frozenset[tuple[int, int]]) -> list[Process]:
    """Living processes of an agent's tree, the leader excepted.

    Four nets, since each has a hole: descent (a double fork escapes it), group and session
    (setsid escapes them), the tag in the environment (a scrubbed environment escapes it), and
    what was seen in the tree before (``known``: pid and start time).
    """
    table = {process.pid: process for process in _all()}
    inside = {leader}
    grown = True
    while grown:
        grown = False
        for process in table.values():
            if process.pid not in inside and process.parent in inside:
                inside.add(process.pid)
                grown = True
    own = os.getpid()
    return [
        process
        for process in table.values()
        if process.pid not in (leader, own)
        and process.state not in "ZX"
        and (
            process.pid in inside
            or leader in (process.group, process.session)
            or (process.pid, process.start_time) in known
            or _carries(process.pid, tag)
        )
    ]


def tree_usage(leader: int, tag: bytes, *, reaped: bool = False, files: bool = True) -> Usage:
    """Sum over the tree; shared pages are counted once per process that maps them.

    ``reaped`` adds the CPU time of the children that were waited for; without ``files`` no open
    file is counted, which is cheaper.
    """
    found = members(leader, tag, frozenset())
    if (top := _read(leader)) is not None and top.state not in "ZX":
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
        return sum(1 for _ in (_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return 0
