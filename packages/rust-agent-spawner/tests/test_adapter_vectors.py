"""Every vector of the adapters holds on both backends: argv, bytes to events, stream to outcome."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fleets import Fleet
from vespera_agent_spawner import AgentConfig, ConfigError
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.adapters.claude import claude_argv

FOLDER = Path(__file__).parent / "vectors"
PLAYER = Path(__file__).with_name("player.py")
FIELDS = ("kind", "subtype", "text", "tool_name", "is_error")


def of(name: str) -> dict[str, Any]:
    vectors: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return vectors


def cases(name: str, part: str = "vectors") -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in of(name)[part]]


@pytest.fixture
def fleet(backend: str, request: pytest.FixtureRequest) -> Fleet:
    return Fleet(backend, f"{request.node.name}-{id(request)}")


@pytest.mark.parametrize("vector", cases("claude_argv.json"))
def test_the_argv_of_claude_is_the_vectors(vector: Mapping[str, Any], backend: str) -> None:
    config, given = vector["config"], (vector["program"], vector["session_id"])
    if backend == "python":

        def argv() -> list[str]:
            return claude_argv(config, *given, vector.get("files"))

    elif vector.get("files"):
        pytest.skip("private files are made by the Python half for both backends")
    else:
        native = importlib.import_module("vespera_agent_spawner._native")

        def argv() -> list[str]:
            made: list[str] = native.claude_argv(json.dumps(config), *given)
            return made

    if "error" in vector:
        with pytest.raises(ConfigError) as caught:
            argv()
        assert caught.value.field == vector["error"]["field"]
    else:
        assert argv() == vector["argv"]


@pytest.mark.parametrize("vector", cases("raw.json", "argv"))
def test_the_argv_of_a_program_is_the_vectors(vector: Mapping[str, Any]) -> None:
    config = AgentConfig.from_mapping(vector["config"])
    argv = adapter_named("raw").argv(config.to_mapping(), vector["program"], "s", None)
    assert argv == vector["argv"]


async def played(fleet: Fleet, adapter: str, vector: Mapping[str, Any]) -> None:
    ends = vector.get("exit", None)
    play = {"pieces": vector["pieces"], "exit": ends, "greets": adapter == "claude"}
    config = AgentConfig(
        adapter=adapter,
        program=sys.executable,
        args=(str(PLAYER), json.dumps(play)),
        prompt="go",
        environment={"FAKE_TRACE": fleet.trace},
    )
    async with fleet.supervisor(on_auth_failure="continue") as sup:
        agent = await sup.spawn(config)
        events = [event async for event in agent]
        result = await agent.result()
    found = [{name: getattr(event, name) for name in FIELDS} for event in events]
    nothing = {"subtype": None, "text": None, "tool_name": None, "is_error": False}
    assert found == [{**nothing, **event} for event in vector["events"]]
    assert (result.outcome, result.result) == (vector["outcome"], vector["result"])
    assert (result.error is None) == (vector["outcome"] == "completed")


@pytest.mark.parametrize("vector", cases("claude_stream.json"))
def test_what_claude_says_is_what_the_vector_tells(vector: Mapping[str, Any], fleet: Fleet) -> None:
    asyncio.run(played(fleet, "claude", vector))


@pytest.mark.parametrize("vector", cases("raw.json"))
def test_what_a_program_says_is_what_the_vector_tells(
    vector: Mapping[str, Any], fleet: Fleet
) -> None:
    asyncio.run(played(fleet, "raw", vector))
