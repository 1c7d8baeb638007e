"""Events: every line arrives once and in order, whatever it is and however slow the reader."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
import threading
import time
from operator import attrgetter
from types import SimpleNamespace

import pytest

from fleets import Fleet
from vespera_agent_spawner import Event, Outcome, State


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
    assert 0 < len(big.raw) <= 1024
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


@pytest.mark.parametrize("name", ["text", "raw", "kind", "subtype", "uuid"])
def test_reading_an_event_keeps_the_interpreter(fleet: Fleet, name: str) -> None:
    """Beside a thread that computes, giving it away costs 5 ms for each event."""
    if fleet.backend == "python":
        pytest.skip("Python code that reads is interrupted anyway")
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
            assert "limits.output" in str(result.error)
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
