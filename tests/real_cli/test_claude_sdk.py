"""The official SDK on our engine, with the real CLI: all that it does, and what it gains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    CLIConnectionError,
    CLINotFoundError,
    HookMatcher,
    Message,
    PermissionResultAllow,
    PermissionResultDeny,
    ProcessError,
    ResultMessage,
    SystemMessage,
    create_sdk_mcp_server,
    query,
    tool,
)

import vespera_agent_spawner as spawner
from vespera_agent_spawner import ConfigError, Outcome, State, Supervisor, SupervisorConfig
from vespera_agent_spawner.claude_sdk import SupervisedTransport
from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import (
    Failure,
    ModelRequest,
    Reply,
    Script,
    ScriptedModel,
    Text,
    ToolUse,
)

pytestmark = pytest.mark.claude

Options = Callable[..., ClaudeAgentOptions]
Work = Callable[..., Any]


@pytest.fixture
def options(claude: str, model: ScriptedModel, place: Surroundings) -> Options:
    directory = place.copy_for("sdk")
    directory.mkdir(parents=True)

    def make(**fields: Any) -> ClaudeAgentOptions:
        env = place.environment(model.base_url) | fields.pop("env", {})
        return ClaudeAgentOptions(cli_path=claude, cwd=directory, env=env, **fields)

    return make


@pytest.fixture
def work(backend: str) -> Work:
    """Runs what is given with a supervisor of this test's backend."""

    def run(main: Callable[[Supervisor], Any], warm: int = 0) -> Any:
        async def outer() -> Any:
            config = SupervisorConfig(memory_reserve=0, max_agents=4, backend=backend, warm=warm)
            async with Supervisor(config) as sup:
                result = await main(sup)
                assert sup.agents() == []
                return result

        return asyncio.run(outer())

    return run


async def told(stream: AsyncIterator[Message]) -> tuple[list[Message], ResultMessage]:
    messages = [message async for message in stream]
    [result] = [message for message in messages if isinstance(message, ResultMessage)]
    return messages, result


def bash(command: str) -> Reply:
    return Reply(ToolUse("Bash", {"command": command, "description": "test"}))


def repeat_result(request: ModelRequest) -> Reply:
    return Reply(Text(f"it said {request.last_tool_result}"))


def test_a_query_runs_on_the_engine(options: Options, model: ScriptedModel, work: Work) -> None:
    model.add("bash", Script(bash("echo $((6*7))"), repeat_result))

    async def main(sup: Supervisor) -> None:
        opts = options(allowed_tools=["Bash"])
        transport = SupervisedTransport(opts, supervisor=sup, agent_id="sdk")
        stream = query(prompt="[[script:bash]] go", options=opts, transport=transport)
        messages, result = await told(stream)
        assert result.result == "it said 42"
        [init, *_] = [one for one in messages if isinstance(one, SystemMessage)]
        info = transport.agent.info()
        assert (info.agent_id, info.state, info.turns) == ("sdk", State.ENDED, 1)
        assert info.session_id == init.data["session_id"] == result.session_id
        assert info.cost_usd == pytest.approx(result.total_cost_usd)
        whole = await transport.agent.result()
        assert (whole.outcome, whole.result) == (Outcome.COMPLETED, "it said 42")
        assert whole.usage == result.usage

    work(main)


def test_one_line_is_enough(options: Options, model: ScriptedModel) -> None:
    model.add("plain", Script(Reply(Text("done"))))

    async def one() -> str | None:
        opts = options()
        transport = SupervisedTransport(opts)
        _, result = await told(
            query(prompt="[[script:plain]] go", options=opts, transport=transport)
        )
        assert transport.agent.state is State.ENDED
        return result.result

    async def main() -> None:
        first, second = await asyncio.gather(one(), one())
        assert (first, second) == ("done", "done")

    asyncio.run(main())


def test_a_client_has_turns_and_interrupts(
    options: Options, model: ScriptedModel, work: Work
) -> None:
    slow = bash("python3 -c 'import time; time.sleep(60)'")
    model.add("slow", Script(slow, Reply(Text("still here"))))

    async def main(sup: Supervisor) -> None:
        opts = options(allowed_tools=["Bash"])
        transport = SupervisedTransport(opts, supervisor=sup)
        async with ClaudeSDKClient(opts, transport=transport) as client:
            await client.query("[[script:slow]] go")
            async for message in client.receive_response():
                if isinstance(message, AssistantMessage):
                    await client.interrupt()
            await client.query("and now?")
            _, result = await told(client.receive_response())
            assert result.result == "still here"
            assert transport.agent.usage().processes >= 1

    work(main)


async def booted(sup: Supervisor) -> set[int | None]:
    """The CLIs that wait for the next query, once one does."""
    assert sup._pool is not None
    spares = sup._pool._spares
    ready = asyncio.to_thread(eventually, lambda: any(spare.ready for spare in spares), 30)
    assert await ready
    return {spare.session.pid for spare in spares}


