"""Admission: who starts when, why not, and what to do about it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fleets import Fleet, until
from vespera_agent_spawner import Outcome, _room, admission
from vespera_agent_spawner.admission import Admission
from vespera_agent_spawner.errors import ConfigError, SpawnError


def places(**more: Any) -> Admission:
    return Admission(**{"max_agents": 100, "max_starting": 100, "start_interval": 0.0, **more})


async def refused(house: Admission, reserve: int = 0) -> spawner.AgentTimeout:
    with pytest.raises(spawner.AgentTimeout) as caught:
        await house.enter(0, 0, "a", reserve)
    return caught.value


def test_equal_priorities_are_served_in_their_order_and_nobody_is_passed() -> None:
    async def main() -> list[str]:
        house = places(max_agents=1)
        order: list[str] = []
        await house.enter(0, None, "first")
        house.left_start()

        async def wait(name: str, priority: int, reserve: int = 0) -> None:
            await house.enter(priority, None, name, reserve)
            order.append(name)
            house.left_start(reserve)
            house.leave()

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                # The one that wants much is not passed by those that want nothing.
                group.create_task(wait(f"{number}", number % 2, 1 if number == 3 else 0))
            await asyncio.sleep(0)
            house.leave()
        return order

    odd, even = [str(n) for n in range(1, 20, 2)], [str(n) for n in range(0, 20, 2)]
    assert asyncio.run(main()) == odd + even


def test_a_waiter_that_gives_up_leaves_no_hole() -> None:
    async def main() -> None:
        house = places(max_agents=1)
        await house.enter(0, None, "first")
        waiting = [asyncio.ensure_future(house.enter(0, None, str(n))) for n in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        house.leave()
        await asyncio.wait_for(waiting[1], 1)
        assert (house.alive, house.waiting) == (1, 1)
        waiting[2].cancel()

    asyncio.run(main())


def test_who_does_not_wait_is_not_kept_by_a_full_house() -> None:
    async def main() -> None:
        house = places(max_agents=1)
        await house.enter(0, None, "first")
        house.left_start()
        for _ in range(100):
            await refused(house)
        assert len(house._waiting) <= 1

    asyncio.run(main())


def test_who_comes_and_goes_behind_one_that_waits_is_not_kept() -> None:
    async def main() -> None:
        house = places(max_agents=1)
        await house.enter(0, None, "first")
        house.left_start()
        patient = [asyncio.ensure_future(house.enter(9, None, str(number))) for number in range(3)]
        await asyncio.sleep(0)
        for number in range(2000):
            told = house.ask(number % 9, 0, lambda _: None)
            house.withdraw(told)
            house.withdraw(told)
        assert len(house._waiting) < 100
        assert house.waiting == 3
        for one in patient:
            house.leave()
            await asyncio.wait_for(one, 1)
        house.leave()
        assert (house.alive, house.waiting) == (0, 0)

    asyncio.run(main())


class Clock:
    """The time of a house, which goes on when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        shown = SimpleNamespace(monotonic=lambda: self.now, time=time.time)
        monkeypatch.setattr(admission, "time", shown)

    def later(self, seconds: float, house: Admission) -> None:
        self.now += seconds
        house._serve()


def test_who_waits_for_memory_is_told_apart_from_who_may_enter(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = 2 << 20
    monkeypatch.setattr(admission, "free_memory", lambda: free)
    monkeypatch.setattr(admission, "total_memory", lambda: 8 << 20)
    clock = Clock(monkeypatch)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    async def main() -> None:
        nonlocal free
        house = places()
        waiting = asyncio.ensure_future(house.enter(0, None, "first", 4 << 20))
        await asyncio.sleep(0)
        assert house.obstacle is not None
        assert house.obstacle.words == "2 MiB free, memory_reserve wants 4 MiB"
        clock.later(29, house)
        assert told() == []
        clock.later(1, house)
        clock.later(29, house)
        (words,) = told()
        assert "1 wait, and nobody has been let in for 30 s: 2 MiB free" in words
        assert "lower memory_reserve" in words
        clock.later(1, house)
        assert "for 60 s" in told()[1]
        free = 4 << 20
        clock.later(1, house)
        await asyncio.wait_for(waiting, 1)
        assert house.obstacle is None

    asyncio.run(main())


def test_who_comes_later_has_not_waited_with_those_who_gave_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "free_memory", lambda: 2 << 20)
    monkeypatch.setattr(admission, "total_memory", lambda: 8 << 20)
    clock = Clock(monkeypatch)

    async def main() -> None:
        house = places()
        for _ in range(2):
            ticket = house.ask(0, 4 << 20, lambda _: None)
            clock.later(20, house)
            house.withdraw(ticket)
            clock.later(3600, house)
        assert caplog.records == []

    asyncio.run(main())


