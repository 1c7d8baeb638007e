"""Processes that are started before anybody needs them: for whom, how many, and how they end."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import FAKE, eventually, has_ended
from fleets import Fleet, until
from vespera_agent_spawner import Agent, AgentConfig, Event, Outcome, State, Supervisor, pool
from vespera_agent_spawner.errors import AgentTimeout, SpawnError
from vespera_agent_spawner.pool import key_of


def spares(sup: Supervisor) -> list[Any]:
    assert sup._pool is not None
    return sup._pool._spares


async def filled(sup: Supervisor, count: int) -> None:
    await until(lambda: [spare.ready for spare in spares(sup)] == [True] * count)


def pids(sup: Supervisor) -> set[int]:
    return {spare.session.pid for spare in spares(sup)}


def directories(*pids: int | None) -> set[str]:
    return {str(Path(f"/proc/{pid}/cwd").readlink()) for pid in pids}


def test_the_next_runs_have_their_process_before_their_place(fleet: Fleet, tmp_path: Path) -> None:
    async def main() -> None:
        places = [tmp_path / str(number) for number in range(4)]
        for place in places:
            place.mkdir()
        async with fleet.supervisor(warm=2, max_agents=1) as sup:
            first = [fleet.config("hang")]
            rest = [fleet.config("environment", working_directory=place) for place in places]
            work = asyncio.ensure_future(sup.run([*first, *rest]))
            await filled(sup, 2)
            waiting = pids(sup)
            (running,) = sup.agents()
            await until(lambda: running.state is State.IN_TURN)
            await running.interrupt()
            results = await work
            assert [result.outcome for result in results[1:]] == [Outcome.COMPLETED] * 4
            # Each in its own directory, whoever was prepared for it.
            told = [json.loads(result.result or "")["PWD"] for result in results[1:]]
            assert told == [str(place) for place in places]
            assert not waiting & pids(sup)

    asyncio.run(main())
    assert fleet.gone()


def test_who_comes_again_finds_a_process_like_the_last(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            chat = await sup.spawn(fleet.config(agent_id="first"))
            await filled(sup, 1)
            waiting = pids(sup)
            again = await sup.spawn(fleet.config(agent_id="second"))
            assert (again.pid in waiting, again.agent_id) == (True, "second")
            assert again.info().agent_id == "second"
            assert again.session_id != chat.session_id
            assert (await again.run("echo a")).result == "echo a"
            (result,) = await sup.run([fleet.config("echo b")])
            assert (result.result, result.turns) == ("echo b", 1)
            assert spawner.metrics()["vespera_pool_warm"] >= 0.0

    asyncio.run(main())
    assert fleet.gone()


def test_a_claimed_run_has_events_result_and_end_of_its_own(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            await (await sup.spawn(fleet.config())).shutdown()
            await filled(sup, 1)
            waiting = pids(sup)
            agent = await sup.spawn(fleet.config("echo hello"))
            assert agent.pid in waiting
            events = [event async for event in agent]
            assert [e.text for e in events if e.kind == "assistant"] == ["echo hello"]
            result = await agent.result()
            assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo hello")
            assert result.time_to_first_output is not None
            assert result.time_to_first_output < result.duration

    asyncio.run(main())


@pytest.mark.parametrize("prompt", ["die", "crash", "leave", "task"])
def test_a_claimed_process_that_misbehaves_is_ended_like_any_other(
    fleet: Fleet, prompt: str
) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            cold = (await sup.run([fleet.config(prompt)]))[0]
            await filled(sup, 1)
            warm = (await sup.run([fleet.config(prompt)]))[0]
            assert (warm.outcome, warm.orphans_reaped) == (cold.outcome, cold.orphans_reaped)

    asyncio.run(main())
    assert fleet.gone()


def test_limits_of_time_begin_with_the_owner(fleet: Fleet) -> None:
    async def main() -> None:
        timeouts = {"total": 0.8}
        async with fleet.supervisor(warm=1) as sup:
            (result,) = await sup.run([fleet.config("echo a", timeouts=timeouts)])
            await filled(sup, 1)
            waiting = pids(sup)
            await asyncio.sleep(1.2)
            assert pids(sup) == waiting
            (result,) = await sup.run([fleet.config("hang", timeouts=timeouts)])
            assert result.outcome is Outcome.TIMED_OUT
            assert 0.7 < result.duration < 8

    asyncio.run(main())


def test_what_differs_before_the_first_prompt_is_never_shared(fleet: Fleet) -> None:
    base: dict[str, Any] = {"model": "haiku", "environment": {"A": "1"}}
    same: list[dict[str, Any]] = [
        {"prompt": "x"},
        {"agent_id": "a"},
        {"priority": 3},
        {"retry": {"attempts": 2}},
    ]
    differing: list[dict[str, Any]] = [
        {"model": "opus"},
        {"environment": {"A": "2"}},
        {"environment": {"A": "1", "B": "1"}},
        {"working_directory": "/"},
        {"system_prompt": "s"},
        {"allowed_tools": ["Bash"]},
        {"mcp_config": {"mcpServers": {}}},
        {"limits": {"open_files": 64}},
        {"timeouts": {"turn": 3}},
        {"overflow": "block"},
        {"on_permission": lambda tool, given: True},
        {"extra_args": {"debug": None}},
        {"budget": {"usd": 1}},
    ]

    def key(**more: Any) -> str | None:
        return key_of(AgentConfig.from_mapping({**base, **more}), counting=False)

    assert {key(**more) for more in same} == {key()}
    keys = [key(), *(key(**more) for more in differing)]
    assert len(set(keys)) == len(keys)
    assert key_of(AgentConfig(**base), counting=True) != key()
    cold: list[dict[str, Any]] = [
        {"resume": "s"},
        {"transcript": "/tmp/t"},
        {"adapter": "raw", "program": "sh"},
    ]
    assert [key_of(AgentConfig.from_mapping(one), counting=False) for one in cold] == [None] * 3


def test_a_changed_environment_of_the_host_is_another_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = key_of(AgentConfig(), counting=False)
    monkeypatch.setenv("A_NEW_ONE", "1")
    assert key_of(AgentConfig(), counting=False) != before


def test_none_waits_in_a_directory_that_another_has_replaced(fleet: Fleet, tmp_path: Path) -> None:
    async def main() -> None:
        place = tmp_path / "place"
        place.mkdir()
        async with fleet.supervisor(warm=2) as sup:
            await (await sup.spawn(fleet.config(working_directory=place))).shutdown()
            await filled(sup, 2)
            waiting = pids(sup)
            place.rmdir()
            place.mkdir()
            chat = await sup.spawn(fleet.config(working_directory=place))
            assert directories(chat.pid) == {str(place)}
            # Those that wait now are of the new one too.
            await until(lambda: not pids(sup) & waiting)
            await filled(sup, 2)
            assert directories(*pids(sup)) == {str(place)}
            place.rmdir()
            with pytest.raises(SpawnError, match="does not exist"):
                await sup.spawn(fleet.config(working_directory=place))

    asyncio.run(main())
    assert fleet.gone()


def test_they_start_at_intervals_like_all_others(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=3, start_interval=0.4) as sup:
            began = time.monotonic()
            chat = await sup.spawn(fleet.config())
            await filled(sup, 3)
            await chat.shutdown()
            starts = [began, *(spare.since for spare in spares(sup))]
            gaps = [after - before for before, after in itertools.pairwise(starts)]
            assert min(gaps) > 0.39

    asyncio.run(main())


def test_a_spare_that_died_is_not_handed_out_and_its_kind_rests(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            await (await sup.spawn(fleet.config())).shutdown()
            await filled(sup, 1)
            (pid,) = pids(sup)
            os.kill(pid, 9)
            await until(lambda: spares(sup) == [])
            chat = await sup.spawn(fleet.config())
            assert (await chat.run("echo a")).result == "echo a"
            await chat.shutdown()

    asyncio.run(main())
    assert fleet.gone()


def test_a_spare_that_died_while_the_loop_was_busy_is_not_handed_out(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            await (await sup.spawn(fleet.config())).shutdown()
            await filled(sup, 1)
            (pid,) = pids(sup)
            os.kill(pid, signal.SIGKILL)
            # The loop hears of nothing meanwhile.
            assert eventually(functools.partial(has_ended, pid))
            (result,) = await sup.run([fleet.config("echo b")])
            assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo b")

    asyncio.run(main())
    assert fleet.gone()


def test_a_cli_that_never_gets_ready_is_not_prepared_again_and_again(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=2) as sup:
            (result,) = await sup.run([fleet.config("echo a", "exit")])
            assert result.outcome is Outcome.SPAWN_FAILED
            await asyncio.sleep(1)
            assert spares(sup) == []
            began = spawner.metrics().get('vespera_spawns_total{outcome="spawn_failed"}', 0)
            await asyncio.sleep(0.5)
            ended = spawner.metrics().get('vespera_spawns_total{outcome="spawn_failed"}', 0)
            assert began == ended

    asyncio.run(main())


def test_old_ones_are_replaced(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_MAX_AGE", 0.4)
    monkeypatch.setattr(pool, "_LOOK_EVERY", 0.1)

    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            await (await sup.spawn(fleet.config())).shutdown()
            await filled(sup, 1)
            old = pids(sup)
            await until(lambda: bool(spares(sup)) and not pids(sup) & old)
            await until(
                lambda: bool(pids(sup)) and all(not Path(f"/proc/{p}").exists() for p in old)
            )

    asyncio.run(main())


def test_nothing_is_prepared_where_it_would_keep_somebody_from_a_start(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=4, max_agents=2, max_starting=1) as sup:
            configs = [fleet.config("echo a") for _ in range(6)]
            results = await sup.run(configs)
            assert [result.outcome for result in results] == [Outcome.COMPLETED] * 6
            await filled(sup, 4)
        reserve = 1 << 60
        async with fleet.supervisor(warm=2, memory_reserve=reserve) as sup:
            with pytest.raises(AgentTimeout, match="memory_reserve"):
                await sup.spawn(fleet.config(timeouts={"queue": 0.3}))
            assert spares(sup) == []

    asyncio.run(main())


# -- CLIs that another library speaks with ---------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake has booted after some milliseconds."""
    monkeypatch.setattr(pool, "_BOOT", 0.2)


