"""Events: every line arrives once and in order, whatever it is and however slow the reader."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import pickle
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import pytest

from fleets import Fleet, until
from vespera_agent_spawner import (
    Agent,
    ConfigError,
    Event,
    Outcome,
    State,
    Supervisor,
    SupervisorClosed,
)
from vespera_agent_spawner.merged_events import MergedEvents


@pytest.fixture
def fleet(backend: str, request: pytest.FixtureRequest) -> Fleet:
    return Fleet(backend, f"{request.node.name}-{id(request)}")


async def all_events(fleet: Fleet, prompt: str) -> list[Event]:
    async with fleet.supervisor() as sup:
        agent = await sup.spawn(fleet.config(prompt))
        return [event async for event in agent]


def test_an_event_tells_what_it_is(fleet: Fleet) -> None:
    events = asyncio.run(all_events(fleet, "permission"))
    ask = next(event for event in events if event.kind == "control_request")
    assert isinstance(ask, Event)
    assert (ask.tool_name, ask.subtype) == ("Bash", "can_use_tool")
    result = events[-1]
    assert (result.kind, result.subtype, result.is_error) == ("result", "success", False)
    assert result.session_id
    assert result.data["num_turns"] == 1
    assert result.length == len(result.raw)


def test_odd_lines_are_events_and_the_stream_lives(fleet: Fleet) -> None:
    events = asyncio.run(all_events(fleet, "unknown"))
    kinds = [event.kind for event in events]
    assert kinds.count("thing_of_tomorrow") == 1
    assert "output" in kinds
    noise = next(event for event in events if event.kind == "output")
    assert (noise.text, noise.data) == ("this is no JSON", {})
    assert events[-1].text == "still here"


def test_a_line_over_the_cap_is_an_event_with_its_length(fleet: Fleet) -> None:
    events = asyncio.run(all_events(fleet, "oversize"))
    [big] = [event for event in events if event.kind == "oversize"]
    assert big.length == 65 * 1024 * 1024
    assert big.raw == b"z" * 1024
    assert events[-1].text == "after the oversize line"


def test_events_pickle_and_copy_without_the_extension(fleet: Fleet) -> None:
    for event in asyncio.run(all_events(fleet, "separators")):
        for other in (pickle.loads(pickle.dumps(event)), copy.copy(event), copy.deepcopy(event)):
            assert (other.kind, other.raw, other.text) == (event.kind, event.raw, event.text)
            assert other.received_at == event.received_at


def test_a_slow_reader_loses_nothing(fleet: Fleet) -> None:
    async def main() -> tuple[list[int], int]:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config())
            events = aiter(agent)
            # Twelve megabytes: three times what stays in memory.
            assert (await agent.run("burst 192 65536")).result == "after the burst"
            spilled = agent._live.backlog()[2]
            await agent.shutdown()
            numbers = [
                int((e.text or "").partition(":")[0]) async for e in events if e.kind == "assistant"
            ]
        return numbers, spilled

    numbers, spilled = asyncio.run(main())
    assert numbers == list(range(192))
    assert spilled > 4 * 1024 * 1024


def in_deleted_files() -> int:
    """Bytes in this process's files without a name."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(link.readlink()).endswith(" (deleted)"):
                total += link.stat().st_size
    return total


def test_a_reader_that_keeps_up_has_the_limit_for_what_waits(fleet: Fleet) -> None:
    async def main() -> None:
        before, most = in_deleted_files(), 0
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config(limits={"output": "20MiB"}))
            events = aiter(agent)
            # Four megabytes a turn, three turns behind: 96 megabytes, of which 16 wait.
            for turn in range(24):
                result = await agent.run("burst 64 65536")
                assert result.outcome is Outcome.COMPLETED, result.error
                most = max(most, in_deleted_files() - before)
                if turn > 2:
                    seen = [await anext(events) for _ in range(66)]
                    numbers = [int((e.text or "").partition(":")[0]) for e in seen[1:-1]]
                    assert numbers == list(range(64))
            assert agent._live.backlog()[2] > 60 * 1024 * 1024
        assert 0 < most < 56 * 1024 * 1024

    asyncio.run(main())