@pytest.mark.parametrize("warm", [0, 1])
def test_the_sdks_permissions_hooks_and_tools_are_its_own(
    options: Options, model: ScriptedModel, work: Work, warm: int
) -> None:
    """Also where the second query finds a CLI that has booted before."""
    add = ToolUse("mcp__calc__add", {"a": 40, "b": 2})
    model.add("all", Script(Reply(add), bash("touch made"), bash("mkdir made"), repeat_result))
    asked: list[str] = []
    hooked: list[str] = []

    @tool("add", "Adds.", {"a": int, "b": int})
    async def add_numbers(args: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": str(args["a"] + args["b"])}]}

    async def decide(name: str, given: dict[str, Any], context: Any) -> Any:
        asked.append(name)
        if "touch" in str(given):
            return PermissionResultDeny(message="no touching")
        return PermissionResultAllow()

    async def note(event: Any, tool_use_id: str | None, context: Any) -> Any:
        hooked.append(event["tool_name"])
        return {}

    async def main(sup: Supervisor) -> None:
        opts = options(
            can_use_tool=decide,
            hooks={"PreToolUse": [HookMatcher(hooks=[note])]},
            mcp_servers={"calc": create_sdk_mcp_server("calc", tools=[add_numbers])},
        )
        homes.append(opts.env["HOME"])
        sessions = set()
        for number in range(1 + warm):
            waiting = await booted(sup) if number else set()
            transport = SupervisedTransport(opts, supervisor=sup, agent_id=f"query-{number}")
            stream = query(prompt="[[script:all]] go", options=opts, transport=transport)
            messages, result = await told(stream)
            assert result.subtype == "success"
            assert "42" in repr(messages)
            assert "no touching" in repr(messages)
            info = transport.agent.info()
            assert (info.agent_id, info.session_id) == (f"query-{number}", result.session_id)
            assert (info.pid in waiting) == (number == 1)
            whole = await transport.agent.result()
            assert (whole.outcome, whole.result) == (Outcome.COMPLETED, result.result)
            assert whole.cost_usd == pytest.approx(result.total_cost_usd)
            sessions.add(info.session_id)
        assert len(sessions) == 1 + warm

    homes: list[str] = []
    work(main, warm)
    assert eventually(lambda: not of_home(homes[0]), 5)
    assert asked == ["mcp__calc__add", "Bash", "Bash"] * (1 + warm)
    assert hooked == asked


def test_a_client_connects_again(options: Options, model: ScriptedModel, work: Work) -> None:
    model.add("plain", Script(then=Reply(Text("done"))))

    async def main(sup: Supervisor) -> None:
        opts = options()
        client = ClaudeSDKClient(opts, transport=SupervisedTransport(opts, supervisor=sup))
        for _ in range(2):
            async with client:
                await client.query("[[script:plain]] go")
                _, result = await told(client.receive_response())
                assert result.result == "done"

    work(main)


def test_a_streamed_prompt_and_partial_messages(
    options: Options, model: ScriptedModel, work: Work
) -> None:
    model.add("two", Script(Reply(Text("one")), Reply(Text("two"))))

    async def prompts() -> AsyncIterator[dict[str, Any]]:
        for text in ("[[script:two]] go", "again"):
            yield {"type": "user", "message": {"role": "user", "content": text}}

    async def main(sup: Supervisor) -> None:
        opts = options(include_partial_messages=True)
        transport = SupervisedTransport(opts, supervisor=sup)
        stream = query(prompt=prompts(), options=opts, transport=transport)
        messages = [message async for message in stream]
        results = [one.result for one in messages if isinstance(one, ResultMessage)]
        assert results[-1] == "two"
        assert "StreamEvent" in {type(message).__name__ for message in messages}

    work(main)


def test_a_limit_ends_the_tree_and_says_so(
    options: Options, model: ScriptedModel, work: Work
) -> None:
    code = "import time; x = bytearray(1 << 30); x[::4096] = bytes(1 << 18); time.sleep(60)"
    eat = f"python3 -c '{code}'"
    model.add("eat", Script(bash(eat), repeat_result))

    async def main(sup: Supervisor) -> None:
        opts = options(allowed_tools=["Bash"])
        transport = SupervisedTransport(opts, supervisor=sup, limits={"memory": "900MiB"})
        with pytest.raises(ProcessError, match=r"limits\.memory"):
            await told(query(prompt="[[script:eat]] go", options=opts, transport=transport))

    work(main)


def test_the_fleets_budget_ends_a_query(
    options: Options, model: ScriptedModel, backend: str
) -> None:
    model.add("loop", Script(then=bash("true")))

    async def main() -> None:
        config = SupervisorConfig(memory_reserve=0, backend=backend, budget={"tokens": 100})
        async with Supervisor(config) as sup:
            opts = options(allowed_tools=["Bash"])
            transport = SupervisedTransport(opts, supervisor=sup)
            with pytest.raises(ProcessError, match=r"budget\.tokens"):
                await told(query(prompt="[[script:loop]] go", options=opts, transport=transport))
            result = await transport.agent.result()
            assert result.outcome is Outcome.BUDGET_EXCEEDED

    asyncio.run(main())


def test_refused_credentials_are_the_agents_result_and_stop_the_fleet(
    options: Options, model: ScriptedModel, work: Work
) -> None:
    model.add("refused", Script(then=Failure(401)))

    async def main(sup: Supervisor) -> None:
        opts = options(env={"CLAUDE_CODE_MAX_RETRIES": "0"})
        transport = SupervisedTransport(opts, supervisor=sup)
        with contextlib.suppress(Exception):
            await told(query(prompt="[[script:refused]] go", options=opts, transport=transport))
        result = await transport.agent.result()
        assert result.outcome is transport.agent.info().outcome is Outcome.AUTH_FAILED
        assert "401" in str(result.error)
        transport = SupervisedTransport(opts, supervisor=sup)
        with pytest.raises(CLIConnectionError, match="could not authenticate"):
            await told(query(prompt="go", options=opts, transport=transport))

    work(main)


def test_a_cli_that_fails_tells_its_stderr(
    options: Options, model: ScriptedModel, work: Work
) -> None:
    lines: list[str] = []

    async def main(sup: Supervisor) -> None:
        opts = options(extra_args={"no-such-flag": None}, stderr=lines.append)
        transport = SupervisedTransport(opts, supervisor=sup)
        with pytest.raises(ProcessError, match="no-such-flag"):
            await told(query(prompt="go", options=opts, transport=transport))

    work(main)
    assert any("no-such-flag" in line for line in lines)


def test_what_cannot_start_raises_the_sdks_errors(
    options: Options, work: Work, tmp_path: Path
) -> None:
    async def main(sup: Supervisor) -> None:
        for fields, error in (
            ({"cli_path": tmp_path / "none"}, CLINotFoundError),
            ({"cwd": tmp_path / "nowhere"}, CLIConnectionError),
            ({"user": "somebody"}, ConfigError),
        ):
            opts = ClaudeAgentOptions(**fields)
            transport = SupervisedTransport(opts, supervisor=sup)
            with pytest.raises(error):
                await told(query(prompt="go", options=opts, transport=transport))

    work(main)


def test_a_cancelled_query_leaves_nothing(
    options: Options, model: ScriptedModel, work: Work
) -> None:
    model.add("slow", Script(bash("setsid sleep 60"), repeat_result))

    async def main(sup: Supervisor) -> None:
        opts = options(allowed_tools=["Bash"])
        transport = SupervisedTransport(opts, supervisor=sup)
        began = asyncio.Event()

        async def one() -> None:
            stream = query(prompt="[[script:slow]] go", options=opts, transport=transport)
            async for message in stream:
                if isinstance(message, AssistantMessage):
                    began.set()

        asking = asyncio.ensure_future(one())
        await began.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await transport.close()
        assert transport.agent.state is State.ENDED
        with pytest.raises(CLIConnectionError):
            await transport.write("{}\n")

    work(main)


# -- containment ---------------------------------------------------------------------------

HIDE = "setsid sleep 71 & setsid sh -c 'sleep 72' & sleep 73"

HOST = """
import asyncio, json, sys
from claude_agent_sdk import ClaudeAgentOptions, query
from vespera_agent_spawner.claude_sdk import SupervisedTransport

async def main():
    options = ClaudeAgentOptions(**json.loads(sys.argv[1]))
    transport = SupervisedTransport(options) if sys.argv[2] == "ours" else None
    async for message in query(prompt="[[script:hide]] go", options=options, transport=transport):
        pass

asyncio.run(main())
"""


def of_home(home: str) -> dict[int, str]:
    """Living processes of the test, which inherit its HOME, and their command lines."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                environ = (entry / "environ").read_bytes().split(b"\0")
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if f"HOME={home}".encode() in environ and line:
                    found[int(entry.name)] = line
    return found


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(("transport", "left"), [("ours", 0), ("its own", 3)])
def test_a_killed_host_leaves_nothing_on_our_transport(
    claude: str, model: ScriptedModel, place: Surroundings, transport: str, left: int
) -> None:
    """On its own the SDK leaves all three processes of the tool: that is what is gained."""
    if not spawner.RUST_AGENT_SPAWNER_AVAILABLE:
        pytest.skip("the Python backend cannot act once its host is killed")
    model.add("hide", Script(bash(HIDE), Reply(Text("?"))))
    directory = place.copy_for("hidden")
    directory.mkdir(parents=True)
    env = place.environment(model.base_url)
    fields = {
        "cli_path": claude,
        "cwd": str(directory),
        "env": env,
        "allowed_tools": ["Bash"],
    }

    def sleepers() -> int:
        return sum(line.startswith("sleep 7") for line in of_home(env["HOME"]).values())

    host = subprocess.Popen([sys.executable, "-c", HOST, json.dumps(fields), transport])
    try:
        assert eventually(lambda: host.poll() is not None or sleepers() == 3, 60)
        assert host.poll() is None
        host.kill()
        host.wait()
        gone = eventually(lambda: not of_home(env["HOME"]), 5)
        assert gone == (left == 0)
        assert sleepers() == left
    finally:
        for pid in of_home(env["HOME"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        host.kill()
        host.wait()
