"""The real CLI in a tool that hides a process, and its host killed: nothing stays, resume works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from vespera_server.scripted_model import Reply, Script, ScriptedModel, Text, ToolUse

pytestmark = pytest.mark.claude

# The hidden process sleeps in a session of its own and ends itself in the end.
HIDE = "setsid sleep 61 & setsid sh -c 'sleep 62' & sleep 63"

HOST = """
import asyncio, json, sys
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig

async def main():
    config = AgentConfig.from_mapping(json.loads(sys.argv[1]))
    async with Supervisor(SupervisorConfig(backend="rust", memory_reserve=0)) as sup:
        agent = await sup.spawn(config)
        print(agent.session_id, flush=True)
        await agent.result()

asyncio.run(main())
"""


def sleepers(root: str) -> list[str]:
    """Command lines of living processes of the test: they inherit its HOME."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environ = (entry / "environ").read_bytes()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if f"HOME={root}".encode() in environ.split(b"\0") and line:
                found.append(line)
    return found


def test_a_killed_host_leaves_nothing_and_its_conversation_resumes(
    configure: Any, model: ScriptedModel, backend: str
) -> None:
    if backend != "rust":
        pytest.skip("the Python backend cannot act once its host is killed")
    model.add(
        "hide",
        Script(Reply(ToolUse("Bash", {"command": HIDE, "description": "test"})), Reply(Text("?"))),
    )
    model.add("after", Script(Reply(Text("remembered"))))
    config = configure("hidden", "[[script:hide]] go", allowed_tools=["Bash"])
    home = config.environment["HOME"]
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, json.dumps(config.to_mapping())],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert host.stdout is not None
        session_id = host.stdout.readline().strip()
        assert session_id
        deadline = time.monotonic() + 60
        while sum("sleep 6" in line for line in sleepers(home)) < 3:
            assert host.poll() is None
            assert time.monotonic() < deadline, sleepers(home)
            time.sleep(0.02)
    finally:
        host.kill()
        host.communicate()
    killed = time.monotonic()
    while left := sleepers(home):
        assert time.monotonic() - killed < 5, left
        time.sleep(0.01)
    took = time.monotonic() - killed
    assert took < 5
    print(f"nothing left after {took:.2f} s")

    # In the same directory: the CLI keeps conversations by project.
    mapping = {**config.to_mapping(), "resume": session_id, "agent_id": "again", "prompt": None}
    spawner.spawn_claude_agent("again", config=mapping, backend=backend)
    try:
        turn = spawner.execute_claude_json("again", {"prompt": "[[script:after]] and now?"})
    finally:
        spawner.shutdown_claude_agent("again")
    assert (turn["outcome"], turn["session_id"]) == ("completed", session_id)
    requests = [request.request for request in model.requests if request.request]
    assert any("go" in json.dumps(request.messages) for request in requests[-1:])
