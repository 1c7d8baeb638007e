"""Where the event loop comes late, the end of a run starts the next; all that the loop decides
holds all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from fake_agents import children_of, eventually, traced
from fleets import Fleet, until
from vespera_agent_spawner import (
    AgentConfig,
    Outcome,
    RunResult,
    Supervisor,
    backends,
)

pytestmark = pytest.mark.skipif(
    backends.rust_problem() is not None, reason="the Python backend needs its loop for each start"
)

WORK = """
echo "$0 start $(date +%s.%N)" >>"$1"; sleep "$2"; echo "$0 end $(date +%s.%N)" >>"$1"; exit "$3"
"""


@pytest.fixture
def backend() -> str:
    return "rust"


class Diary:
    """Runs that write down when they start and end."""

    def __init__(self, fleet: Fleet, place: Path) -> None:
        self._fleet = fleet
        self._path = place / "diary"
        self._path.touch()

    def run(self, number: int, seconds: float = 0.03, code: int = 0, **fields: Any) -> AgentConfig:
        return AgentConfig(
            adapter="raw",
            program="/bin/sh",
            args=("-c", WORK, str(number), str(self._path), str(seconds), str(code)),
            environment={"FAKE_TRACE": self._fleet.trace},
            **fields,
        )

    def runs(self, count: int, seconds: float = 0.03, code: int = 0) -> list[AgentConfig]:
        return [self.run(number, seconds, code) for number in range(count)]

    def entries(self) -> list[tuple[str, str, float]]:
        lines = (line.split() for line in self._path.read_text().splitlines())
        return [(number, what, float(at)) for number, what, at in lines]

    def started(self, after: float, before: float = float("inf")) -> list[str]:
        told = self.entries()
        return [name for name, what, at in told if what == "start" and after < at < before]

    def most_at_once(self) -> int:
        alive = most = 0
        for _, what, _ in sorted(self.entries(), key=lambda entry: entry[2]):
            alive += 1 if what == "start" else -1
            most = max(most, alive)
        return most


@pytest.fixture
def diary(fleet: Fleet, tmp_path: Path) -> Diary:
    return Diary(fleet, tmp_path)


# Whoever was started has written it down so many seconds later, on a busy machine too.
WRITTEN = 0.2


def block(seconds: float) -> float:
    """Keep the loop from everything; returns since when no start is the loop's."""
    since = time.time() + WRITTEN
    time.sleep(seconds)
    return since


def standing(sup: Supervisor) -> int:
    assert sup._admission is not None
    return len(sup._admission._standing)


def begun(sup: Supervisor) -> int:
    """How many have begun of whom the loop has not heard."""
    assert sup._admission is not None
    prospects = [entry[2].prospect for entry in sup._admission._standing]
    return sum(one is not None and one.has_begun() for one in prospects)


async def be_late(sup: Supervisor, count: int = 1) -> None:
    """Until so many stand by."""
    deadline = time.monotonic() + 20
    while standing(sup) < count:
        assert time.monotonic() < deadline, "nobody stands by"
        await asyncio.sleep(0.002)
        block(0.04)


async def end(sup: Supervisor, work: asyncio.Future[Any], how: str) -> Any:
    """End the work in one of three ways; returns what became of it."""
    if how == "cancel":
        work.cancel()
    elif how == "drain":
        assert await sup.drain(10)
    else:
        await sup.shutdown(0)
    return (await asyncio.gather(work, return_exceptions=True))[0]


