"""The real CLI under a Supervisor on both backends: events, runs, permission asks, resuming."""

from __future__ import annotations

import asyncio
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
