"""The real CLI under a Supervisor on both backends: events, runs, permission asks, resuming."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from vespera_agent_spawner import AgentConfig, Outcome, Supervisor, SupervisorConfig
from vespera_server.scripted_model import ModelRequest, Reply, Script, ScriptedModel, Text, ToolUse

pytestmark = pytest.mark.claude

Configure = Callable[..., AgentConfig]


def supervisor(backend: str) -> Supervisor:
    return Supervisor(SupervisorConfig(max_agents=4, memory_reserve=0, backend=backend))


def bash(command: str) -> Reply:
    return Reply(ToolUse("Bash", {"command": command, "description": "test"}))


def repeat_result(request: ModelRequest) -> Reply:
    return Reply(Text(f"printed {request.last_tool_result}"))


def test_a_run_shows_its_tool_and_its_text(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("bash", Script(bash("echo $((6*7))"), repeat_result))

    async def main() -> None:
        async with supervisor(backend) as sup:
            config = configure("run", "[[script:bash]] go", allowed_tools=["Bash"])
            agent = await sup.spawn(config)
            events = [event async for event in agent]
            result = await agent.result()
        assert (result.outcome, result.result) == (Outcome.COMPLETED, "printed 42")
        assert result.exit is not None
        assert result.exit.code == 0
        kinds = [(event.kind, event.subtype) for event in events]
        assert ("system", "init") in kinds
        assert ("result", "success") in kinds
        assert "Bash" in [event.tool_name for event in events if event.kind == "assistant"]
        assert result.session_id in {event.session_id for event in events}

    asyncio.run(main())


def test_a_person_decides_about_a_tool(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    asked: list[tuple[str, Mapping[str, Any]]] = []

    def decide(tool: str, given: Mapping[str, Any]) -> Any:
        asked.append((tool, given))
        return "touch" not in given["command"] or "not while the tests run"

    model.add("allowed", Script(bash("mkdir made"), repeat_result))
    model.add("denied", Script(bash("touch made"), repeat_result))

    async def main() -> None:
        async with supervisor(backend) as sup:
            results = await sup.run(
                [
                    configure(name, f"[[script:{name}]] go", on_permission=decide)
                    for name in ("allowed", "denied")
                ]
            )
        assert [result.outcome for result in results] == [Outcome.COMPLETED] * 2
        assert "not while the tests run" in str(results[1].result)

    asyncio.run(main())
    assert {tool for tool, _ in asked} == {"Bash"}


def test_a_session_interrupted_in_a_tool_goes_on(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add(
        "slow", Script(bash("python3 -c 'import time; time.sleep(60)'"), Reply(Text("still here")))
    )

    async def main() -> None:
        async with supervisor(backend) as sup:
            config = configure("chat", None, allowed_tools=["Bash"])
            chat = await sup.spawn(config)
            turn = asyncio.get_running_loop().create_task(chat.run("[[script:slow]] go"))
            async for event in chat:
                if event.tool_name == "Bash":
                    break
            await chat.interrupt()
            assert (await turn).outcome is Outcome.CANCELLED
            assert (await chat.run("and now?")).result == "still here"

    asyncio.run(main())


def test_a_session_that_goes_on_costs_what_it_does_now(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    """The CLI's total goes on with its session: resumed or forked, but not after a kill."""
    model.add("answers", Script(then=Reply(Text("yes"), input_tokens=100_000, output_tokens=1000)))
    config = configure("cost", "[[script:answers]] go")
    chat = dataclasses.replace(config, prompt=None)

    async def main() -> None:
        async with supervisor(backend) as sup:
            (first,) = await sup.run([config])
            one = first.cost_usd
            assert one is not None
            again: dict[str, Any] = {"resume": first.session_id}
            forked = {**again, "fork_session": True}
            for number, how in enumerate((again, again, forked), 2):
                (result,) = await sup.run([dataclasses.replace(config, prompt="again", **how)])
                assert result.cost_usd == pytest.approx(one)
                total = one * (4 if how is forked else number)
                assert result.total_cost_usd == pytest.approx(total)
            agent = await sup.spawn(dataclasses.replace(chat, **again))
            turns = [(await agent.run("again")).cost_usd for _ in range(2)]
            assert turns == [pytest.approx(one)] * 2
            assert agent.info().cost_usd == pytest.approx(2 * one)
            agent.kill()
            killed = await agent.result()
            assert killed.cost_usd == pytest.approx(2 * one)
            # What a killed process has cost is not in the next one's total.
            (result,) = await sup.run([dataclasses.replace(config, prompt="again", **again)])
            assert result.cost_usd == pytest.approx(one)

    asyncio.run(main())


def test_a_retry_goes_on_in_its_session_and_pays_once(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    sleep = {"command": "python3 -c 'import time; time.sleep(60)'", "description": "test"}
    slow = Reply(Text("first"), ToolUse("Bash", sleep), input_tokens=100_000, output_tokens=1000)
    model.add("late", Script(slow, then=Reply(Text("done"), input_tokens=100_000)))
    config = configure(
        "late",
        "[[script:late]] go",
        allowed_tools=["Bash"],
        retry={"attempts": 2, "backoff": 0.1, "on": ["timed_out"]},
    )
    config = dataclasses.replace(config, timeouts={"turn": 6, "startup": 60})

    async def main() -> None:
        async with Supervisor(
            SupervisorConfig(max_agents=2, memory_reserve=0, backend=backend, budget={"usd": 9})
        ) as sup:
            (result,) = await sup.run([config])
            assert (result.outcome, result.attempts, result.result) == (
                Outcome.COMPLETED,
                2,
                "done",
            )
            # Each request is paid once: the session's own total says so too.
            assert result.cost_usd == pytest.approx(result.total_cost_usd)
            assert sup._purse is not None
            assert sup._purse.usd == pytest.approx(result.cost_usd)

    asyncio.run(main())
    sessions = {record.request.session_id for record in model.requests if record.request}
    assert len(sessions) == 1


def test_a_fork_and_who_resumes_it_do_not_write_into_one_session(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("counts", Script(then=lambda asked: Reply(Text(f"{len(asked.messages)} messages"))))
    config = configure("fork", "[[script:counts]] go")
    chat = dataclasses.replace(config, prompt=None)

    async def main() -> None:
        async with supervisor(backend) as sup:
            (first,) = await sup.run([config])
            again: dict[str, Any] = {"resume": first.session_id, "fork_session": True}
            fork = await sup.spawn(dataclasses.replace(chat, **again))
            await fork.run("one")
            other = await sup.spawn(dataclasses.replace(chat, resume=fork.session_id))
            # Neither sees the other's turn.
            assert (await other.run("two")).result == (await fork.run("three")).result
            assert other.session_id != fork.session_id

    asyncio.run(main())