def relay(fleet: Fleet, how: str = "", *args: str, **fields: Any) -> AgentConfig:
    command = (str(FAKE), "--input-format", "stream-json", *args)
    return fleet.config(None, how)._with(adapter="relay", args=command, **fields)


def lines(*frames: Any) -> bytes:
    return b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)


def said(text: str) -> dict[str, Any]:
    return {"type": "user", "uuid": "u", "message": {"role": "user", "content": text}}


GREETING = {"type": "control_request", "request_id": "mine", "request": {"subtype": "initialize"}}


async def told(agent: Agent, *frames: Any) -> list[Event]:
    """Says these, ends the input and hears everything."""
    agent.write(lines(*frames))
    agent.end_input()
    return [event async for event in agent]


async def warmed(sup: Supervisor, config: AgentConfig, count: int = 1) -> set[int]:
    await told(await sup.spawn(config))
    await filled(sup, count)
    return pids(sup)


@pytest.mark.usefixtures("quick")
def test_a_claimed_relayed_cli_is_like_one_that_started_cold(fleet: Fleet) -> None:
    runs = 'vespera_runs_total{outcome="completed"}'

    async def one(sup: Supervisor, agent_id: str) -> tuple[Any, int | None]:
        before = spawner.metrics().get(runs, 0.0)
        agent = await sup.spawn(relay(fleet, agent_id=agent_id))
        assert agent.state is State.READY
        info = agent.info()
        assert (agent.agent_id, info.agent_id, info.turns) == (agent_id, agent_id, 0)
        assert abs(time.time() - info.started_at) < 0.5
        events = await told(agent, GREETING, said("echo a"), said("fail"), said("echo b"))
        result = await agent.result()
        assert spawner.metrics()[runs] == before + 1
        assert result.time_to_first_output is not None
        assert result.time_to_first_output < result.duration
        kinds = [(event.kind, event.text) for event in events]
        words = (result.outcome, result.result, result.turns, result.cost_usd, result.usage)
        return (kinds, words, agent.info().outcome, result.exit), agent.pid

    async def main() -> None:
        async with fleet.supervisor(warm=1, on_auth_failure="continue") as sup:
            cold, _ = await one(sup, "cold")
            await filled(sup, 1)
            waiting = pids(sup)
            # It waits a little, as its clock would show.
            await asyncio.sleep(0.6)
            warm, pid = await one(sup, "warm")
            assert pid in waiting
            assert warm == cold
            assert warm[1][:3] == (Outcome.COMPLETED, "echo b", 3)

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("how", "begins"),
    [("hooked", ["system", "control_request", "system"]), ("gabby", ["system"] * 64)],
)
def test_what_a_relayed_cli_says_of_its_start_is_its_owners(
    fleet: Fleet, how: str, begins: list[str]
) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            waiting = await warmed(sup, relay(fleet, how))
            (spare,) = spares(sup)
            await until(lambda: spare.session.backlog()[0] == len(begins))
            agent = await sup.spawn(relay(fleet, how))
            assert agent.pid in waiting
            kinds = [event.kind for event in await told(agent, GREETING, said("echo a"))]
            assert kinds == [*begins, "control_response", "system", "assistant", "result"]
            if how == "hooked":
                assert "a hook was slow" in agent.stderr_tail

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_a_relayed_cli_that_speaks_unasked_is_not_handed_out(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=2) as sup:
            await (await sup.spawn(relay(fleet, "noise"))).shutdown()
            assert sup._pool is not None
            kept = sup._pool
            await until(lambda: bool(kept._broken) and spares(sup) == [])
            agent = await sup.spawn(relay(fleet, "noise"))
            kinds = [event.kind for event in await told(agent, GREETING, said("echo a"))]
            assert kinds[:4] == ["output", "output", "system", "control_response"]
            assert spares(sup) == []

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_a_relayed_cli_that_spoke_while_the_loop_was_busy_is_not_handed_out(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            waiting = await warmed(sup, relay(fleet))
            (spare,) = spares(sup)
            if fleet.backend == "python":
                spare.session.event("output", b"hello", 5, None)
            else:
                # What it reads is answered; the loop hears of nothing meanwhile.
                spare.session.write(lines(GREETING))
                assert eventually(lambda: spare.session.backlog()[0] == 1)
            agent = await sup.spawn(relay(fleet))
            assert agent.pid not in waiting

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_the_limit_of_a_relayed_cli_begins_with_its_owner(fleet: Fleet) -> None:
    async def main() -> None:
        config = relay(fleet, timeouts={"total": 0.8})
        async with fleet.supervisor(warm=1) as sup:
            waiting = await warmed(sup, config)
            await asyncio.sleep(1.2)
            agent = await sup.spawn(config)
            assert agent.pid in waiting
            agent.write(lines(GREETING, said("hang")))
            result = await agent.result()
            assert result.outcome is Outcome.TIMED_OUT
            assert 0.7 < result.duration < 8

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("prompt", ["die", "crash", "leave"])
def test_a_claimed_relayed_cli_that_misbehaves_ends_like_any_other(
    fleet: Fleet, prompt: str
) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            ends = []
            for _ in range(2):
                agent = await sup.spawn(relay(fleet))
                await told(agent, GREETING, said(prompt))
                result = await agent.result()
                ends.append((result.outcome, result.exit, result.error, result.orphans_reaped))
                await filled(sup, 1)
            assert ends[0] == ends[1]

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_relayed_clis_are_started_ahead_for_those_who_wait(fleet: Fleet) -> None:
    async def main() -> None:
        # Dollars are counted at its end and change nothing of its command line.
        async with fleet.supervisor(warm=1, max_agents=1, budget={"usd": 9}) as sup:
            first = await sup.spawn(relay(fleet))
            waits = asyncio.ensure_future(sup.spawn(relay(fleet, environment={"OTHER": "1"})))
            await until(lambda: sup.waiting == 1)
            ((config, _, counting),) = sup._next_ones(1)
            key = key_of(config, counting=counting)
            await until(lambda: [spare.key for spare in spares(sup)] == [key])
            await filled(sup, 1)
            waiting = pids(sup)
            await first.shutdown()
            agent = await waits
            assert agent.pid in waiting
            await told(agent, GREETING, said("echo a"))
            assert (await agent.result()).cost_usd == 0.25
            assert sup._purse is not None
            assert sup._purse.left_usd == 8.75

    asyncio.run(main())
    assert fleet.gone()


def test_a_relayed_cli_that_is_one_conversations_starts_cold() -> None:
    def key(*args: str, **fields: Any) -> str | None:
        config = AgentConfig(adapter="relay", program="claude", args=args, **fields)
        return key_of(config, counting=False)

    frames = ("--input-format", "stream-json")
    warm = key(*frames)
    assert warm is not None
    assert key("--input-format=stream-json") not in (None, warm)
    own: list[tuple[str, ...]] = [
        ("--resume=abc",),
        ("--resume", "abc"),
        ("-r", "abc"),
        ("-pc",),
        ("--continue",),
        ("--session-id=abc",),
        ("--resume-session-at=abc",),
        ("--fork-session",),
        ("--worktree",),
    ]
    assert [key(*one, *frames) for one in own] == [None] * len(own)
    assert key() is key("--input-format", "text") is None
    assert key(*frames, transcript="/tmp/t") is None
    assert key(*frames, environment={"TRACEPARENT": "00-1-2-01"}) is None
    differing = [
        key("--model", "opus", *frames),
        key(*frames, environment={"A": "1"}),
        key(*frames, limits={"open_files": 64}),
        key(*frames, working_directory="/"),
    ]
    assert len({warm, *differing}) == len(differing) + 1


def test_a_file_that_its_command_line_names_is_part_of_what_it_is(tmp_path: Path) -> None:
    settings, place = tmp_path / "settings.json", tmp_path / "place"
    settings.write_text("{}")
    place.mkdir()

    def key(*args: str) -> str | None:
        config = AgentConfig(
            adapter="relay",
            program="claude",
            args=(*args, "--add-dir", str(place), "--input-format", "stream-json"),
            working_directory=tmp_path,
        )
        return key_of(config, counting=False)

    for args in (("--settings", "settings.json"), (f"--settings={settings}",)):
        before = key(*args)
        (place / "made").touch()
        assert key(*args) == before
        (place / "made").unlink()
        os.utime(settings, ns=(1, time.time_ns()))
        changed = key(*args)
        assert changed != before
        settings.rename(tmp_path / "gone")
        assert key(*args) not in (before, changed)
        (tmp_path / "gone").rename(settings)


def test_draining_and_leaving_end_them_all(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=3) as sup:
            await (await sup.spawn(fleet.config())).shutdown()
            await filled(sup, 3)
            assert await sup.drain(5)
            assert spares(sup) == []
        async with fleet.supervisor(warm=3) as sup:
            chat = await sup.spawn(fleet.config())
            await filled(sup, 3)
            assert chat.state is State.READY

    asyncio.run(main())
    assert fleet.gone()