def test_a_fleet_goes_on_while_its_loop_does_not(fleet: Fleet, diary: Diary) -> None:
    async def main() -> tuple[list[RunResult], list[str]]:
        async with fleet.supervisor(max_agents=2) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(40)))
            await be_late(sup, 8)
            assert sup.waiting >= 8
            # Whoever has just ended may be listed beside who has its place.
            assert len(sup.list_agents()) <= 3
            since = block(0.6)
            during = diary.started(since, time.time())
            return await work, during

    results, during = asyncio.run(main())
    assert len(during) >= 2
    assert [one.outcome for one in results] == [Outcome.COMPLETED] * 40
    # Two shells that start together may be told in either order.
    order = [int(name) for name, what, _ in diary.entries() if what == "start"]
    assert all(abs(name - place) <= 2 for place, name in enumerate(order))
    assert sorted(order) == list(range(40))
    assert diary.most_at_once() == 2
    assert len({one.session_id for one in results}) == 40


def test_a_run_has_begun_when_it_began_not_when_it_was_prepared(fleet: Fleet, diary: Diary) -> None:
    async def main() -> list[float]:
        begun: list[float] = []

        async def read() -> None:
            async for result in sup.as_completed(diary.runs(30)):
                begun.append(time.time() - result.duration)  # noqa: PERF401 - it is later now

        async with fleet.supervisor(max_agents=1) as sup:
            reading = asyncio.ensure_future(read())
            await be_late(sup, 8)
            while not reading.done():
                await asyncio.sleep(0.002)
                block(0.1)
            await reading
        return begun

    begun = asyncio.run(main())
    started = [at for _, what, at in diary.entries() if what == "start"]
    # The shell needs a moment until it writes; each stood by for ten times as long.
    early = statistics.median(at - since for at, since in zip(started, begun, strict=True))
    assert early < 0.15


def test_a_loop_that_comes_in_time_starts_everybody_itself(fleet: Fleet, diary: Diary) -> None:
    async def main() -> int:
        """The most that stood by at once."""
        most = 0
        async with fleet.supervisor(max_agents=2) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(8)))
            while not work.done():
                most = max(most, standing(sup))
                await asyncio.sleep(0.005)
        return most

    # A machine that is busy with other work makes it late now and then, and once is remembered.
    for _ in range(20):
        if asyncio.run(main()) == 0:
            return
        time.sleep(0.6)
    pytest.fail("somebody stood by in each of twenty fleets")


def test_who_fails_is_followed_by_nobody_before_the_loop_knows(fleet: Fleet, diary: Diary) -> None:
    async def main() -> tuple[list[RunResult], list[str]]:
        async with fleet.supervisor(max_agents=2) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(16, code=3)))
            await be_late(sup)
            since = block(0.6)
            during = diary.started(since, time.time())
            return await work, during

    results, during = asyncio.run(main())
    assert during == []
    assert [one.outcome for one in results] == [Outcome.FAILED] * 16
    assert diary.most_at_once() <= 2


@pytest.mark.parametrize("prompt", ["loggedout", "fail", "later 0.3"])
def test_a_run_without_success_is_followed_by_nobody_whatever_its_exit_code(
    fleet: Fleet, prompt: str
) -> None:
    """Whoever is refused, whose turn fails or takes too long: the CLI exits with 0 all the same."""

    async def main() -> None:
        timeouts = {"turn": 0.1} if "later" in prompt else {}
        async with fleet.supervisor(max_agents=2, on_auth_failure="continue") as sup:
            runs = [fleet.config(prompt, timeouts=timeouts) for _ in range(16)]
            work = asyncio.ensure_future(sup.run(runs))
            await be_late(sup)
            for _ in range(4):
                block(0.2)
                assert begun(sup) == 0
                await asyncio.sleep(0.01)
            results = await work
        assert not [one for one in results if one.outcome is Outcome.COMPLETED]
        assert [one.exit.code for one in results if one.exit] == [0] * 16

    asyncio.run(main())


