"""Who owns the work and who only watches: cancelled, closed and forgotten in every way.

On asyncio and on uvloop, on both backends. Nothing hangs, nothing is left, and nothing warns but
what the contract says.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import eventually
from fleets import Fleet, until
from loops import LOOPS, Complaints, available, begun, run_on
from vespera_agent_spawner import Agent, Outcome, RunResult, State, Supervisor

LIMIT = 60


@pytest.fixture(autouse=True)
def complaints() -> Iterator[Complaints]:
    yield from Complaints.listening()


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return available(str(request.param))


def play(loop: str, fleet: Fleet, work: Any) -> None:
    """Run on this loop; afterwards nothing of the agents is left."""
    run_on(loop, asyncio.wait_for(work, LIMIT))
    gc.collect()
    assert fleet.gone()


async def in_turn(sup: Supervisor, count: int) -> None:
    await until(lambda: [agent.state for agent in sup.agents()] == [State.IN_TURN] * count)


# -- owners -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["hang", "deaf", "leave", "task"])
def test_cancelling_run_ends_the_work(loop: str, fleet: Fleet, prompt: str) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            work = begun(sup.run([fleet.config(prompt), fleet.config("deaf")]))
            await until(lambda: any(agent.state is State.IN_TURN for agent in sup.agents()))
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert sup.agents() == []
            assert await asyncio.to_thread(fleet.gone)

    play(loop, fleet, main())


def test_cancelling_run_twice_is_no_way_around_the_end(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            work = begun(sup.run([fleet.config("deaf") for _ in range(3)]))
            await in_turn(sup, 3)
            for _ in range(3):
                work.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await work
        assert await asyncio.to_thread(fleet.gone)

    play(loop, fleet, main())


@pytest.mark.parametrize("how", ["", "silent"])
def test_cancelling_a_spawn_ends_what_was_starting(loop: str, fleet: Fleet, how: str) -> None:
    async def main() -> None:
        async with fleet.supervisor(max_agents=1) as sup:
            first = begun(sup.spawn(fleet.config(how="silent")))
            second = begun(sup.spawn(fleet.config(how=how)))
            await until(lambda: sorted(a.state for a in sup.agents()) == ["queued", "starting"])
            # The one that waits for a place, then the one that has it.
            for work in (second, first):
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
            await until(lambda: sup.agents() == [])
            third = await sup.spawn(fleet.config())
            assert third.state is State.READY
            await third.shutdown()

    play(loop, fleet, main())


def test_cancelling_who_iterates_as_completed_ends_the_rest(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            seen: list[RunResult] = []

            async def consume() -> None:
                configs = [fleet.config("echo fast"), fleet.config("hang"), fleet.config("deaf")]
                async for result in sup.as_completed(configs):
                    seen[len(seen) :] = [result]

            work = begun(consume())
            await until(lambda: len(seen) == 1)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert sup.agents() == []

    play(loop, fleet, main())


def test_as_completed_closed_from_another_task(loop: str, fleet: Fleet) -> None:
    """Cancel scopes that must be left by the task that entered them hang others' SDKs here."""

    async def main() -> None:
        async with fleet.supervisor() as sup:
            results = sup.as_completed([fleet.config("echo fast"), fleet.config("hang")])

            async def first() -> RunResult:
                return await anext(results)

            assert (await begun(first())).result == "echo fast"
            closing: Any = results
            await begun(closing.aclose())
            assert sup.agents() == []

    play(loop, fleet, main())


