"""The real CLI calls Python: hooks that watch and deny, functions as tools, and how both go wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from vespera_agent_spawner import (
    AgentConfig,
    Hook,
    Outcome,
    RunResult,
    Supervisor,
    SupervisorConfig,
    Tool,
)
from vespera_server.scripted_model import ModelRequest, Reply, Script, ScriptedModel, Text, ToolUse

pytestmark = pytest.mark.claude

Configure = Callable[..., AgentConfig]


def supervisor(backend: str) -> Supervisor:
    return Supervisor(SupervisorConfig(max_agents=4, memory_reserve=0, backend=backend))


def use(name: str, **arguments: Any) -> Reply:
    return Reply(ToolUse(f"mcp__host__{name}", arguments))


def bash(command: str) -> Reply:
    return Reply(ToolUse("Bash", {"command": command, "description": "test"}))


def repeat_result(request: ModelRequest) -> Reply:
    return Reply(Text(f"it said {request.last_tool_result}"))


def run(backend: str, config: AgentConfig) -> RunResult:
    async def main() -> RunResult:
        async with supervisor(backend) as sup:
            [result] = await sup.run([config])
        return result

    return asyncio.run(main())


@dataclass
class Place:
    town: str
    height: float = 0.0


async def forecast(
    place: Place,
    day: Annotated[int, Field(description="days from now", ge=0)] = 0,
    unit: Literal["C", "F"] = "C",
) -> dict[str, Any]:
    """The weather at a place."""
    return {"town": place.town, "day": day, "degrees": 21 if unit == "C" else 70}


def where_am_i() -> str:
    """The thread that runs this."""
    return threading.current_thread().name


def test_a_python_function_is_a_tool(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    call = use("forecast", place={"town": "Bern"}, day=2, unit="F")
    model.add("tool", Script(call, repeat_result))

    result = run(backend, configure("tool", "[[script:tool]] go", tools=[forecast]))

    assert result.outcome is Outcome.COMPLETED
    assert '"town":"Bern"' in str(result.result)
    assert '"degrees":70' in str(result.result)


def test_the_model_sees_type_hints_as_the_schema_of_a_tool(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("tool", Script(Reply(Text("done"))))

    run(backend, configure("tool", "[[script:tool]] go", tools=[forecast]))

    bodies = [record.body for record in model.requests]
    shown = [tool for body in bodies for tool in body.get("tools", []) if "forecast" in tool["name"]]
    assert shown, [tool["name"] for body in bodies for tool in body.get("tools", [])]
    schema = shown[0]["input_schema"]
    assert shown[0]["description"] == "The weather at a place."
    assert schema["properties"]["day"]["description"] == "days from now"
    assert schema["properties"]["unit"]["enum"] == ["C", "F"]
    assert schema["required"] == ["place"]