def test_a_reserve_that_the_machine_has_not_is_refused(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(memory_reserve="1000TiB") as sup:
            with pytest.raises(
                ConfigError,
                match=r"^memory_reserve: \d+ MiB are to be free .* there are \d+ MiB in all",
            ) as caught:
                await sup.spawn(fleet.config())
            assert (caught.value.field, caught.value.value) == ("memory_reserve", 1000 << 40)
            [result] = await asyncio.wait_for(sup.run([fleet.config("hi")]), 10)
            assert result.outcome == "spawn_failed"
            assert "lower memory_reserve" in str(result.error)
            assert (sup.waiting, sup.obstacle) == (0, None)

    asyncio.run(main())


def test_starts_keep_their_distance() -> None:
    async def main() -> float:
        house = places(start_interval=0.1)
        began = time.monotonic()
        for number in range(4):
            await house.enter(0, None, str(number))
        return time.monotonic() - began

    assert asyncio.run(main()) >= 0.3


def test_no_more_start_at_once_than_may() -> None:
    async def main() -> None:
        house = places(max_starting=2)
        for number in range(2):
            await house.enter(0, None, str(number))
        error = await refused(house)
        assert "max_starting=2" in str(error)
        assert "raise max_starting, or raise timeouts.queue" in str(error)
        house.left_start()
        await house.enter(0, 0, "b")

    asyncio.run(main())


def test_repeated_failures_pause_and_then_one_at_a_time_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "_BREAKER_PAUSE", 0.2)
    broken = SpawnError("the disk is full", program="claude", stage="exec")

    async def start(house: Admission, error: BaseException | None) -> None:
        await house.enter(0, 2, "a")
        house.note_start(error)
        house.left_start()
        house.leave()

    async def main() -> None:
        house = places()
        for none in (asyncio.CancelledError(), ConfigError("no", field="f", value=1, remedy="r")):
            for _ in range(9):
                await start(house, none)
        assert house.obstacle is None
        for _ in range(5):
            await start(house, broken)
        error = await refused(house)
        assert "5 starts in a row failed, the last: the disk is full" in str(error)
        # After the pause one is tried; while it starts, no other is.
        await house.enter(0, 2, "trial")
        assert "starts in a row failed" in str(await refused(house))
        house.note_start(broken)
        house.left_start()
        house.leave()
        assert "paused" in str(await refused(house))
        await start(house, None)
        assert house.obstacle is None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("what", "left", "words"),
    [
        ("free_descriptors", 30, "30 file descriptors left"),
        ("free_processes", (3, "ulimit -u 100"), "3 processes left (ulimit -u 100)"),
    ],
)
def test_too_little_room_names_limit_value_and_remedy(
    monkeypatch: pytest.MonkeyPatch, what: str, left: Any, words: str
) -> None:
    monkeypatch.setattr(admission, what, lambda: left)

    async def main() -> None:
        error = await refused(places())
        assert words in str(error)
        assert "; raise" in str(error)
        assert words in str(error.context["obstacle"])

    asyncio.run(main())


def test_memory_that_starting_agents_have_claimed_is_not_free_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "free_memory", lambda: 300 << 20)

    async def main() -> None:
        house = places()
        await house.enter(0, 0, "a", 200 << 20)
        error = await refused(house, 200 << 20)
        assert "300 MiB free, memory_reserve wants 400 MiB" in str(error)
        house.left_start(200 << 20)
        await house.enter(0, 0, "b", 200 << 20)

    asyncio.run(main())


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A cgroup as the kernel shows it; the host stands in its child."""
    monkeypatch.setattr(_room, "_cgroups", lambda process: (tmp_path / "child", tmp_path))
    (tmp_path / "child").mkdir()

    def write(where: str = ".", **files: str) -> None:
        for name, text in files.items():
            (tmp_path / where / name.replace("_", ".", 1)).write_text(text + "\n")

    return write


def test_the_limits_of_the_hosts_own_cgroup_count(cgroup: Callable[..., None]) -> None:
    machine = _room.free_memory()
    cgroup("child", memory_max="max", memory_current="1")
    assert machine is None or _room.free_memory() > machine // 2  # type: ignore[operator]
    cgroup(memory_max="1000", memory_high="max", memory_current="900")
    assert _room.free_memory() == 100
    cgroup(memory_stat="anon 5\ninactive_file 50\n")
    assert _room.free_memory() == 150
    cgroup("child", memory_high="11", memory_current="1")
    assert _room.free_memory() == 10


def test_the_tightest_limit_on_processes_is_named(cgroup: Callable[..., None]) -> None:
    cgroup("child", pids_max="max", pids_current="3")
    cgroup(pids_max="40", pids_current="30")
    left, limit = _room.free_processes() or (0, "")
    assert (left, limit.startswith("pids.max=40 of ")) == (10, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user with little")
def test_a_user_with_few_processes_left_is_told() -> None:
    # As another user: the kernel asks nothing of root. Few enough that somebody must be counted.
    # What the interpreter imports late is asked for before: the other user may not read it.
    code = """