def test_as_completed_left_by_break_and_forgotten(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:

            async def glance() -> None:
                configs = [fleet.config("echo fast"), fleet.config("hang")]
                async for result in sup.as_completed(configs):
                    assert result.result == "echo fast"
                    break

            await glance()
            gc.collect()
            await until(lambda: sup.agents() == [])

    play(loop, fleet, main())


def test_as_completed_inside_aclosing(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            configs = [fleet.config("echo fast"), fleet.config("deaf")]
            async with aclosing(sup.as_completed(configs)) as results:
                async for result in results:
                    assert result.result == "echo fast"
                    break
            assert sup.agents() == []

    play(loop, fleet, main())


def test_cancelling_a_turn_leaves_a_session_that_answers(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            for number in range(3):
                work = begun(chat.run("hang"))
                await until(lambda: chat.state is State.IN_TURN)
                work.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await work
                await until(lambda: chat.state is State.READY)
                assert (await chat.run(f"echo {number}")).result == f"echo {number}"

    play(loop, fleet, main())


def test_cancelling_a_turn_that_cannot_be_interrupted_ends_the_agent(
    loop: str, fleet: Fleet
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            work = begun(chat.run("deaf"))
            await until(lambda: chat.state is State.IN_TURN)
            began = time.monotonic()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            # The interrupt has five seconds, acknowledged or not, then the tree is ended.
            result = await chat.result()
            assert 4.5 < time.monotonic() - began < 8.5
            assert result.exit is not None
            assert result.exit.by == "kill"

    play(loop, fleet, main())


def test_leaving_while_being_cancelled_still_ends_everything(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        entered = asyncio.Event()

        async def program() -> None:
            async with fleet.supervisor() as sup:
                agents = [await sup.spawn(fleet.config("deaf")) for _ in range(2)]
                agents.append(await sup.spawn(fleet.config(how="stubborn")))
                entered.set()
                await asyncio.Event().wait()

        work = begun(program())
        await entered.wait()
        work.cancel()
        # Once more while it is on its way out.
        await asyncio.wait({work}, timeout=0.2)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert await asyncio.to_thread(fleet.gone)

    play(loop, fleet, main())


# -- watchers -----------------------------------------------------------------------------------


async def watch_result(agent: Agent) -> None:
    await agent.result()


async def watch_events(agent: Agent) -> None:
    async for _ in agent:
        pass


@pytest.mark.parametrize("watch", [watch_result, watch_events])
def test_cancelling_a_watcher_ends_nothing(loop: str, fleet: Fleet, watch: Any) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config("hang"))
            for _ in range(3):
                watcher = begun(watch(agent))
                await asyncio.wait({watcher}, timeout=0.05)
                watcher.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await watcher
                del watcher
                gc.collect()
            assert agent.state is State.IN_TURN
            await agent.interrupt()
            assert (await agent.result()).outcome is Outcome.CANCELLED

    play(loop, fleet, main())


def test_several_watch_one_agent_and_all_hear_its_end(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config("hang"))
            watchers = [begun(agent.result()) for _ in range(4)]
            await asyncio.wait(watchers, timeout=0.05)
            watchers[0].cancel()
            await agent.interrupt()
            heard = await asyncio.gather(*watchers, return_exceptions=True)
        assert isinstance(heard[0], asyncio.CancelledError)
        for result in heard[1:]:
            assert isinstance(result, RunResult)
            assert result.outcome is Outcome.CANCELLED

    play(loop, fleet, main())


def test_the_merged_stream_cancelled_and_closed_from_another_task(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            stream: Any = sup.events()
            agent = await sup.spawn(fleet.config("hang"))

            async def consume(events: AsyncIterator[Any]) -> None:
                async for _ in events:
                    pass

            reader = begun(consume(stream))
            await asyncio.wait({reader}, timeout=0.05)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            await begun(stream.aclose())
            assert agent.state is State.IN_TURN
            # Another one may be opened now; this one ends with the supervisor.
            again = begun(consume(sup.events()))
            await agent.cancel()
        await again

    play(loop, fleet, main())


# -- loops --------------------------------------------------------------------------------------


def test_several_loops_in_several_threads(loop: str, fleet: Fleet) -> None:
    answers: dict[int, list[str | None]] = {}
    failures: list[BaseException] = []

    async def main(number: int) -> None:
        async with fleet.supervisor() as sup:
            configs = [fleet.config(f"echo {number}.{n}") for n in range(4)]
            answers[number] = [result.result for result in await sup.run(configs)]

    def host(number: int) -> None:
        try:
            run_on(loop, main(number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=host, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert failures == []
    assert answers == {n: [f"echo {n}.{m}" for m in range(4)] for n in range(4)}
    assert fleet.gone()


def test_a_supervisor_of_another_loop_is_refused_by_name(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:

            def elsewhere() -> None:
                with pytest.raises(spawner.ConfigError, match="the event loop") as caught:
                    asyncio.run(sup.spawn(fleet.config()))
                assert caught.value.remedy == "make one supervisor per loop"

            await asyncio.to_thread(elsewhere)

    play(loop, fleet, main())


def test_a_loop_that_dies_takes_its_agents_along(loop: str, fleet: Fleet) -> None:
    """Nobody left the ``async with``: the loop was closed under living agents."""
    kept: list[Any] = []

    async def main() -> None:
        sup = fleet.supervisor()
        await sup.__aenter__()
        kept.extend([sup, await sup.spawn(fleet.config()), await sup.spawn(fleet.config("hang"))])

    run_on(loop, main())
    # Its close has ended them, so whoever drops them drops the dead.
    assert fleet.gone()
    forget(kept)


def forget(kept: list[Any]) -> None:
    kept.clear()
    gc.collect()


def test_an_agent_that_ends_after_its_loop_disturbs_nobody(loop: str, fleet: Fleet) -> None:
    kept: list[Any] = []

    async def main() -> None:
        sup = fleet.supervisor()
        await sup.__aenter__()
        kept.extend([sup, await sup.spawn(fleet.config("task"))])

    run_on(loop, main())
    # Its frames, its result and its end come to a loop that is closed.
    assert fleet.gone()
    # The engine hears of the end a moment after the processes are gone.
    assert eventually(lambda: kept[1].state.is_over)
    kept.clear()
    gc.collect()
    run_on(loop, after(fleet))
    assert fleet.gone()


async def after(fleet: Fleet) -> None:
    async with fleet.supervisor() as sup:
        [result] = await sup.run([fleet.config("echo still")])
        assert result.result == "echo still"


def test_debug_mode_has_nothing_to_say(loop: str, fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            events = aiter(chat)
            await chat.run("echo a")
            await chat.shutdown()
            assert [event.kind async for event in events][-1] == "result"

    run_on(loop, main(), debug=True)
    assert fleet.gone()
