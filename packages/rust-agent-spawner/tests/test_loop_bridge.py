"""The wake-up of an event loop: no end is lost, whenever it comes."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleets import Fleet
from vespera_agent_spawner import AgentConfig, State, backends


def rung(native: Any) -> SimpleNamespace:
    """A native bridge that always has news of agent 1."""
    return SimpleNamespace(take=lambda: [1], fileno=native.fileno, rest=native.rest)


def test_an_end_that_comes_while_the_owner_reads_is_told() -> None:
    if backends.rust_problem() is not None:
        pytest.skip("the bridge belongs to the Rust backend")
    module = importlib.import_module("vespera_agent_spawner.backends._loop_bridge")
    session: Any = SimpleNamespace(state=State.DRAINING, was_over=False)
    seen: list[State] = []

    def news() -> bool:
        session.was_over = session.state.is_over  # what `heard` found
        seen.append(session.state)
        session.state = State.ENDED  # the reactor's thread is faster
        return True

    async def main() -> bool:
        bridge = module.LoopBridge(asyncio.get_running_loop())
        native = bridge.native
        bridge.native = rung(native)
        bridge.add(1, session, news)
        for _ in range(2):
            bridge._ring()
        assert native.take() == []
        return bool(bridge.closed)

    assert asyncio.run(main())
    assert seen == [State.DRAINING, State.ENDED]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_what_one_agents_news_raise_keeps_no_other_from_its_own(
    failure: type[BaseException],
) -> None:
    if backends.rust_problem() is not None:
        pytest.skip("the bridge belongs to the Rust backend")
    module = importlib.import_module("vespera_agent_spawner.backends._loop_bridge")
    told: list[int] = []
    reported: list[str] = []

    def news(number: int) -> bool:
        told.append(number)
        if number == 1:
            raise failure("no")
        return True

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
        bridge = module.LoopBridge(loop)
        for number in (1, 2, 3):
            session: Any = SimpleNamespace(agent_id=str(number), was_over=False)
            bridge.add(number, session, functools.partial(news, number))
            bridge.native.note(number)
        if failure is KeyboardInterrupt:
            with pytest.raises(KeyboardInterrupt):
                bridge._ring()
        bridge._ring()
        bridge._watched.clear()
        bridge.close_if_idle()

    asyncio.run(main())
    assert told == [1, 2, 3]
    assert reported == ([] if failure is KeyboardInterrupt else ["ValueError('no')"])


def test_news_that_let_go_of_their_agent_and_raise_are_reported_as_what_they_raised() -> None:
    if backends.rust_problem() is not None:
        pytest.skip("the bridge belongs to the Rust backend")
    module = importlib.import_module("vespera_agent_spawner.backends._loop_bridge")
    session: Any = SimpleNamespace(agent_id="a", was_over=True)
    raised: list[object] = []
    told: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
        bridge = module.LoopBridge(loop)

        def news() -> bool:
            bridge.forget(1)
            raise ValueError("of the owner's")

        def others() -> bool:
            told.append(2)
            return True

        bridge.add(1, session, news)
        bridge.add(2, session, others)
        bridge.native.note(1)
        bridge.native.note(2)
        bridge._ring()
        assert bridge.closed

    asyncio.run(main())
    assert [str(error) for error in raised] == ["of the owner's"]
    assert told == [2]


def test_the_end_of_an_agent_that_its_owner_dropped_lets_go_of_the_loop() -> None:
    if backends.rust_problem() is not None:
        pytest.skip("the bridge belongs to the Rust backend")
    module = importlib.import_module("vespera_agent_spawner.backends._loop_bridge")
    session: Any = SimpleNamespace(was_over=False)

    def heard() -> bool:
        session.was_over = True
        return True

    async def main() -> bool:
        bridge = module.LoopBridge(asyncio.get_running_loop())
        bridge.native = rung(bridge.native)
        session.heard = heard
        bridge.add(1, session, lambda: False)
        bridge._ring()
        return bool(bridge.closed)

    assert asyncio.run(main())


def test_loops_that_are_done_with_are_let_go(fleet: Fleet) -> None:
    if fleet.backend != "rust":
        pytest.skip("the bridge belongs to the Rust backend")
    module = importlib.import_module("vespera_agent_spawner.backends._loop_bridge")

    async def main() -> None:
        async with fleet.supervisor() as supervisor:
            await supervisor.run([AgentConfig(adapter="raw", program="/bin/true")])

    def kept() -> tuple[int, int]:
        gc.collect()
        bridges = [one for one in gc.get_objects() if isinstance(one, module.LoopBridge)]
        return len(bridges), len(list(Path("/proc/self/fd").iterdir()))

    asyncio.run(main())
    bridges, descriptors = kept()
    for _ in range(10):
        asyncio.run(main())
    after = kept()
    # The last one is let go when another loop comes; a leash may have become free meanwhile.
    assert after[0] <= bridges
    assert after[1] <= descriptors + 2


def test_a_forked_child_knows_nobody_of_its_parents(fleet: Fleet) -> None:
    if fleet.backend != "rust":
        pytest.skip("the bridge belongs to the Rust backend")

    async def main() -> None:
        async with fleet.supervisor() as supervisor:
            agent = await supervisor.spawn(fleet.config())
            backend: Any = supervisor._backend
            assert len(backend._known()) >= 1
            child = os.fork()
            if child == 0:
                # Here nothing may wait for a parent's agent, nor end it.
                code = 2
                try:
                    mine = backend.metrics()["vespera_tree_rss_bytes"]
                    code = 0 if not backend._known() and mine == 0 else 1
                    backend.close(5.0)
                finally:
                    os._exit(code)
            began = time.monotonic()
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert time.monotonic() - began < 5
            assert not agent.state.is_over
            await agent.shutdown()

    asyncio.run(main())