@pytest.mark.parametrize("how", ["cancel", "leave", "drain"])
def test_nobody_is_prepared_once_the_work_is_ended(fleet: Fleet, diary: Diary, how: str) -> None:
    """Who has begun unheard is heard of then, and no further one takes its place in line."""

    async def main() -> None:
        async with fleet.supervisor(max_agents=2) as sup:
            runs = [*diary.runs(12), *(diary.run(number, 1.0) for number in range(12, 40))]
            work = asyncio.ensure_future(sup.run(runs))
            await be_late(sup, 8)
            while not begun(sup):
                block(0.005)
            since = time.time() + WRITTEN
            await end(sup, work, how)
            assert (sup.waiting, standing(sup), sup.agents()) == (0, 0, [])
            assert diary.started(since) == []

    asyncio.run(main())
    assert eventually(lambda: not traced(fleet.trace))


@pytest.mark.parametrize("how", ["cancel", "leave", "drain"])
def test_nobody_follows_once_the_work_is_ended(fleet: Fleet, diary: Diary, how: str) -> None:
    async def main() -> float:
        async with fleet.supervisor(max_agents=2) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(60)))
            await be_late(sup, 4)
            since = time.time() + WRITTEN
            ended = await end(sup, work, how)
            if how == "cancel":
                assert isinstance(ended, asyncio.CancelledError)
            else:
                assert isinstance(ended, list)
                assert any(one.outcome is not Outcome.COMPLETED for one in ended)
            assert (sup.waiting, standing(sup), sup.agents()) == (0, 0, [])
            return since

    since = asyncio.run(main())
    assert eventually(lambda: not traced(fleet.trace))
    time.sleep(WRITTEN)
    assert diary.started(since) == []


def test_a_batch_that_is_thrown_away_leaves_nobody_in_line(fleet: Fleet, diary: Diary) -> None:
    async def main() -> float:
        async with fleet.supervisor(max_agents=2) as sup:
            results = sup.as_completed(diary.runs(60))
            await anext(results)
            await be_late(sup, 4)
            await results.aclose()
            assert (sup.waiting, standing(sup)) == (0, 0)
            ended = time.time()
            await until(lambda: not traced(fleet.trace))
            # The places are free again.
            [after] = await sup.run([diary.run(99)])
            assert after.outcome is Outcome.COMPLETED
            return ended

    ended = asyncio.run(main())
    assert diary.started(ended) == ["99"]


def test_what_the_loop_saw_is_good_for_a_second(fleet: Fleet, diary: Diary) -> None:
    async def main() -> list[str]:
        async with fleet.supervisor(max_agents=1) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(40, 0.15)))
            await be_late(sup, 12)
            since = block(2.5)
            late = diary.started(since + 1.0, time.time())
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            return late

    assert asyncio.run(main()) == []


def test_only_so_many_start_at_once(fleet: Fleet) -> None:
    """Those that follow count, though nobody has heard of them."""

    async def main() -> list[int]:
        seen: list[int] = []
        async with fleet.supervisor(max_agents=6, max_starting=2) as sup:
            standby = sup._standby
            assert standby is not None
            # Each needs a Python interpreter's start until it is ready, and the first end together.
            seconds = [0.9, 0.9, 0.8, 0.8, 0.7, 0.7] + [0.3] * 12
            runs = [fleet.config(f"later {one}") for one in seconds]
            work = asyncio.ensure_future(sup.run(runs))
            while not work.done():
                await asyncio.sleep(0.002)
                for _ in range(100):
                    seen.append(standby.starting())
                    block(0.002)
            assert {one.outcome for one in await work} == {Outcome.COMPLETED}
            assert standby.starting() == 0
        return seen

    assert max(asyncio.run(main())) == 2


def test_who_is_more_urgent_passes_those_who_stand_by(fleet: Fleet, diary: Diary) -> None:
    async def main() -> None:
        async with fleet.supervisor(max_agents=1) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(12, 0.1)))
            await be_late(sup, 4)
            asked = time.time()
            await sup.run([diary.run(99, 0.1, priority=5)])
            await work
            assert diary.started(asked).index("99") <= 1

    asyncio.run(main())
    assert diary.most_at_once() == 1


