"""The real CLI when the service refuses, when it is asked to change, and with its users' flags."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vespera_agent_spawner import AgentConfig, Outcome, State, Supervisor, SupervisorConfig
from vespera_server.scripted_model import Failure, Reply, Script, ScriptedModel, Text, ToolUse

pytestmark = pytest.mark.claude

Configure = Callable[..., AgentConfig]


def supervisor(backend: str) -> Supervisor:
    return Supervisor(
        SupervisorConfig(
            max_agents=4, memory_reserve=0, backend=backend, on_auth_failure="continue"
        )
    )


def bash(command: str) -> Reply:
    return Reply(ToolUse("Bash", {"command": command, "description": "test"}))


def test_what_the_service_refuses_is_told_apart(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    # Ten tries and their pauses would take minutes; refused credentials are given up after three,
    # the others are ended by the limit on the turn.
    cases = {
        "login": (Failure(401), 60.0, Outcome.AUTH_FAILED, "HTTP 401"),
        "busy": (Failure(429), 3.0, Outcome.RATE_LIMITED, "HTTP 429"),
        "full": (Failure(529), 60.0, Outcome.RATE_LIMITED, "529"),
        "down": (Failure(500), 3.0, Outcome.TIMED_OUT, "HTTP 500"),
    }
    for name, (step, *_) in cases.items():
        model.add(name, Script(then=step))

    async def main() -> None:
        async with supervisor(backend) as sup:
            began = time.monotonic()
            results = await sup.run(
                [
                    configure(name, f"[[script:{name}]] go")._with(
                        timeouts={"turn": turn, "startup": 60}
                    )
                    for name, (_, turn, _, _) in cases.items()
                ]
            )
        assert time.monotonic() - began < 60
        for result, (name, (_, _, outcome, words)) in zip(results, cases.items(), strict=True):
            assert result.outcome is outcome, (name, result)
            assert words in str(result.error), (name, result)

    asyncio.run(main())


def test_model_and_permission_mode_change_between_turns(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("chat", Script(then=Reply(Text("said"))))

    async def main() -> None:
        async with supervisor(backend) as sup:
            chat = await sup.spawn(configure("chat", None))
            await chat.run("[[script:chat]] one")
            await chat.set_model("claude-haiku-4-5")
            await chat.set_permission_mode("plan")
            await chat.run("two")
            await chat.shutdown()

    asyncio.run(main())
    used = [r.request.model for r in model.requests if r.request and r.script == "chat"]
    assert len(used) >= 2
    assert used[0] != used[-1]
    assert "haiku" in used[-1]


def test_an_ask_is_withdrawn_when_its_turn_is_interrupted(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("ask", Script(bash("touch made"), Reply(Text("on we go"))))

    async def main() -> None:
        asked, decide = asyncio.Event(), asyncio.Event()

        async def decided(tool: str, given: Mapping[str, Any]) -> bool:
            asked.set()
            await decide.wait()
            return True

        async with supervisor(backend) as sup:
            chat = await sup.spawn(configure("ask", None, on_permission=decided))
            turn = asyncio.ensure_future(chat.run("[[script:ask]] go"))
            await asyncio.wait_for(asked.wait(), 30)
            assert chat.state is State.WAITING_FOR_PERMISSION
            await chat.interrupt()
            assert (await turn).outcome is Outcome.CANCELLED
            # The answer that nobody waits for any more disturbs nobody.
            decide.set()
            assert (await chat.run("and now?")).result == "on we go"

    asyncio.run(main())


def test_the_flags_that_users_know_are_taken(
    backend: str, configure: Configure, model: ScriptedModel, tmp_path: Path
) -> None:
    plugins = [tmp_path / "one", tmp_path / "two"]
    for folder in plugins:
        (folder / ".claude-plugin").mkdir(parents=True)
        manifest = f'{{"name": "{folder.name}", "version": "1.0.0", "description": "d"}}'
        (folder / ".claude-plugin" / "plugin.json").write_text(manifest)
    model.add("flags", Script(then=Reply(Text("taken"))))
    long = "You are tested. " * 20_000

    async def main() -> None:
        async with supervisor(backend) as sup:
            config = configure(
                "flags",
                "[[script:flags]] go",
                args=tuple(f"--plugin-dir={folder}" for folder in plugins),
                system_prompt=long,
                append_system_prompt="Be brief. " * 2_000,
                effort="low",
                max_turns=3,
                fallback_model="claude-haiku-4-5",
                disallowed_tools=["WebSearch"],
                mcp_config={"mcpServers": {}},
                settings={"includeCoAuthoredBy": False},
                agents={"helper": {"description": "helps", "prompt": "x" * 200_000}},
                add_dirs=[tmp_path],
                include_partial_messages=True,
                extra_args={
                    "betas": "context-1m-2025-08-07",
                    "max-budget-usd": "5",
                    "setting-sources": "project",
                    "strict-mcp-config": None,
                    "tools": "Bash,Read",
                },
            )
            agent = await sup.spawn(config)
            events = [event async for event in agent]
            result = await agent.result()
        assert (result.outcome, result.result) == (Outcome.COMPLETED, "taken"), result
        begun = next(event for event in events if event.subtype == "init").data
        assert {"Bash", "Read"} <= set(begun["tools"])
        assert "Edit" not in begun["tools"]
        assert {"one", "two"} <= {plugin["name"] for plugin in begun["plugins"]}
        assert any(event.kind == "stream_event" for event in events)

    asyncio.run(main())
    [request, *_] = [r.request for r in model.requests if r.request and r.script == "flags"]
    assert long.strip() in str(request.body["system"])
    assert {name for name in request.tool_names if name in ("Bash", "Read", "Edit")} == {
        "Bash",
        "Read",
    }


def test_the_last_conversation_goes_on(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    model.add("talk", Script(Reply(Text("first")), Reply(Text("second"))))

    async def main() -> None:
        async with supervisor(backend) as sup:
            config = configure("talk", "[[script:talk]] go")
            [first] = await sup.run([config])
            [second] = await sup.run([config._with(prompt="go on", extra_args={"continue": None})])
        assert (first.result, second.result) == ("first", "second")
        assert first.session_id == second.session_id

    asyncio.run(main())
