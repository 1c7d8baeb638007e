"""The wake-up of an event loop: no end is lost, whenever it comes."""

from __future__ import annotations

import asyncio
import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from vespera_agent_spawner import State, backends


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
