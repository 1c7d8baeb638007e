"""The real CLI calls Python: hooks that watch and deny, functions as tools, both going wrong."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
    shown: list[dict[str, Any]] = []

    def look(request: ModelRequest) -> Reply:
        shown.extend(request.body.get("tools", ()))
        return Reply(Text("done"))

    model.add("tool", Script(look))

    run(backend, configure("tool", "[[script:tool]] go", tools=[forecast]))

    [tool] = [tool for tool in shown if tool["name"] == "mcp__host__forecast"]
    schema = tool["input_schema"]
    assert tool["description"] == "The weather at a place."
    assert schema["properties"]["day"]["description"] == "days from now"
    assert schema["properties"]["unit"]["enum"] == ["C", "F"]
    assert schema["required"] == ["place"]


def broken(reason: str) -> None:
    raise LookupError(reason)


def unspeakable() -> Any:
    return object()


def huge() -> str:
    return "x" * 8_000_000


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (broken, {"reason": "no such town"}, "no such town"),
        (broken, {"raisin": 1}, "reason: Field required"),
        (unspeakable, {}, "JSON cannot hold"),
        (where_am_i, {}, "vespera-handler"),
    ],
)
def test_what_goes_wrong_in_a_tool_is_told_to_the_model(
    backend: str,
    configure: Configure,
    model: ScriptedModel,
    function: Callable[..., Any],
    arguments: dict[str, Any],
    words: str,
) -> None:
    model.add("tool", Script(use(function.__name__, **arguments), repeat_result))

    result = run(backend, configure("tool", "[[script:tool]] go", tools=[function]))

    assert result.outcome is Outcome.COMPLETED
    assert words in str(result.result)


def test_a_huge_result_is_the_clis_to_cut_and_the_stream_lives_on(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("tool", Script(use("huge"), use("where_am_i"), repeat_result))

    result = run(backend, configure("tool", "[[script:tool]] go", tools=[huge, where_am_i]))

    assert result.outcome is Outcome.COMPLETED
    assert "vespera-handler" in str(result.result)


def test_a_tool_that_hangs_has_a_deadline_and_holds_nothing_up(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(60)

    async def deaf() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if release.is_set():
                    raise

    model.add(
        "tool",
        Script(use("hang"), use("deaf"), use("forecast", place={"town": "Bern"}), repeat_result),
    )
    tools = [Tool(hang, timeout=0.3), Tool(deaf, timeout=0.3), forecast]

    async def main() -> RunResult:
        async with supervisor(backend) as sup:
            [result] = await sup.run([configure("tool", "[[script:tool]] go", tools=tools)])
        release.set()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return result

    result = asyncio.run(main())
    assert result.outcome is Outcome.COMPLETED
    assert '"town":"Bern"' in str(result.result)


def test_the_model_hears_that_a_tool_did_not_answer(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    model.add("tool", Script(use("hang"), repeat_result))

    result = run(backend, configure("tool", "[[script:tool]] go", tools=[Tool(hang, timeout=0.3)]))

    assert "did not answer within 0.3 s" in str(result.result)


def test_an_interrupt_ends_the_call_of_a_tool(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("tool", Script(use("wait"), Reply(Text("still here"))))

    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async with supervisor(backend) as sup:
            chat = await sup.spawn(configure("tool", None, tools=[wait]))
            turn = asyncio.ensure_future(chat.run("[[script:tool]] go"))
            await begun.wait()
            await chat.interrupt()
            assert (await turn).outcome is Outcome.CANCELLED
            await asyncio.wait_for(ended.wait(), 10)
            assert (await chat.run("and now?")).result == "still here"

    asyncio.run(main())


def test_a_killed_agent_cancels_its_handlers(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("tool", Script(use("wait")))

    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        async with supervisor(backend) as sup:
            agent = await sup.spawn(configure("tool", "[[script:tool]] go", tools=[wait]))
            await begun.wait()
            agent.kill()
            assert (await agent.result()).outcome is Outcome.KILLED
            await asyncio.wait_for(ended.wait(), 10)

    asyncio.run(main())


def test_an_own_mcp_config_stands_beside_the_hosts_tools(
    backend: str, configure: Configure, model: ScriptedModel, tmp_path: Any
) -> None:
    file = tmp_path / "servers.json"
    file.write_text('{"mcpServers": {"other": {"command": "/bin/false"}}}')
    model.add("tool", Script(use("where_am_i"), repeat_result))
    servers: list[Any] = []

    async def main() -> None:
        async with supervisor(backend) as sup:
            agent = await sup.spawn(
                configure("tool", "[[script:tool]] go", tools=[where_am_i], mcp_config=file)
            )
            async for event in agent:
                if event.subtype == "init":
                    servers.extend(event.data["mcp_servers"])
            assert "vespera-handler" in str((await agent.result()).result)

    asyncio.run(main())
    assert {server["name"] for server in servers} == {"host", "other"}


# -- hooks ---------------------------------------------------------------------------------


def test_hooks_see_what_happens(backend: str, configure: Configure, model: ScriptedModel) -> None:
    model.add("bash", Script(bash("echo $((6*7))"), repeat_result))
    seen: list[tuple[str, Any]] = []

    def note(event: dict[str, Any]) -> None:
        seen.append((event["hook_event_name"], event.get("tool_name")))

    async def anote(event: dict[str, Any]) -> None:
        note(event)

    hooks = {
        "UserPromptSubmit": note,
        "PreToolUse": [Hook(note, matcher="Bash"), Hook(note, matcher="Edit")],
        "PostToolUse": anote,
        "Stop": anote,
    }
    config = configure("hook", "[[script:bash]] go", hooks=hooks, allowed_tools=["Bash"])
    result = run(backend, config)

    assert result.result == "it said 42"
    assert seen == [
        ("UserPromptSubmit", None),
        ("PreToolUse", "Bash"),
        ("PostToolUse", "Bash"),
        ("Stop", None),
    ]


def no(event: dict[str, Any]) -> str:
    return "not on a Wednesday"


def breaks(event: dict[str, Any]) -> None:
    raise ValueError("a broken guard")


def nonsense(event: dict[str, Any]) -> Any:
    return 42


def unwritable(event: dict[str, Any]) -> Any:
    return {"reason": object()}


def leaves(event: dict[str, Any]) -> None:
    raise SystemExit(3)


async def hangs(event: dict[str, Any]) -> None:
    await asyncio.sleep(60)


def hangs_in_a_thread(event: dict[str, Any]) -> None:
    time.sleep(5)


@pytest.mark.parametrize(
    ("hook", "words"),
    [
        (no, "not on a Wednesday"),
        (breaks, "a broken guard"),
        (nonsense, "returned int"),
        (unwritable, "not JSON serializable"),
        (leaves, "SystemExit(3)"),
        (Hook(hangs, timeout=0.3), "did not answer within 0.3 s"),
        (Hook(hangs_in_a_thread, timeout=0.3), "did not answer within 0.3 s"),
    ],
)
def test_a_hook_denies_a_tool_by_its_answer_or_by_failing(
    backend: str, configure: Configure, model: ScriptedModel, hook: Any, words: str
) -> None:
    model.add("bash", Script(bash("touch made"), repeat_result))
    config = configure(
        "hook", "[[script:bash]] go", hooks={"PreToolUse": hook}, allowed_tools=["Bash"]
    )

    result = run(backend, config)

    assert result.outcome is Outcome.COMPLETED
    assert words in str(result.result)
    assert not (config.working_directory and list(Path(config.working_directory).glob("made")))


def test_a_hook_changes_what_a_tool_is_given(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("bash", Script(bash("echo wrong"), repeat_result))

    def rewrite(event: dict[str, Any]) -> dict[str, Any]:
        changed = {**event["tool_input"], "command": "echo right"}
        said = {"permissionDecision": "allow", "updatedInput": changed}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **said}}

    hooks = {"PreToolUse": rewrite}
    result = run(backend, configure("hook", "[[script:bash]] go", hooks=hooks))

    assert result.result == "it said right"


def test_a_failing_stop_hook_lets_the_agent_stop(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("plain", Script(Reply(Text("done"))))

    result = run(backend, configure("hook", "[[script:plain]] go", hooks={"Stop": breaks}))

    assert (result.outcome, result.result) == (Outcome.COMPLETED, "done")


def test_a_session_has_hooks_and_tools_too(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add(
        "both",
        Script(
            use("where_am_i"),
            Reply(Text("one")),
            use("where_am_i"),
            Reply(Text("two")),
        ),
    )
    seen: list[str] = []

    def note(event: dict[str, Any]) -> None:
        seen.append(event["tool_name"])

    async def main() -> None:
        async with supervisor(backend) as sup:
            chat = await sup.spawn(
                configure("chat", None, hooks={"PostToolUse": note}, tools=[where_am_i])
            )
            assert (await chat.run("[[script:both]] go")).result == "one"
            assert (await chat.run("again")).result == "two"
            await chat.shutdown()

    asyncio.run(main())
    assert seen == ["mcp__host__where_am_i"] * 2
