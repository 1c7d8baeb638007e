"""The place that is made for an agent: entered before its start, left when its tree is empty."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from fake_agents import traced
from fleets import Fleet, until
from vespera_agent_spawner import AgentConfig, Outcome, RunResult, State, workspaces
from vespera_agent_spawner.errors import AgentTimeout, ConfigError, SpawnError

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
    assert f"its workspace '{tmp_path}' could not be left: OSError('it is busy')" in caplog.text


class Room(contextlib.AbstractAsyncContextManager[Path]):
    """A workspace that is no generator, which would be closed when nobody holds it."""

    def __init__(self, place: Path, entering: float = 0, leaving: float = 0) -> None:
        self.place = place
        self.entering = entering
        self.leaving = leaving
        self.trace = ""
        self.told: list[str] = []

    async def __aenter__(self) -> Path:
        self.told.append("entering")
        await asyncio.sleep(self.entering)
        return self.place

    async def __aexit__(self, *_: object) -> None:
        self.told.append("leaving" if not self.trace or not traced(self.trace) else "too early")
        await asyncio.sleep(self.leaving)
        self.told.append("left")


@pytest.mark.filterwarnings("ignore:agent .* was dropped:ResourceWarning")
@pytest.mark.parametrize("prompt", [None, "hang"])
def test_one_that_is_dropped_leaves_it_when_its_tree_has_ended(
    fleet: Fleet, tmp_path: Path, prompt: str | None
) -> None:
    async def main() -> None:
        first, second = Room(tmp_path), Room(tmp_path, leaving=0.2)
        first.trace = fleet.trace
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config(prompt, workspace=lambda: first))
            del agent
            gc.collect()
            await until(lambda: first.told == ["entering", "leaving", "left"])
            agent = await sup.spawn(fleet.config(prompt, workspace=lambda: second))
            del agent
            gc.collect()
        assert second.told == ["entering", "leaving", "left"]

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.filterwarnings("ignore:agent .* was dropped:ResourceWarning")
def test_runs_that_were_thrown_away_leave_theirs(fleet: Fleet, tmp_path: Path) -> None:
    async def main() -> None:
        room = Room(tmp_path)
        async with fleet.supervisor() as sup:
            runs = sup.run([fleet.config("hang", workspace=lambda: room)])
            runs.send(None)
            await until(lambda: any(agent.state == "in_turn" for agent in sup.agents()))
            runs.close()
            del runs
            gc.collect()
        assert room.told == ["entering", "leaving", "left"]

    asyncio.run(main())
    assert fleet.gone()


def test_one_that_is_never_left_is_given_up_with_a_warning(
    fleet: Fleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(workspaces, "_LEAVE_LIMIT", 0.5)

    async def main() -> None:
        rooms = [Room(tmp_path, leaving=1000) for _ in range(2)]
        async with fleet.supervisor() as sup:
            work = asyncio.ensure_future(
                sup.run([fleet.config("echo a", workspace=lambda: rooms[0])])
            )
            await until(lambda: rooms[0].told == ["entering", "leaving"])
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            held = await sup.spawn(fleet.config(workspace=lambda: rooms[1]))
        assert held.state is State.ENDED

    asyncio.run(asyncio.wait_for(main(), 20))
    warning = f"its workspace '{tmp_path}' could not be left: given up after 0.5 s"
    assert caplog.text.count(warning) == 2


@pytest.mark.parametrize(
    ("timeouts", "which", "outcome"),
    [
        ({"startup": 0.5}, "startup", Outcome.SPAWN_FAILED),
        ({"total": 0.5}, "total", Outcome.TIMED_OUT),
    ],
)
def test_one_that_is_never_there_is_a_start_that_takes_too_long(
    fleet: Fleet, tmp_path: Path, timeouts: dict[str, float], which: str, outcome: Outcome
) -> None:
    async def main() -> None:
        config = fleet.config(
            "echo a", workspace=lambda: Room(tmp_path, entering=1000), timeouts=timeouts
        )
        async with fleet.supervisor(max_starting=1) as sup:
            (result,) = await sup.run([config])
            assert result.outcome is outcome
            assert f"not there within 0.5 s (timeouts.{which})" in str(result.error)
            with pytest.raises(AgentTimeout) as caught:
                await sup.spawn(config._with(prompt=None))
            assert (caught.value.which, caught.value.after) == (which, 0.5)
            # The place that it held is free.
            (result,) = await sup.run([fleet.config("echo a")])
            assert result.outcome is Outcome.COMPLETED

    asyncio.run(asyncio.wait_for(main(), 20))