def test_a_limit_of_the_service_lets_nobody_follow(fleet: Fleet) -> None:
    """It is told in one breath with the run's end, when the next would begin."""

    async def main() -> None:
        done: list[Outcome] = []

        async def work(configs: list[AgentConfig]) -> None:
            async for result in sup.as_completed(configs):
                done.append(result.outcome)  # noqa: PERF401 - looked at meanwhile

        async with fleet.supervisor(max_agents=1) as sup:
            told = f'limit {{"status": "rejected", "resetsAt": {time.time() + 90}}}'
            calm = [fleet.config("echo hi") for _ in range(12)]
            working = asyncio.ensure_future(work([*calm[:6], fleet.config(told), *calm[6:]]))
            await be_late(sup)
            deadline = time.monotonic() + 60
            while sup.obstacle is None or "paused" not in sup.obstacle:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.002)
                block(0.2)
            assert (standing(sup), sup.agents()) == (0, [])
            await asyncio.sleep(0.1)
            assert done == [Outcome.COMPLETED] * 7
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working

    asyncio.run(main())


def test_another_umask_is_nobodys_who_was_prepared_before(fleet: Fleet, diary: Diary) -> None:
    mask = os.umask(0o022)

    async def main() -> list[str]:
        async with fleet.supervisor(max_agents=2) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(40)))
            await be_late(sup, 8)
            os.umask(0o077)
            since = block(0.6)
            during = diary.started(since, time.time())
            await work
            return during

    try:
        during = asyncio.run(main())
    finally:
        os.umask(mask)
    assert during == []
    assert len(diary.started(0)) == 40


@pytest.mark.parametrize("victim", ["guardian", "leashes"])
def test_whoever_dies_meanwhile_takes_nobody_along(fleet: Fleet, diary: Diary, victim: str) -> None:
    async def main() -> list[RunResult]:
        async with fleet.supervisor(max_agents=2) as sup:
            work = asyncio.ensure_future(sup.run(diary.runs(30)))
            await be_late(sup, 8)
            await until(lambda: _guards(sup, victim) != [])
            for pid in _guards(sup, victim):
                os.kill(pid, signal.SIGKILL)
            block(0.2)
            return await asyncio.wait_for(work, 30)

    outcomes = [one.outcome for one in asyncio.run(main())]
    # What ran then, and what had begun in the moment until the kernel told.
    assert outcomes.count(Outcome.COMPLETED) >= 26
    assert eventually(lambda: not traced(fleet.trace))


def _guards(sup: Supervisor, victim: str) -> list[int]:
    if victim == "leashes":
        leashes = [agent._session.leash for agent in sup.agents()]  # type: ignore[union-attr]
        return [pid for pid in leashes if pid]
    children = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in children_of(os.getpid())}
    return [pid for pid, name in children.items() if name == "vespera-guard\n"]


def test_merged_events_miss_nobody(fleet: Fleet) -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def read() -> None:
            async for agent, event in sup.events():
                if event.kind == "assistant":
                    seen.append(agent.agent_id)

        async with fleet.supervisor(max_agents=1) as sup:
            config = [fleet.config(f"echo {n}", agent_id=f"a{n}") for n in range(12)]
            work = asyncio.ensure_future(sup.run(config))
            await be_late(sup, 2)
            running = {agent.agent_id for agent in sup.agents()}
            reading = asyncio.ensure_future(read())
            await asyncio.sleep(0)
            block(0.3)
            await work
            await until(lambda: "a11" in seen)
            rest = [one.agent_id or "" for one in config]
            first = min(rest.index(name) for name in running) + 1
            assert seen[-len(rest[first:]) :] == rest[first:]
        await reading
        return seen

    assert len(asyncio.run(main())) > 3


