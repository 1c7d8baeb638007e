"""Processes that are started before anybody needs them: for whom, how many, and how they end."""

from __future__ import annotations

import asyncio
import errno
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
from fake_agents import eventually, has_ended
from fleets import Fleet, filled, pids, spares, until
from vespera_agent_spawner import AgentConfig, Outcome, State, admission, pool
from vespera_agent_spawner.errors import AgentTimeout, SpawnError
from vespera_agent_spawner.pool import key_of


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


def test_the_next_one_boots_when_the_claimed_one_has_begun(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = 0.4
    monkeypatch.setattr(pool, "_REST", rest)

    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            held = [await sup.spawn(fleet.config())]
            await filled(sup, 1)
            claimed = time.monotonic()
            held.append(await sup.spawn(fleet.config()))
            while time.monotonic() < claimed + rest / 2:
                assert not spares(sup)
                await asyncio.sleep(0.01)
            await until(lambda: bool(spares(sup)))
            assert time.monotonic() >= claimed + rest
            await filled(sup, 1)

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
            # Seen before the start, or by it where the directory was found a moment ago.
            with pytest.raises(SpawnError, match="exist") as refused:
                await sup.spawn(fleet.config(working_directory=place))
            assert (refused.value.stage, refused.value.errno) == ("chdir", errno.ENOENT)
            assert str(place) in str(refused.value)

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


def test_nothing_is_prepared_where_it_would_keep_somebody_from_a_start(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "total_memory", lambda: 1 << 60)

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