@pytest.mark.parametrize("name", ["text", "raw", "kind", "subtype", "uuid"])
def test_reading_an_event_keeps_the_interpreter(fleet: Fleet, name: str) -> None:
    """Beside a thread that computes, giving it away costs 5 ms for each event."""
    if fleet.backend == "python":
        pytest.skip("Python code that reads is interrupted anyway")
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("all threads have the interpreter at once")
    events = asyncio.run(all_events(fleet, "burst 400 20000"))
    laps, stop = SimpleNamespace(**{name: 0}), threading.Event()

    def run_laps() -> None:
        while not stop.is_set():
            setattr(laps, name, getattr(laps, name) + 1)

    other, interval = threading.Thread(target=run_laps), sys.getswitchinterval()
    # The other thread always asks for the interpreter, and no Python code runs between the two
    # looks at its laps: only an event that gives it away lets them grow.
    sys.setswitchinterval(1e-5)
    other.start()
    try:
        while not getattr(laps, name):
            time.sleep(0.001)
        first, *_, last = list(map(attrgetter(name), [laps, *events, laps]))
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        other.join(10)
    assert 0 < first == last


def test_drop_oldest_keeps_the_newest_and_counts(fleet: Fleet) -> None:
    async def main() -> tuple[list[int], int]:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config(overflow="drop_oldest"))
            events = aiter(agent)
            await agent.run("burst 192 65536")
            dropped = agent._live.backlog()[1]
            await agent.shutdown()
            numbers = [
                int((e.text or "").partition(":")[0]) async for e in events if e.kind == "assistant"
            ]
        return numbers, dropped

    numbers, dropped = asyncio.run(main())
    assert numbers == list(range(192 - len(numbers), 192))
    assert dropped >= 192 - len(numbers) > 0


def test_block_makes_the_agent_wait_and_loses_nothing(fleet: Fleet) -> None:
    async def main() -> list[int]:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config(overflow="block"))
            events = aiter(agent)
            await agent.send("burst 192 65536")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(agent.result(), 0.5)
            assert agent._live.backlog()[0] < 192
            numbers = []
            async for event in events:
                if event.kind == "result":
                    break
                if event.kind == "assistant":
                    numbers.append(int((event.text or "").partition(":")[0]))
            return numbers

    assert asyncio.run(main()) == list(range(192))


@pytest.mark.parametrize("read", [0, 1])
def test_block_ends_with_its_reader(fleet: Fleet, read: int) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config("burst 400 65536", overflow="block"))
            # Longer than it would take to say all of it.
            if read:
                async for _ in agent:
                    await asyncio.sleep(0.5)
                    break
            else:
                await asyncio.sleep(0.5)
                assert agent.state is State.IN_TURN
            result = await asyncio.wait_for(agent.result(), 20)
            assert result.outcome is Outcome.COMPLETED

    asyncio.run(main())


