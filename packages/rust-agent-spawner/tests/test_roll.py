"""Who runs on this machine, as the Python backend knows it: quick looks see what a listing sees."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from vespera_agent_spawner.backends.python import roll as module
from vespera_agent_spawner.backends.python import usage
from vespera_agent_spawner.backends.python.proc import Process, last_number, look_at, start_time
from vespera_agent_spawner.backends.python.roll import Roll, enter_leader, forget_leader

pytestmark = pytest.mark.skipif(not last_number(), reason="no /proc/loadavg here")

# A process that answers each line with the pid of a child that does nothing, in a group,
# a session or neither of its own.
PARENT = """
import os, sys, time
for how in sys.stdin:
    child = os.fork()
    if child == 0:
        if "session" in how: os.setsid()
        if "group" in how: os.setpgid(0, 0)
        print(os.getpid(), flush=True)
        time.sleep(60)
"""


class Tree:
    """A leader whose children come on demand; killed whole in the end."""

    def __init__(self) -> None:
        self.leader = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.pid = self.leader.pid
        self.born = start_time(self.pid) or 0
        self.children: set[int] = set()
        enter_leader(self.pid)

    def fork(self, how: str) -> None:
        assert self.leader.stdin
        assert self.leader.stdout
        self.leader.stdin.write(how + "\n")
        self.leader.stdin.flush()
        self.children.add(int(self.leader.stdout.readline()))

    def kill(self, child: int) -> None:
        self.children.remove(child)
        handle = os.pidfd_open(child)
        os.kill(child, 9)
        select.select([handle], [], [], 30)
        os.close(handle)

    def end(self) -> None:
        for child in self.children:
            os.kill(child, 9)
        with self.leader:
            self.leader.kill()
        forget_leader(self.pid)


@pytest.fixture
def tree() -> Iterator[Tree]:
    made = Tree()
    try:
        yield made
    finally:
        made.end()


def members(roll: Roll, tree: Tree) -> set[int]:
    roll.look()
    return {process.pid for process in roll.members(tree.pid, tree.born, b"")}


def test_quick_looks_see_what_a_listing_sees(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    roll = Roll()
    assert members(roll, tree) == set()
    listings = []
    listing = roll._list

    def counted(last: int | None, now: float) -> None:
        listings.append(now)
        listing(last, now)

    monkeypatch.setattr(roll, "_list", counted)
    monkeypatch.setattr(module, "_QUICK", 60.0)
    for _ in range(20):
        for _ in range(chance.randrange(3)):
            tree.fork(chance.choice(["", "group", "session"]))
        if tree.children and chance.random() < 0.3:
            tree.kill(chance.choice(sorted(tree.children)))
        assert members(roll, tree) == members(Roll(), tree) == tree.children, seed
    # Unless the numbers began anew meanwhile.
    assert len(listings) <= 1


def test_threads_are_nobody(tree: Tree) -> None:
    roll = Roll()
    roll.look()
    done = threading.Event()
    threads = [threading.Thread(target=done.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        roll.look()
        assert not {thread.native_id for thread in threads} & roll._seen.keys()
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_a_machine_whose_numbers_are_not_what_they_seem_is_listed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "last_number", lambda: 1)
    roll = Roll()
    roll.look()
    other = Tree()
    try:
        other.fork("")
        tree.fork("session")
        assert members(roll, tree) == tree.children
    finally:
        other.end()


def test_without_pidfds_all_are_listed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    roll = Roll()
    roll.look()
    monkeypatch.delattr(os, "pidfd_open")
    tree.fork("session")
    assert members(roll, tree) == tree.children


def test_a_child_of_who_had_the_leaders_number_before_is_a_stranger(tree: Tree) -> None:
    tree.fork("")
    roll = Roll()
    assert members(roll, tree) == tree.children
    roll.look()
    assert roll.members(tree.pid, tree.born + 10_000, b"") == []


@pytest.fixture
def read(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[int]]:
    """Who is read for the tree's usage; the tree has a child and waits."""
    meter, roll, found = usage.TreeMeter(), Roll(), set[int]()
    tree.fork("")

    def counted(pid: int) -> Process | None:
        found.add(pid)
        return look_at(pid)

    def look() -> set[int]:
        # A clock is told by when its process stopped, or by the last tick.
        time.sleep(0.02)
        found.clear()
        roll.look()
        assert meter.usage(tree.pid, tree.born, b"", roll).processes == 1 + len(tree.children)
        return set(found)

    monkeypatch.setattr(usage, "look_at", counted)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 0)
    assert look() == {tree.pid, *tree.children}
    while look():
        pass
    return look


def test_who_has_not_run_is_not_read_again(tree: Tree, read: Callable[[], set[int]]) -> None:
    [sleeper] = tree.children
    tree.fork("")
    assert read() == {tree.pid, *tree.children} - {sleeper}
    while read():
        pass
    tree.kill(sleeper)
    assert read() >= {sleeper}, "a zombie has run"


def test_everybody_is_read_after_a_while(
    tree: Tree, read: Callable[[], set[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: 10 * 10**9)
    assert read() == {tree.pid, *tree.children}


@pytest.mark.parametrize("told", [0, 40_000_000, OSError("not here")])
def test_a_clock_that_tells_nothing_equals_no_other(
    tree: Tree,
    read: Callable[[], set[int]],
    monkeypatch: pytest.MonkeyPatch,
    told: int | OSError,
) -> None:
    def clock(_clock: int) -> int:
        if isinstance(told, OSError):
            raise told
        return told

    monkeypatch.setattr(time, "clock_gettime_ns", clock)
    assert [read(), read()] == [{tree.pid, *tree.children}] * 2
