"""Transcripts: everything that was said, private, and played back as it was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import Agents
from fleets import Fleet
from vespera_agent_spawner import ConfigError, Outcome, replay


@pytest.fixture
def fleet(backend: str, request: pytest.FixtureRequest) -> Fleet:
    return Fleet(backend, f"{request.node.name}-{id(request)}")


def test_a_run_is_played_back_as_it_was(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "run.transcript"

    async def main() -> tuple[list[Any], spawner.RunResult]:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config("permission", agent_id="a", transcript=path))
            events = [event async for event in agent]
            return events, await agent.result()

    events, result = asyncio.run(main())
    assert path.stat().st_mode & 0o777 == 0o600
    [played] = replay(path)
    assert (played.agent_id, played.adapter, played.session_id) == (
        "a",
        "claude",
        result.session_id,
    )
    assert played.result == result
    told = [(event.kind, event.raw, event.text, event.tool_name) for event in events]
    assert [(e.kind, e.raw, e.text, e.tool_name) for e in played] == told
    said = [json.loads(line) for line in played.said]
    assert said[0]["request"]["subtype"] == "initialize"
    assert said[1]["message"]["content"] == "permission"
    assert {line["type"] for line in said[2:]} == {"control_response"}


def test_nobody_needs_to_watch(fleet: Fleet, tmp_path: Path) -> None:
    async def main() -> None:
        async with fleet.supervisor(transcript_dir=tmp_path) as sup:
            configs = [fleet.config(f"echo {n}", agent_id=f"../{n}") for n in range(3)]
            assert [r.outcome for r in await sup.run(configs)] == [Outcome.COMPLETED] * 3

    asyncio.run(main())
    found = sorted(tmp_path.iterdir())
    assert [path.name for path in found] == [f"..%2F{n}.transcript" for n in range(3)]
    for number, path in enumerate(found):
        [played] = replay(path)
        assert [event.kind for event in played] == ["system", "assistant", "result"]
        assert played.result is not None
        assert played.result.result == f"echo {number}"


def test_odd_lines_and_long_ones_are_kept(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "odd.transcript"

    async def main() -> None:
        async with fleet.supervisor() as sup:
            for prompt in ("unknown", "oversize"):
                await sup.run([fleet.config(prompt, transcript=path)])

    asyncio.run(main())
    odd, long = replay(path)
    kinds = [event.kind for event in odd]
    assert {"output", "thing_of_tomorrow", "result"} <= set(kinds)
    assert b"\xff\xfe\x00" in [event.raw for event in odd]
    [big] = [event for event in long if event.kind == "oversize"]
    assert (big.length, big.raw) == (65 * 1024 * 1024, b"z" * 1024)
    assert path.stat().st_size < 1024 * 1024


def test_a_session_is_written_too(agents: Agents, tmp_path: Path) -> None:
    path = tmp_path / "session.transcript"
    name = agents.spawn(transcript=str(path))
    agents.say(name, "echo one")
    spawner.shutdown_claude_agent(name)
    [played] = replay(path)
    assert [event.text for event in played if event.kind == "result"] == ["echo one"]
    assert played.result is None


def test_a_transcript_that_cannot_be_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "no" / "such"

    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(spawner.SpawnError, match="transcript") as caught:
                await sup.spawn(fleet.config("echo", transcript=path))
            assert caught.value.stage == "transcript"
            assert sup.agents() == []

    asyncio.run(main())


def test_a_disk_that_fills_up_ends_the_transcript_and_not_the_agent(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every write to it says ENOSPC; the first record would refuse the agent.
    monkeypatch.setattr("vespera_agent_spawner.adapters.launch.begin_transcript", lambda *_: None)

    async def main() -> spawner.RunResult:
        async with fleet.supervisor() as sup:
            return (await sup.run([fleet.config("echo on", transcript="/dev/full")]))[0]

    assert asyncio.run(main()).result == "echo on"
    assert "is not whole: " in caplog.text


def test_a_file_that_is_no_transcript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("hello\n")
    with pytest.raises(ConfigError, match="line 1 is no record"):
        replay(path)


def test_a_cut_off_record_is_left_out(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "cut.transcript"

    async def main() -> None:
        async with fleet.supervisor() as sup:
            await sup.run([fleet.config("echo a", transcript=path)])

    asyncio.run(main())
    path.write_bytes(path.read_bytes()[:-20])
    [played] = replay(path)
    assert played.result is None
    assert [event.kind for event in played] == ["system", "assistant", "result"]
