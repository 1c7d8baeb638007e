"""Ends that the real CLI makes hard: servers that stay, turns cut early, endless retries."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vespera_agent_spawner import AgentConfig, Outcome, State, Supervisor, SupervisorConfig
from vespera_server.scripted_model import Failure, Reply, Script, ScriptedModel, Stall, Text

pytestmark = pytest.mark.claude

Configure = Callable[..., AgentConfig]

# Speaks MCP over its pipes, hears no SIGTERM and no end of its input, and ends itself in the end.
SERVER = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
open(os.environ["STARTED"], "a").write(f"{os.getpid()}\\n")
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    answer = {"tools": []}
    if asked["method"] == "initialize":
        answer = {"protocolVersion": asked["params"]["protocolVersion"],
                  "capabilities": {"tools": {}}, "serverInfo": {"name": "stays", "version": "1"}}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
time.sleep(120)
"""


def supervisor(backend: str, **more: Any) -> Supervisor:
    return Supervisor(SupervisorConfig(max_agents=4, memory_reserve=0, backend=backend, **more))


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


async def until(condition: Callable[[], Any], within: float = 60) -> Any:
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.02)
    return value


def test_an_mcp_server_that_wants_to_stay_does_not(
    backend: str, configure: Configure, model: ScriptedModel, tmp_path: Path
) -> None:
    """claude-code#42881, #26658, codex#12491: servers outlive the run."""
    started = tmp_path / "started"
    server = {
        "command": sys.executable,
        "args": ["-c", SERVER],
        "env": {"STARTED": str(started), "PATH": os.environ["PATH"]},
    }
    model.add("plain", Script(Reply(Text("done"))))

    async def main() -> list[int]:
        async with supervisor(backend) as sup:
            config = configure(
                "served", "[[script:plain]] go", mcp_config={"mcpServers": {"stays": server}}
            )
            agent = await sup.spawn(config)
            # A run may be over before its server is up: that one is ended as well.
            result = await agent.result()
            assert result.outcome is Outcome.COMPLETED
        return [int(line) for line in started.read_text().split()]

    pids = asyncio.run(main())
    assert pids
    end = time.monotonic() + 5
    while any(map(lives, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert not any(map(lives, pids))


def test_a_conversation_ended_early_in_a_turn_is_found_again(
    backend: str, configure: Configure, model: ScriptedModel
) -> None:
    """After SIGKILL there is none to resume; the ladder lets the CLI write it down first."""
    model.add("early", Script(Stall(30), Reply(Text("remembered"))))

    async def main() -> None:
        async with supervisor(backend) as sup:
            config = configure("early", None)
            chat = await sup.spawn(config)
            session_id = chat.session_id
            await chat.send("[[script:early]] go")
            await until(lambda: any(record.request for record in model.requests))
            assert chat.state is State.IN_TURN
            status = await chat.shutdown()
            assert status.signal != 9
            fields = config.to_mapping() | {"resume": session_id, "agent_id": "again"}
            again = await sup.spawn(AgentConfig.from_mapping(fields))
            result = await again.run("and now?")
            assert (result.outcome, result.session_id) == (Outcome.COMPLETED, session_id)
            last = [record.request for record in model.requests if record.request][-1]
            assert "[[script:early]] go" in json.dumps(last.messages)
            await again.shutdown()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(401, Outcome.AUTH_FAILED), (429, Outcome.RATE_LIMITED), (500, Outcome.TIMED_OUT)],
)
def test_a_service_that_refuses_for_ever_is_named(
    backend: str, configure: Configure, model: ScriptedModel, status: int, outcome: Outcome
) -> None:
    model.add("refuse", Script(then=Failure(status)))

    async def main() -> None:
        async with supervisor(backend, on_auth_failure="continue") as sup:
            fields = configure("refused", "[[script:refuse]] go").to_mapping()
            fields["timeouts"] = {"turn": 6, "startup": 60}
            [result] = await sup.run([fields])
        # It gives up by itself, or is stopped while it tries: either way it is told why.
        assert result.outcome in (outcome, Outcome.FAILED if status == 500 else outcome), result
        assert str(status) in str(result.error)

    asyncio.run(main())
