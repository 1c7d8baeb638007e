"""Responsible for what an agent's tree uses."""

# ruff: noqa: PTH116, PTH208 - os.stat, os.listdir: pathlib takes four times as long as the kernel
from __future__ import annotations

import os

from vespera_agent_spawner.backends.python.proc import look_at
from vespera_agent_spawner.backends.python.roll import Roll
from vespera_agent_spawner.results import Usage

__all__ = ["tree_usage"]


def tree_usage(
    leader: int, born: int, tag: bytes, roll: Roll, *, reaped: bool = False, files: bool = True
) -> Usage:
    """Sum over the tree, of whom the roll saw when it looked last.

    Shared pages are counted once per process that maps them. ``reaped`` adds the CPU time of the
    children that were waited for; without ``files`` no open file is counted, which is cheaper.
    """
    found = roll.members(leader, born, tag)
    top = look_at(leader)
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
