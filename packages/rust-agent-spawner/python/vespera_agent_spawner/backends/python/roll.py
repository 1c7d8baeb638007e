"""Responsible for knowing who runs on this machine, and who of them belongs to an agent's tree.

Reading everybody takes milliseconds, listing them a tenth of that, so only newcomers are read. What
is kept is how somebody was first seen, and that tells more than a later look: ancestry does not
change, but its traces fade when parents die, daemons leave their group and titles overwrite
environments. A number alone proves nothing, since it is given again: nobody older than the leader
is ever taken for a member, and whoever is taken for one is read once more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from typing import TypeVar

from vespera_agent_spawner.backends.python.proc import (
    Process,
    content,
    host_tag_name,
    look_at,
    start_time,
)

__all__ = ["LEADERS", "Roll"]

_Key = TypeVar("_Key", int, bytes)
_kept = threading.local()


#: Leaders of ours that are not reaped: their numbers are theirs, so nobody reads them.
LEADERS: set[int] = set()


class Roll:
    """Everybody, as of the last ``look``. For one thread."""

    @classmethod
    def of_this_thread(cls) -> Roll:
        """The one that this thread keeps, over all of its loops: the first look reads everybody."""
        roll: Roll | None = getattr(_kept, "roll", None)
        if roll is None or roll._host != os.getpid():
            roll = _kept.roll = cls()
        return roll

    def __init__(self) -> None:
        self._host = os.getpid()
        self._seen: dict[int, tuple[int, Process]] = {}
        self._children: dict[int, set[int]] = {}
        self._groups: dict[int, set[int]] = {}
        self._sessions: dict[int, set[int]] = {}
        self._tags: dict[bytes, set[int]] = {}
        self._tag_of: dict[int, bytes] = {}
        self._between_images: set[int] = set()
        self._host_tag = f"\0{host_tag_name()}=".encode()
        self._host_born = start_time(self._host) or 0

    def look(self) -> None:
        """Read who is there now."""
        try:
            with os.scandir("/proc") as entries:
                here = {int(e.name): e.inode() for e in entries if e.name.isdigit()}
        except OSError:
            here = {}
        seen = self._seen
        for pid in seen.keys() - here.keys():
            self._forget(pid)
        for pid, inode in here.items():
            known = seen.get(pid)
            if known is not None:
                if known[0] == inode != 0:
                    continue
                self._forget(pid)
            if pid not in LEADERS:
                self._enter(pid, inode)
        for pid in tuple(self._between_images):
            self._read_tag(pid)

    def members(
        self, leader: int, born: int, tag: bytes, known: Collection[tuple[int, int]] = ()
    ) -> list[Process]:
        """Living processes of an agent's tree, read anew, the leader excepted.

        Four nets, since each has a hole: descent (a double fork escapes it), group and session
        (setsid escapes them), the tag in the environment (a scrubbed environment escapes it), and
        what was seen in the tree before (``known``: pid and start time). Nobody who was there
        before the leader was ``born`` is asked.
        """
        caught = {*self._groups.get(leader, ()), *self._sessions.get(leader, ())}
        caught |= self._tags.get(tag, set())
        caught.update(pid for pid, start in known if self._born(pid) == start)
        pending = [(leader, born), *((pid, self._born(pid)) for pid in caught)]
        while pending:
            parent, since = pending.pop()
            for child in self._children.get(parent, ()):
                # An older one is the child of another, who had the parent's number before.
                if child not in caught and (start := self._born(child)) >= since:
                    caught.add(child)
                    pending.append((child, start))
        caught -= {leader, os.getpid()}
        return [process for pid in caught if (process := self._again(pid, born)) is not None]

    def _born(self, pid: int) -> int:
        return self._seen[pid][1].start_time if pid in self._seen else -1

    def _again(self, pid: int, born: int) -> Process | None:
        """Who was first seen as a member, as it is now."""
        if pid not in self._seen:
            return None
        first, now = self._seen[pid][1], look_at(pid)
        if now is None or now.state in "ZX" or now.start_time != first.start_time:
            return None
        return now if now.start_time >= born else None

    def _enter(self, pid: int, inode: int) -> None:
        process = look_at(pid)
        if process is None:
            return
        self._seen[pid] = (inode, process)
        self._children.setdefault(process.parent, set()).add(pid)
        self._groups.setdefault(process.group, set()).add(pid)
        self._sessions.setdefault(process.session, set()).add(pid)
        if process.start_time >= self._host_born and not process.of_kernel:
            self._read_tag(pid)

    def _read_tag(self, pid: int) -> None:
        self._between_images.discard(pid)
        try:
            environment = b"\0" + content(f"/proc/{pid}/environ") + b"\0"
        except OSError:
            # Another user's process, or gone.
            return
        if len(environment) == 2 and self._seen[pid][1].state not in "ZX":
            # On its way through exec, or it has none: who is asked again costs little.
            self._between_images.add(pid)
        start = environment.find(self._host_tag)
        if start != -1:
            tag = environment[start + 1 : environment.index(b"\0", start + 1)]
            self._tag_of[pid] = tag
            self._tags.setdefault(tag, set()).add(pid)

    def _forget(self, pid: int) -> None:
        _, process = self._seen.pop(pid)
        self._between_images.discard(pid)
        for index, key in (
            (self._children, process.parent),
            (self._groups, process.group),
            (self._sessions, process.session),
        ):
            _drop(index, key, pid)
        tag = self._tag_of.pop(pid, None)
        if tag is not None:
            _drop(self._tags, tag, pid)


def _drop(index: dict[_Key, set[int]], key: _Key, pid: int) -> None:
    left = index[key]
    left.discard(pid)
    if not left:
        del index[key]
