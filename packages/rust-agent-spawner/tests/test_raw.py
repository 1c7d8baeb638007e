"""The adapter raw: any program, its input, its lines, its exit."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fleets import Fleet
from vespera_agent_spawner import AgentConfig, ConfigError, Outcome, State

REFUSED = json.loads((Path(__file__).parent / "vectors" / "raw.json").read_text())["refused"]
VALUES: dict[str, Any] = {
    "allowed_tools": ["Bash"],
    "mcp_config": {"mcpServers": {}},
    "max_turns": 3,
    "extra_args": {"x": None},
}


@pytest.fixture
def fleet(backend: str, request: pytest.FixtureRequest) -> Fleet:
    return Fleet(backend, f"{request.node.name}-{id(request)}")


def shell(fleet: Fleet, script: str, **fields: Any) -> AgentConfig:
    return AgentConfig(
        adapter="raw",
        program="sh",
        args=("-c", script),
        environment={"FAKE_TRACE": fleet.trace},
        **fields,
    )


def test_the_prompt_is_its_input_and_ends(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            long = "x" * 1_000_000
            results = await sup.run(
                [
                    shell(fleet, "cat", prompt="a\u2028ü"),
                    shell(fleet, "wc -c", prompt=long),
                    shell(fleet, "wc -c"),
                    shell(fleet, "exit 0", prompt=long),
                ]
            )
        assert [r.outcome for r in results] == [Outcome.COMPLETED] * 4
        assert [(r.result or "").strip() for r in results] == ["a\u2028ü", "1000000", "0", ""]

    asyncio.run(main())


def test_a_program_that_heard_somebody_elses_signal_was_killed(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            results = await sup.run(
                [
                    shell(fleet, "trap 'exit 143' TERM; kill -TERM $$; sleep 5"),
                    shell(fleet, "kill -TERM $$"),
                    shell(fleet, "exit 42"),
                ]
            )
        assert [r.outcome for r in results] == [Outcome.KILLED] * 2 + [Outcome.FAILED]
        for result in results[:2]:
            assert "SIGTERM that was not ours" in str(result.error)

    asyncio.run(main())


def test_it_runs_to_its_exit_even_without_output(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(shell(fleet, "exec >&- 2>&-; read line < /dev/null; exit 4"))
            result = await agent.result()
        assert result.outcome is Outcome.FAILED
        assert result.exit is not None
        assert (result.exit.code, result.exit.by) == (4, "agent")

    asyncio.run(main())


@pytest.mark.parametrize("which", ["turn", "idle", "total"])
def test_a_limit_of_time_ends_it(fleet: Fleet, which: str) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([shell(fleet, "echo on; sleep 60", timeouts={which: 0.2})])
        assert result.outcome is Outcome.TIMED_OUT
        assert f"timeouts.{which}" in str(result.error)
        assert result.result == "on"

    asyncio.run(main())
    assert fleet.gone()


def test_lines_are_signs_of_life(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            script = "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.1; done"
            [result] = await sup.run([shell(fleet, script, timeouts={"idle": 0.6})])
        assert (result.outcome, result.result) == (Outcome.COMPLETED, "8")

    asyncio.run(main())


def test_an_interrupt_is_a_sigint(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            handled = await sup.spawn(
                shell(
                    fleet, "trap 'echo stopped; exit 9' INT; echo on; while :; do sleep 0.05; done"
                )
            )
            plain = await sup.spawn(shell(fleet, "echo on; exec sleep 60"))
            for agent in (handled, plain):
                assert agent.state is State.IN_TURN
                async for event in agent:
                    assert event.text == "on"
                    break
                await agent.interrupt()
            first, second = await handled.result(), await plain.result()
        assert (first.outcome, first.result) == (Outcome.CANCELLED, "stopped")
        assert second.outcome is Outcome.CANCELLED
        assert second.exit is not None
        assert (second.exit.signal, second.exit.by) == (2, "interrupt")

    asyncio.run(main())
    assert fleet.gone()


def test_cancelling_the_owner_ends_it(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sup.run([shell(fleet, "trap '' INT; sleep 60")]), 0.3)
            assert sup.agents() == []

    asyncio.run(main())
    assert fleet.gone()


def test_it_has_no_turns_and_no_requests(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(shell(fleet, "sleep 60"))
            with pytest.raises(spawner.AgentFailed, match="is a run"):
                await agent.run("more")
            with pytest.raises(spawner.AgentFailed, match="answers no requests"):
                await agent.set_model("m")
            await agent.shutdown(0.2)

    asyncio.run(main())


@pytest.mark.parametrize("name", REFUSED)
def test_settings_of_a_cli_are_refused(fleet: Fleet, name: str) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(ConfigError) as caught:
                await sup.spawn(shell(fleet, "true", **{name: VALUES.get(name, "x")}))
            assert caught.value.field == name

    asyncio.run(main())


def test_it_needs_a_program(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(ConfigError, match="program"):
                await sup.spawn(AgentConfig(adapter="raw"))

    asyncio.run(main())
    with pytest.raises(ConfigError, match="Supervisor"):
        spawner.spawn_claude_agent("x", "sh", config={"adapter": "raw"}, backend=fleet.backend)


def test_no_memory_is_reserved_for_it(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vespera_agent_spawner.admission.free_memory", lambda: 1 << 20)

    async def main() -> None:
        async with fleet.supervisor(memory_reserve=None) as sup:
            [result] = await sup.run([shell(fleet, "echo in")])
            assert result.result == "in"
            with pytest.raises(spawner.AgentTimeout, match="memory_reserve"):
                await sup.spawn(fleet.config(timeouts={"queue": 0}))

    asyncio.run(main())
