"""Responsible for knowing who runs on this machine, and who of them belongs to an agent's tree.

Reading everybody takes milliseconds, listing them a tenth of that, and asking for the numbers that
were given since the last look a hundredth; so only newcomers are read. What is kept is how somebody
was first seen, and that tells more than a later look: ancestry does not change, but its traces fade
when parents die, daemons leave their group and titles overwrite environments. A number alone proves
nothing, since it is given again: nobody older than the leader is ever taken for a member, and
whoever is taken for one is read once more.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from vespera_agent_spawner.backends.python.proc import (
    Process,
    content,
    host_tag_name,
    last_number,
    look_at,
    start_time,
)

__all__ = ["Roll", "enter_leader", "forget_leader", "forget_leaders"]

_Key = TypeVar("_Key", int, bytes)
_kept = threading.local()
_UNKNOWN = 0  # an inode


# Leaders of ours that are not reaped: their numbers are theirs, so nobody reads them. And those
# of them that a look may expect among the numbers that were given since the last one.
_leaders: set[int] = set()
_new_leaders: set[int] = set()

# For how long the numbers given since the last look name all newcomers, seconds: they begin anew
# after some 32,000. How many of them are worth asking for. How long a fork may need to show its
# child, seconds, and how many may do so at once.
_QUICK = 1.0
_FEW = 1000
_FORKING = 0.05
_NEWEST = 64


def enter_leader(pid: int) -> None:
    """A child of ours leads a tree."""
    _leaders.add(pid)
    _new_leaders.add(pid)


def forget_leader(pid: int) -> None:
    """It is reaped, or is about to be: its number may be a stranger's."""
    _leaders.discard(pid)
    _new_leaders.discard(pid)


def forget_leaders() -> None:
    """In a forked child: they are the parent's."""
    _leaders.clear()
    _new_leaders.clear()


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
        self._last: tuple[int | None, float] = (None, 0.0)
        self._asked: dict[int, float] = {}
        self._host_tag = f"\0{host_tag_name()}=".encode()
        self._host_born = start_time(self._host) or 0

    def look(self) -> None:
        """Read who is there now."""
        last, now = last_number(), time.monotonic()
        given = self._given(last, now)
        self._last = (last, now)
        # Our own children are the proof that numbers are given as we think.
        expected = _new_leaders.copy()
        _new_leaders.difference_update(expected)
        if given is None or not all(leader in given for leader in expected):
            self._list(last, now)
        else:
            try:
                self._ask(given, now)
            except (AttributeError, OSError):
                # No pidfd here, or no descriptor left.
                self._list(last, now)
        for pid in tuple(self._between_images):
            self._read_tag(pid)

    def doubt(self) -> None:
        """Somebody was found who is to be ended, and may have forked: list all the next time."""
        self._last = (None, 0.0)

    def _given(self, last: int | None, now: float) -> range | None:
        """The numbers given since the last look; None where that cannot be told, or is too many."""
        before, when = self._last
        if before is None or last is None or last < before or now - when > _QUICK:
            return None
        given = range(before + 1, last + 1)
        return given if len(given) <= _FEW else None

    def _ask(self, given: range, now: float) -> None:
        for pid in given:
            if pid in self._seen:
                self._forget(pid)
            self._asked[pid] = now
        for pid, since in tuple(self._asked.items()):
            there = pid not in _leaders and _leads_threads(pid)
            if there:
                self._enter(pid, _UNKNOWN)
            # Nobody may be a child whose fork is not through: it is asked for a few times more.
            if there is not None or now - since > _FORKING:
                del self._asked[pid]

    def _list(self, last: int | None, now: float) -> None:
        try:
            with os.scandir("/proc") as entries:
                here = {int(e.name): e.inode() for e in entries if e.name.isdigit()}
        except OSError:
            here = {}
        newest = range(max(last - _NEWEST, 0) + 1, last + 1) if last else ()
        self._asked = {pid: now for pid in newest if pid not in here}
        seen = self._seen
        for pid in seen.keys() - here.keys():
            self._forget(pid)
        for pid, inode in here.items():
            known = seen.get(pid)
            if known is not None:
                if known[0] == inode != _UNKNOWN:
                    continue
                if known[0] == _UNKNOWN and start_time(pid) == known[1].start_time:
                    seen[pid] = (inode, known[1])
                    continue
                self._forget(pid)
            if pid not in _leaders:
                self._enter(pid, inode)

    def members(
        self,
        leader: int,
        born: int,
        tag: bytes,
        known: Collection[tuple[int, int]] = (),
        *,
        read: Callable[[int], Process | None] = look_at,
    ) -> list[Process]:
        """Living processes of an agent's tree, read anew by ``read``, the leader excepted.

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
        return [process for pid in caught if (process := self._again(pid, born, read)) is not None]

    def _born(self, pid: int) -> int:
        return self._seen[pid][1].start_time if pid in self._seen else -1

    def _again(self, pid: int, born: int, read: Callable[[int], Process | None]) -> Process | None:
        """Who was first seen as a member, as it is now."""
        if pid not in self._seen:
            return None
        first, now = self._seen[pid][1], read(pid)
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


def _leads_threads(pid: int) -> bool | None:
    """Whether a number is a process's; False for another thread's, None for nobody's."""
    try:
        os.close(os.pidfd_open(pid))
    except ProcessLookupError:
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def _drop(index: dict[_Key, set[int]], key: _Key, pid: int) -> None:
    left = index[key]
    left.discard(pid)
    if not left:
        del index[key]