import os, resource
from vespera_agent_spawner import _room
_room.free_memory(), _room.free_processes()
resource.setrlimit(resource.RLIMIT_NPROC, (50, 50))
os.setuid(54321)
print(_room.free_processes())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(49, 'ulimit -u 50')"


def test_a_missing_program_pauses_a_fleet_that_goes_on_failing(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            lost = [
                spawner.AgentConfig(adapter="raw", program="/nowhere/at/all", prompt="x")
                for _ in range(5)
            ]
            results = await sup.run(lost)
            assert {result.outcome for result in results} == {Outcome.SPAWN_FAILED}
            assert "in a row failed" in str(sup.obstacle)
            await until(lambda: sup.agents() == [])

    asyncio.run(main())


class Line:
    """A backend's standby, as the admission sees it."""

    def __init__(self) -> None:
        self.wanted = True
        self.renewed = 0
        #: Of whom nobody has heard.
        self.begun = 0

    def is_wanted(self) -> bool:
        return self.wanted

    def starting(self) -> int:
        return self.begun

    def renew(self, good_for: float) -> None:
        assert good_for <= 1.0
        self.renewed += 1


class Candidate:
    """One that can stand by; begins when the test says so."""

    def __init__(self, house: Admission, log: list[str], name: str, priority: int = 0) -> None:
        self._log = log
        self.name = name
        self.stands = self.begun = False
        self.able = True
        self.ticket = house.ask(priority, 1, self._told, prospect=self)

    def _told(self, error: Exception | None) -> None:
        self._log.append(self.name if error is None else f"{self.name}: {error}")

    def prepare(self) -> bool:
        self.stands = self.able
        return self.stands

    def has_begun(self) -> bool:
        return self.begun

    def withdraw(self) -> bool:
        self.stands = False
        return not self.begun


def test_who_comes_next_stands_by_while_the_house_is_full() -> None:
    async def main() -> None:
        line, log = Line(), list[str]()
        house = places(max_agents=2, standby=line)
        first, second, third, fourth = (Candidate(house, log, name) for name in "abcd")
        assert (log, house.waiting, line.renewed) == (["a", "b"], 2, 2)
        assert [one.stands for one in (first, second, third, fourth)] == [False, False, True, True]
        # The end of one has started the next: it has the place, though nobody has looked.
        third.begun = True
        house.leave()
        assert (log, house.alive, house.waiting) == (["a", "b", "c"], 2, 1)
        # A place that nobody was given is the next one's, by the loop.
        house.leave()
        assert (log, house.alive, fourth.stands) == (["a", "b", "c", "d"], 2, False)
        assert house._claimed == 4
        for _ in range(4):
            house.left_start(1)
        assert (house._claimed, house._starting) == (0, 0)

    asyncio.run(main())


def test_who_is_more_urgent_stands_before_the_others() -> None:
    async def main() -> None:
        log = list[str]()
        house = places(max_agents=1, standby=Line())
        _, later, urgent = (
            Candidate(house, log, name, priority)
            for name, priority in zip("abc", (0, 0, 1), strict=True)
        )
        assert [entry[2] for entry in house._standing] == [urgent.ticket, later.ticket]
        house.leave()
        assert log == ["a", "c"]

    asyncio.run(main())


def test_nobody_passes_one_that_cannot_stand_by() -> None:
    async def main() -> None:
        log = list[str]()
        line = Line()
        line.wanted = False
        house = places(max_agents=1, standby=line)
        _, unable, able = (Candidate(house, log, name) for name in "abc")
        unable.able, line.wanted = False, True
        house.left_start(1)
        assert not able.stands
        house.leave()
        assert (log, able.stands) == (["a", "b"], True)

    asyncio.run(main())


def test_a_pause_and_the_end_stand_everybody_down_and_lose_nobody_who_has_begun() -> None:
    async def main() -> None:
        log = list[str]()
        house = places(max_agents=1, standby=Line())
        _, begun, paused = (Candidate(house, log, name) for name in "abc")
        begun.begun = True
        house.pause_until(time.time() + 60, "says the test")
        assert (log, paused.stands, house.waiting) == (["a", "b"], False, 1)
        house.leave()
        assert (house.alive, paused.stands) == (1, False)
        house.close()
        assert log[2].startswith("c: the supervisor is closed")
        assert house._claimed == 2

    asyncio.run(main())


def test_starts_that_nobody_has_heard_of_count() -> None:
    async def main() -> None:
        line, log = Line(), list[str]()
        house = places(max_agents=2, max_starting=2, standby=line)
        for name in "abcd":
            Candidate(house, log, name)
        house.left_start(1)
        house.left_start(1)
        line.begun = 2
        house.leave()
        assert log == ["a", "b"]
        line.begun = 0
        house.leave()
        assert log == ["a", "b", "c", "d"]

    asyncio.run(main())