def test_more_output_than_the_limit_ends_the_agent_and_says_so(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            config = fleet.config("burst 192 65536", limits={"output": "1MiB"})
            agent = await sup.spawn(config)
            events = aiter(agent)
            result = await agent.result()
            assert result.outcome is Outcome.LIMIT_EXCEEDED
            assert "limits.output: 1." in str(result.error)
            assert "MiB of undelivered events on disk, of 1.0 MiB" in str(result.error)
            del events

    asyncio.run(main())


def test_without_an_iterator_nothing_is_kept(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            await chat.run("burst 192 65536")
            assert chat._live.backlog() == (0, 0, 0)
            events = aiter(chat)
            await chat.run("echo now")
            await chat.shutdown()
            assert [e.text async for e in events if e.kind == "assistant"] == ["echo now"]

    asyncio.run(main())


def test_who_waits_for_the_end_takes_no_event_from_who_reads(fleet: Fleet) -> None:
    async def read(agent: Agent) -> list[str]:
        return [event.kind async for event in agent]

    async def main() -> None:
        async with fleet.supervisor() as sup:
            run = await sup.spawn(fleet.config("burst 5 10"))
            await until(lambda: run._live.backlog()[0] >= 6)
            _, seen = await asyncio.gather(run.result(), read(run))
            assert (seen.count("assistant"), seen[-1]) == (5, "result")

            chat = await sup.spawn(fleet.config())
            await chat.send("echo a")
            await until(lambda: chat.state is State.READY)
            reading = asyncio.gather(chat.run("echo b"), read(chat))
            await until(lambda: chat.info().turns == 2)
            await chat.shutdown()
            _, seen = await reading
            assert seen.count("result") == 2

    asyncio.run(main())


def test_all_agents_in_one_stream(fleet: Fleet) -> None:
    async def main() -> dict[str, list[str | None]]:
        seen: dict[str, list[str | None]] = {}
        async with fleet.supervisor() as sup:
            stream = sup.events()
            work = asyncio.ensure_future(
                sup.run([fleet.config(f"echo {n}", agent_id=str(n)) for n in range(5)])
            )
            async for agent, event in stream:
                if event.kind == "assistant":
                    seen.setdefault(agent.agent_id, []).append(event.text)
                if len(seen) == 5:
                    break
            await work
        return seen

    assert asyncio.run(main()) == {str(n): [f"echo {n}"] for n in range(5)}


# -- the merged stream has an end ------------------------------------------------------------------


async def kinds(sup: Supervisor) -> list[str]:
    return [event.kind async for _, event in sup.events()]


def test_the_stream_of_a_closed_supervisor_is_over(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            reading = asyncio.ensure_future(kinds(sup))
            await asyncio.sleep(0)
            await sup.run([fleet.config("echo a")])
        assert "result" in await asyncio.wait_for(reading, 5)
        for _ in range(2):
            assert await asyncio.wait_for(kinds(sup), 5) == []

    asyncio.run(main())


def test_who_leaves_while_a_workspace_is_made_ends_the_stream(fleet: Fleet) -> None:
    making, made = asyncio.Event(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def workspace() -> AsyncIterator[str]:
        making.set()
        await made.wait()
        yield "/"

    async def main() -> None:
        async with fleet.supervisor() as sup:
            reading = asyncio.ensure_future(kinds(sup))
            starting = asyncio.ensure_future(sup.spawn(fleet.config(workspace=workspace)))
            await making.wait()
            asyncio.get_running_loop().call_later(0.2, made.set)
        with pytest.raises(SupervisorClosed):
            await starting
        assert await asyncio.wait_for(reading, 5) == []

    asyncio.run(main())


def test_a_merged_iteration_that_is_left_stops_watching_and_ends_nobody(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(limits={"output": "1MiB"}))
            seen = await sup.spawn(fleet.config(agent_id="seen"))
            await chat.send("echo a")
            async for _ in sup.events():
                # From now on nobody but the stream has it.
                del seen
                break
            gc.collect()
            assert sup.agent("seen").state is State.READY
            await until(lambda: chat.state is State.READY)
            assert (await chat.run("burst 192 65536")).outcome is Outcome.COMPLETED
            later = await sup.spawn(fleet.config())
            assert (await later.run("burst 192 65536")).outcome is Outcome.COMPLETED
            assert chat._live.backlog()[0] == later._live.backlog()[0] == 0
            # Another one is another one, and only one at a time.
            stream = sup.events()
            with pytest.raises(ConfigError, match="another merged iteration"):
                sup.events()
            await chat.send("echo b")
            assert [event.text async for _, event in _until_result(stream)] == ["echo b"]
            assert isinstance(stream, MergedEvents)
            await stream.aclose()
            assert [event async for _, event in stream] == []
            assert sup.agent("seen").state is State.READY

    asyncio.run(main())


async def _until_result(
    stream: AsyncIterator[tuple[Agent, Event]],
) -> AsyncIterator[tuple[Agent, Event]]:
    async for agent, event in stream:
        if event.kind == "assistant":
            yield agent, event
        if event.kind == "result":
            return


def test_the_merged_stream_keeps_nobody_who_is_over(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            reading = asyncio.ensure_future(kinds(sup))
            await asyncio.sleep(0)
            known = []
            for number in range(4):
                agent = await sup.spawn(fleet.config(f"echo {number}"))
                known.append(weakref.ref(agent))
                await agent.result()
                del agent
            # The one of the last event may still be somebody's loop variable.
            await until(lambda: gc.collect() >= 0 and sum(one() is not None for one in known) < 2)
        assert (await reading).count("result") == 4

    asyncio.run(main())