HOST = """
    import asyncio, os, sys, time
    from vespera_agent_spawner import AgentConfig, Supervisor
    async def main():
        sup = Supervisor({"max_agents": 2, "memory_reserve": 0, "backend": "rust"})
        await sup.__aenter__()
        config = AgentConfig(adapter="raw", program="sleep", args=("0.05",),
                             environment={"FAKE_TRACE": sys.argv[1]})
        work = asyncio.ensure_future(sup.run([config] * 400))
        while len(sup._admission._standing) < 4:
            await asyncio.sleep(0.002)
            time.sleep(0.04)
        {end}
    asyncio.run(main())
"""


@pytest.mark.parametrize(
    "end",
    ["sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)", "return", "os.fork() or os._exit(0)"],
)
def test_a_host_that_ends_leaves_nobody_in_line(fleet: Fleet, end: str) -> None:
    code = textwrap.dedent(HOST).replace("{end}", end)
    host = subprocess.run(
        [sys.executable, "-c", code, fleet.trace], timeout=60, capture_output=True, text=True
    )
    assert eventually(lambda: not traced(fleet.trace)), host.stderr
    assert "Traceback" not in host.stderr


ELSEWHERE = """
    import asyncio, sys, threading, time
    from vespera_agent_spawner import AgentConfig, Supervisor
    stands = threading.Event()
    async def main():
        sup = await Supervisor(
            {"max_agents": 2, "memory_reserve": 0, "backend": "rust"}
        ).__aenter__()
        def config(seconds):
            return AgentConfig(adapter="raw", program="sleep", args=(seconds,),
                               environment={"FAKE_TRACE": sys.argv[1]})
        runs = [config("0.05")] * 12 + [config("40")] * 12
        work = asyncio.ensure_future(sup.run(runs))
        # Those who run now end by force, so that nobody follows them.
        while len(sup._admission._standing) < 4 or len(sup._admission._waiting) > 4:
            await asyncio.sleep(0.002)
            time.sleep(0.04)
        stands.set()
        time.sleep(60)
    threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
    stands.wait()
    print("stands", flush=True)
"""


def test_an_interpreter_that_ends_beside_a_blocked_loop_waits_for_nobody_in_line(
    fleet: Fleet,
) -> None:
    code = textwrap.dedent(ELSEWHERE)
    with subprocess.Popen(
        [sys.executable, "-c", code, fleet.trace], stdout=subprocess.PIPE
    ) as host:
        assert host.stdout is not None
        assert host.stdout.readline() == b"stands\n"
        began = time.monotonic()
        assert host.wait(60) == 0
    assert time.monotonic() - began < 6
    assert eventually(lambda: not traced(fleet.trace))


DROPPING = """
    import asyncio, gc, os, sys, time
    from vespera_agent_spawner import AgentConfig, Supervisor
    def drop():
        loop = asyncio.new_event_loop()
        async def enter():
            sup = await Supervisor(
                {"max_agents": 2, "memory_reserve": 0, "backend": "rust"}
            ).__aenter__()
            config = AgentConfig(adapter="raw", program="sleep", args=("0.05",),
                                 environment={"FAKE_TRACE": sys.argv[1]})
            work = asyncio.ensure_future(sup.run([config] * 400))
            while len(sup._admission._standing) < 4:
                await asyncio.sleep(0.002)
                time.sleep(0.04)
            return sup, work
        kept = loop.run_until_complete(enter())
        loop.close()
    def left():
        drop()
        for _ in range(50):
            gc.collect()
            time.sleep(0.02)
        return len(os.listdir("/proc/self/fd"))
    print(left(), left(), flush=True)
    time.sleep(5)
"""


def test_a_loop_that_is_thrown_away_takes_along_who_stood_by(fleet: Fleet) -> None:
    code = textwrap.dedent(DROPPING)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, fleet.trace], stdout=subprocess.PIPE
    ) as host:
        assert host.stdout is not None
        first, second = map(int, host.stdout.readline().split())
        assert second <= first + 8, "descriptors of those who stood by"
        assert eventually(lambda: not traced(fleet.trace))
        # Nor does anybody begin afterwards.
        time.sleep(0.3)
        assert not traced(fleet.trace)
        host.kill()
