"""Lists of runs at the wrong moment: cancelled, closed and spent while something else happens."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleets import Fleet, until
from vespera_agent_spawner import AgentConfig, Outcome
from vespera_agent_spawner.admission import Admission
from vespera_agent_spawner.errors import AgentExists, ConfigError, SupervisorClosed


class Slow:
    """A workspace that takes its time, and counts."""

    def __init__(self, seconds: float, place: Path) -> None:
        self.seconds = seconds
        self.place = place
        self.entered = self.left = 0

    @contextlib.asynccontextmanager
    async def make(self) -> AsyncIterator[Path]:
        await asyncio.sleep(self.seconds)
        self.entered += 1
        try:
            yield self.place
        finally:
            await asyncio.sleep(0)
            self.left += 1


def test_nothing_starts_after_the_supervisor_was_left(fleet: Fleet, tmp_path: Path) -> None:
    slow = Slow(0.5, tmp_path)

    async def main() -> None:
        async with fleet.supervisor() as sup:
            config = fleet.config("hang", workspace=slow.make)
            work = asyncio.ensure_future(sup.run([config]))
            chat = asyncio.ensure_future(sup.spawn(config._with(prompt=None)))
            await asyncio.sleep(0.1)
        (result,) = await work
        assert result.outcome is Outcome.SPAWN_FAILED
        with pytest.raises(SupervisorClosed):
            await chat
        assert sup.agents() == []

    asyncio.run(main())
    assert (slow.entered, slow.left) == (2, 2)
    assert fleet.gone()


def test_a_run_whose_place_was_just_granted_gives_it_back(fleet: Fleet, tmp_path: Path) -> None:
    slow = Slow(0, tmp_path)

    async def main() -> None:
        async with fleet.supervisor(max_agents=1) as sup:
            chat = await sup.spawn(fleet.config())
            work = asyncio.ensure_future(sup.run([fleet.config("echo a", workspace=slow.make)]))
            await asyncio.sleep(0.1)
            await chat.shutdown()
            # The place was free a moment ago, and its workspace has not begun.
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert await sup.drain(2)

    asyncio.run(main())
    assert slow.entered == slow.left


def test_a_workspace_that_failed_once_is_cancelled_like_any_other_wait(
    fleet: Fleet, tmp_path: Path
) -> None:
    async def main() -> None:
        tries = 0

        def flaky() -> contextlib.AbstractAsyncContextManager[Path]:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise OSError("git: index.lock exists")
            return Slow(0, tmp_path).make()

        retry = {"attempts": 2, "backoff": 60}
        async with fleet.supervisor(retry=retry) as sup:
            work = asyncio.ensure_future(sup.run([fleet.config("echo a", workspace=flaky)]))
            await until(lambda: tries == 1)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert await sup.drain(2)
        assert tries == 1

    asyncio.run(main())


def test_a_refused_retry_leaves_its_workspace(fleet: Fleet, tmp_path: Path) -> None:
    slow = Slow(0, tmp_path)

    async def main() -> None:
        retry = {"attempts": 2, "backoff": 60, "on": ["failed"]}
        async with fleet.supervisor(retry=retry) as sup:
            work = asyncio.ensure_future(sup.run([fleet.config("die", workspace=slow.make)]))
            await until(lambda: slow.entered == 1 and sup.agents() == [])
            await asyncio.sleep(0.1)
            assert await sup.drain(5)
            assert slow.left == 1
            assert (await work)[0].outcome is Outcome.FAILED

    asyncio.run(main())


@pytest.mark.parametrize("yielded", [None, 7])
def test_a_workspace_without_a_directory_is_one_runs_failure(fleet: Fleet, yielded: object) -> None:
    left = []

    @contextlib.asynccontextmanager
    async def wrong() -> AsyncIterator[object]:
        try:
            yield yielded
        finally:
            left.append(1)

    async def main() -> None:
        async with fleet.supervisor() as sup:
            configs = [fleet.config("echo a"), fleet.config("echo b", workspace=wrong)]
            first, second = await sup.run(configs)
        assert first.outcome is Outcome.COMPLETED
        assert f"yielded {yielded!r}, not a directory" in str(second.error)

    asyncio.run(main())
    assert left == [1]


def test_a_workspace_that_ends_cancelled_loses_no_result(fleet: Fleet, tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def cancelled() -> AsyncIterator[Path]:
        yield tmp_path
        raise asyncio.CancelledError

    async def main() -> None:
        async with fleet.supervisor() as sup:
            work = sup.run([fleet.config("echo a", workspace=cancelled)])
            (result,) = await asyncio.wait_for(work, 20)
        assert result.outcome is Outcome.COMPLETED

    asyncio.run(main())


def test_a_place_that_comes_with_its_time_out_is_taken() -> None:
    async def main() -> None:
        house = Admission(max_agents=1, max_starting=4, start_interval=0)
        await house.enter(0, 1, "a")
        house.left_start()
        second = asyncio.ensure_future(house.enter(0, 0.05, "b"))
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_soon(house.leave)
        time.sleep(0.1)  # noqa: ASYNC251 - both are due when the loop comes back
        await second
        assert house.alive == 1
        house.left_start()
        house.leave()
        await house.enter(0, 1, "c")

    asyncio.run(main())


def test_each_run_has_the_context_of_its_caller(fleet: Fleet, tmp_path: Path) -> None:
    who = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def place() -> AsyncIterator[Path]:
        seen.append(who.get())
        yield tmp_path

    async def main() -> None:
        async with fleet.supervisor(max_agents=1) as sup:

            async def ask(name: str) -> None:
                who.set(name)
                await sup.run([fleet.config("echo a", workspace=place) for _ in range(2)])

            await asyncio.gather(*(asyncio.create_task(ask(name)) for name in ("a", "b")))

    asyncio.run(main())
    assert sorted(seen) == ["a", "a", "b", "b"]


def test_a_generated_id_is_nobody_elses(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            await sup.run([fleet.config("echo a", agent_id="agent-1")])
            chat = await sup.spawn(fleet.config(agent_id="agent-1"))
            second = await sup.spawn(fleet.config())
            assert second.agent_id == "agent-2"
            # Before it, after it, and that of another who lives.
            names = ["agent-3", None, None, "agent-5"]
            results = await sup.run([fleet.config("echo b", agent_id=name) for name in names])
            assert [result.error for result in results] == [None] * 4
            with pytest.raises(AgentExists):
                await sup.spawn(fleet.config(agent_id=chat.agent_id))

    asyncio.run(main())


def test_a_list_of_runs_leaves_nothing_to_the_garbage_collector(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(max_agents=2) as sup:
            results = await sup.run([fleet.config(prompt="echo hello") for _ in range(5)])
            assert [result.result for result in results] == ["echo hello"] * 5

    asyncio.run(main())
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        asyncio.run(main())
        gc.collect()
        ours = {type(one) for one in gc.garbage if type(one).__module__.startswith("vespera")}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not ours


def test_every_result_says_whose_it_is(fleet: Fleet) -> None:
    session = "b2860e5a-3f3a-4c6c-9a51-0d6d2f2d7a11"
    configs = [
        fleet.config("echo a", agent_id="one"),
        AgentConfig(agent_id="two", prompt="echo a", program="/nope", session_id=session),
        fleet.config("echo a"),
        fleet.config("echo a", agent_id="one"),
        # Refused before it has a place.
        fleet.config("echo a", budget={"usd": 0}),
    ]

    async def main() -> None:
        async with fleet.supervisor() as sup:
            results = await sup.run(configs)
            assert len({result.agent_id for result in results} - {""}) == 4
            assert results[4].exit is None
            assert [result.agent_id for result in results[:2]] == ["one", "two"]
            assert (results[0].outcome, results[2].outcome) == ("completed", "completed")
            assert results[2].agent_id not in {"", "one", "two"}
            assert (results[1].outcome, results[1].session_id) == ("spawn_failed", session)
            # The second of one id is refused, and says which it was.
            assert (results[3].outcome, results[3].agent_id) == ("spawn_failed", "one")
            done = [result async for result in sup.as_completed(configs[:2])]
            assert {result.agent_id for result in done} == {"one", "two"}
            chat = await sup.spawn(fleet.config(agent_id="three"))
            assert (await chat.run("echo a")).agent_id == "three"

    asyncio.run(main())


def test_what_cannot_get_better_is_not_tried_again(fleet: Fleet) -> None:
    async def main() -> None:
        retry = {"attempts": 5, "backoff": 60}
        async with fleet.supervisor(retry=retry) as sup:
            wrong = AgentConfig(adapter="raw", program="true", model="haiku")
            (result,) = await asyncio.wait_for(sup.run([wrong]), 10)
            assert result.attempts == 1
            with pytest.raises(ConfigError):
                await asyncio.wait_for(sup.spawn(wrong), 10)
            chat = await sup.spawn(fleet.config(agent_id="a"))
            with pytest.raises(AgentExists):
                await asyncio.wait_for(sup.spawn(fleet.config(agent_id="a")), 10)
            waiting = asyncio.ensure_future(sup.spawn(fleet.config(how="exit")))
            await asyncio.sleep(1)
            await chat.shutdown()
        with pytest.raises(Exception, match=r"Not logged in|closed"):
            await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


@pytest.mark.parametrize("count", [1, 3])
def test_a_busy_loop_counts_no_token_twice(fleet: Fleet, count: int) -> None:
    async def main() -> None:
        async with fleet.supervisor(budget={"tokens": 10**9}) as sup:
            work = asyncio.ensure_future(sup.run([fleet.config(f"spend {count}")]))
            for _ in range(8):
                await asyncio.sleep(0.01)
                time.sleep(0.2)  # noqa: ASYNC251 - the loop is busy
            await work
            assert sup._purse is not None
            assert sup._purse.tokens == 100 * count

    asyncio.run(main())


def test_a_turn_that_was_stopped_for_its_time_is_paid_for(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(budget={"usd": 100}) as sup:
            chat = await sup.spawn(fleet.config())
            assert (await chat.run("hang", timeout=0.5)).outcome is Outcome.TIMED_OUT
            await chat.run("echo a")
            assert sup._purse is not None
            assert sup._purse.usd == chat.info().cost_usd == 0.5
            await chat.shutdown()
            retry = {"attempts": 4, "backoff": 0, "on": ["timed_out"]}
            config = fleet.config("hang", budget={"usd": 0.25}, timeouts={"turn": 0.4}, retry=retry)
            (result,) = await sup.run([config])
            assert (result.outcome, result.attempts) == (Outcome.TIMED_OUT, 1)

    asyncio.run(main())
