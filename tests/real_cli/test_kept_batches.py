"""A batch of the MCP server under SIGKILL: on disk, interrupted, and gone on with when asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from vespera_server.demo.processes import processes_in
from vespera_server.scripted_model import ModelRequest, Reply, Script, ScriptedModel, Text, ToolUse
from vespera_server.tasks import TaskQueue

pytestmark = pytest.mark.claude


@contextlib.asynccontextmanager
async def serve(serving: Any, database: Path) -> AsyncIterator[Client]:
    """A server over the database; one that was killed takes its client along."""
    flags = ("--task-database", str(database), "--tool", "Bash", "--max-agents", "3")
    async with serving.client(*flags, read_timeout_seconds=90) as client:
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert isinstance(result.structured_content, dict), result
    return result.structured_content


def server_over(database: Path) -> int:
    """The process that serves it."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal():
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"serve" in words and str(database).encode() in words:
                    return int(entry.name)
    raise AssertionError("no server runs")


async def gone(directory: Path) -> None:
    """Waits until nothing works in a directory any more."""
    async with asyncio.timeout(20):
        while processes_in(directory):  # noqa: ASYNC110 - other processes ring no bell here
            await asyncio.sleep(0.05)


def went_on(request: ModelRequest) -> Reply:
    return Reply(Text(f"in all: {(request.last_tool_result or '').strip()}"))


def test_a_killed_servers_batch_is_interrupted_and_ends_once_when_resumed(
    serving: Any, backend: str, model: ScriptedModel
) -> None:
    """Six tasks, three at once. Two have ended, three are in the middle, one waits: SIGKILL."""
    database = serving.place.root / "batches.db"
    for name in ("quick0", "quick1", "last"):
        model.add(name, Script(Reply(Text(f"{name} is done"))))
    for number in range(3):
        tool = ToolUse("Bash", {"command": f"echo once >> log{number}; cat log{number}"})
        late = Reply(Text("never seen"), delay=300)
        model.add(f"slow{number}", Script(Reply(tool), late, then=went_on))
    names = ["quick0", "quick1", "slow0", "slow1", "slow2", "last"]
    tasks = [
        {"prompt": f"[[script:{name}]] go", "agent_id": name, "allowed_tools": ["Bash"]}
        for name in names
    ]
    logs = [serving.place.work / f"log{number}" for number in range(3)]
    begun: dict[str, Any] = {}

    async def first() -> None:
        async with serve(serving, database) as client:
            begun.update(await call(client, "run_tasks", tasks=tasks, wait_seconds=0))
            async with asyncio.timeout(80):
                while not (  # noqa: ASYNC110 - other processes ring no bell here
                    all(log.exists() for log in logs)
                    and len([r for r in model.requests if r.script == "slow2"]) >= 1
                ):
                    await asyncio.sleep(0.05)
            os.kill(server_over(database), signal.SIGKILL)
            with contextlib.suppress(Exception):
                await call(client, "list_agents")

    with contextlib.suppress(Exception, BaseExceptionGroup):
        asyncio.run(first())
    # Whether the model was asked for the late answer before the end, or not.
    for number in range(3):
        model.add(f"slow{number}", Script(then=went_on))
    batch_id = begun["batch_id"]
    if backend == "rust":
        asyncio.run(gone(serving.place.work))
    asked = len(model.requests)

    async def second() -> dict[str, Any]:
        async with serve(serving, database) as client:
            left = await call(client, "task_status", batch_id=batch_id, wait_seconds=1)
            states = {row["agent_id"]: row["state"] for row in left["tasks"]}
            assert states == {
                **dict.fromkeys(["quick0", "quick1"], "ended"),
                **dict.fromkeys(["slow0", "slow1", "slow2", "last"], "interrupted"),
            }
            assert (left["state"], left["completed"], left["interrupted"]) == ("interrupted", 2, 4)
            assert left["tasks"][0]["result"] == "quick0 is done"
            assert left["tasks"][0]["cost_usd"] > 0
            if backend == "rust":
                assert len(model.requests) == asked, "nobody asked for more"
            over = await call(client, "run_tasks", batch_id=batch_id, resume=True, wait_seconds=80)
            again = await call(client, "task_status", batch_id=batch_id)
            assert again == over
            return over

    over = asyncio.run(second())
    assert (over["state"], over["completed"], over["failed"]) == ("ended", 6, 0), over
    starts = {row["agent_id"]: row["start"] for row in over["tasks"]}
    assert {starts["quick0"], starts["quick1"], starts["last"]} == {"started"}
    assert {starts[f"slow{number}"] for number in range(3)} <= {"resumed", "restarted"}
    assert [row["attempts"] for row in over["tasks"] if row["start"] == "resumed"] == [
        1 for start in starts.values() if start == "resumed"
    ]
    with TaskQueue(database) as queue:
        for name in names:
            kinds = Counter(event.kind for event in queue.events(f"{batch_id}/{name}"))
            assert kinds["ended"] == 1, (name, kinds)
    assert not processes_in(serving.place.work)


def test_the_end_of_a_server_gives_its_tasks_back(serving: Any, model: ScriptedModel) -> None:
    """SIGTERM: every agent ends, and what did not is written down as such before the exit."""
    database = serving.place.root / "batches.db"
    tool = ToolUse("Bash", {"command": "echo once >> log; cat log"})
    model.add("slow", Script(Reply(tool), Reply(Text("never"), delay=300), then=went_on))
    begun: dict[str, Any] = {}

    async def first() -> None:
        async with serve(serving, database) as client:
            task = {"prompt": "[[script:slow]] x", "agent_id": "a", "allowed_tools": ["Bash"]}
            begun.update(await call(client, "run_tasks", tasks=[task], wait_seconds=0))
            async with asyncio.timeout(60):
                while not (serving.place.work / "log").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            os.kill(server_over(database), signal.SIGTERM)
            with contextlib.suppress(Exception):
                await call(client, "list_agents")

    with contextlib.suppress(Exception, BaseExceptionGroup):
        asyncio.run(first())
    model.add("slow", Script(then=went_on))  # asked for the late answer by then, or not
    with TaskQueue(database) as queue:
        (task,) = queue.tasks()
        assert str(task.state) == "pending"
        assert [event.kind for event in queue.events(task.task_id)][-1] == "released"
    assert not processes_in(serving.place.work)

    async def second() -> dict[str, Any]:
        async with serve(serving, database) as client:
            return await call(
                client, "run_tasks", batch_id=begun["batch_id"], resume=True, wait_seconds=80
            )

    over = asyncio.run(second())
    assert (over["completed"], over["tasks"][0]["start"]) == (1, "resumed")
    assert over["tasks"][0]["result"].startswith("in all: ")  # the tool had ended, or was stopped
