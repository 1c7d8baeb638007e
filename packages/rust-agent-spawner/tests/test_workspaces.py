"""The place that is made for an agent: entered before its start, left when its tree is empty."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from fake_agents import traced
from fleets import Fleet, until
from vespera_agent_spawner import AgentConfig, Outcome, RunResult, State
from vespera_agent_spawner.errors import ConfigError, SpawnError

Make = Callable[[], AbstractAsyncContextManager[Path]]


class Places:
    """Makes directories and notes what became of them."""

    def __init__(self, root: Path, trace: str = "") -> None:
        self.root = root
        self.trace = trace
        self.entered: list[Path] = []
        self.left: list[Path] = []
        self.alive_when_left: list[int] = []

    @contextlib.asynccontextmanager
    async def make(self) -> AsyncIterator[Path]:
        place = self.root / f"place-{len(self.entered)}"
        place.mkdir()
        self.entered.append(place)
        await asyncio.sleep(0)
        try:
            yield place
        finally:
            await asyncio.sleep(0)
            self.alive_when_left += traced(self.trace) if self.trace else []
            self.left.append(place)


def run(fleet: Fleet, configs: list[AgentConfig], **more: Any) -> list[RunResult]:
    async def main() -> list[RunResult]:
        async with fleet.supervisor(**more) as sup:
            return await sup.run(configs)

    return asyncio.run(main())


def test_each_run_has_its_own_and_leaves_it_with_an_empty_tree(
    fleet: Fleet, tmp_path: Path
) -> None:
    places = Places(tmp_path, fleet.trace)
    configs = [fleet.config("leave", workspace=places.make)]
    assert run(fleet, configs)[0].outcome is Outcome.COMPLETED
    assert places.alive_when_left == []
    configs = [fleet.config("environment", workspace=places.make) for _ in range(3)]
    results = run(fleet, configs, max_agents=2)
    told = {json.loads(result.result or "")["PWD"] for result in results}
    assert told == set(map(str, places.entered[1:]))
    assert sorted(places.left) == places.entered


def test_all_attempts_of_a_run_work_in_one_place(fleet: Fleet, tmp_path: Path) -> None:
    places = Places(tmp_path)
    retry = {"attempts": 3, "backoff": 0.01, "on": ["failed"]}
    (result,) = run(fleet, [fleet.config("speak-and-die", workspace=places.make, retry=retry)])
    assert (result.outcome, result.attempts) == (Outcome.COMPLETED, 2)
    assert len(places.entered) == len(places.left) == 1


def test_a_session_has_one_until_it_ends(fleet: Fleet, tmp_path: Path) -> None:
    places = Places(tmp_path)

    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(workspace=places.make))
            told = json.loads((await chat.run("environment")).result or "")
            assert told["PWD"] == str(places.entered[0])
            assert places.left == []
            await chat.shutdown()
            await until(lambda: places.left == places.entered)
            held = await sup.spawn(fleet.config(workspace=places.make))
        assert held.state is State.ENDED
        assert places.left == places.entered

    asyncio.run(main())


@pytest.mark.parametrize("how", ["exit", "silent"])
def test_one_that_never_starts_leaves_it_too(fleet: Fleet, tmp_path: Path, how: str) -> None:
    places = Places(tmp_path)
    config = fleet.config("echo a", how, workspace=places.make, timeouts={"startup": 0.5})
    (result,) = run(fleet, [config])
    assert result.outcome is Outcome.SPAWN_FAILED
    missing = AgentConfig(program="/nowhere/cli", prompt="x", workspace=places.make)
    (result,) = run(fleet, [missing])
    assert result.outcome is Outcome.SPAWN_FAILED

    async def main() -> None:
        async with fleet.supervisor() as sup:
            for wrong in (missing._with(prompt=None), config._with(prompt=None)):
                with pytest.raises((SpawnError, TimeoutError)):
                    await sup.spawn(wrong)

    asyncio.run(main())
    assert len(places.entered) == 4
    assert places.left == places.entered


def test_cancelled_work_leaves_its_places(fleet: Fleet, tmp_path: Path) -> None:
    places = Places(tmp_path)

    async def main() -> None:
        async with fleet.supervisor(max_agents=2) as sup:
            configs = [fleet.config("hang", workspace=places.make) for _ in range(3)]
            work = asyncio.ensure_future(sup.run(configs))
            await until(lambda: len([a for a in sup.agents() if a.state == "in_turn"]) == 2)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert len(places.entered) == 2
            assert sorted(places.left) == places.entered
            assert await sup.drain(1)

    asyncio.run(main())


def test_a_place_that_cannot_be_made_is_the_runs_failure(fleet: Fleet) -> None:
    @contextlib.asynccontextmanager
    async def full() -> AsyncIterator[Path]:
        if not fleet.trace:
            yield Path()
        raise OSError("the disk is full")

    configs = [
        fleet.config("echo a", workspace=full),
        fleet.config("echo a", workspace=lambda: "/tmp"),
        fleet.config("echo a"),
    ]
    first, second, third = run(fleet, configs)
    assert first.outcome is second.outcome is Outcome.SPAWN_FAILED
    assert "its workspace could not be made: OSError('the disk is full')" in str(first.error)
    assert "gave a str, not an asynchronous context manager" in str(second.error)
    assert third.outcome is Outcome.COMPLETED

    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(ConfigError) as caught:
                await sup.spawn(fleet.config(workspace=lambda: None))
            assert caught.value.field == "workspace"
            assert sup.agents() == []

    asyncio.run(main())


def test_one_that_cannot_be_left_is_a_warning(
    fleet: Fleet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @contextlib.asynccontextmanager
    async def sticky() -> AsyncIterator[Path]:
        yield tmp_path
        raise OSError("it is busy")

    (result,) = run(fleet, [fleet.config("echo a", workspace=sticky)])
    assert result.outcome is Outcome.COMPLETED
    assert "its workspace could not be left: OSError('it is busy')" in caplog.text
