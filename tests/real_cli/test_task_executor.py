"""Tasks run by an executor, each by a real CLI of its own, on both backends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vespera_server import RustEnhancedTaskExecutor, TaskExecutor
from vespera_server.demo.processes import processes_in
from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import (
    Failure,
    Reply,
    RequestRecord,
    Script,
    ScriptedModel,
    Stall,
    Text,
)

pytestmark = pytest.mark.claude


@pytest.fixture
def executor(place: Surroundings, backend: str) -> TaskExecutor:
    return TaskExecutor(place.work, config={"backend": backend, "memory_reserve": 0})


@pytest.fixture
def task(claude: str, model: ScriptedModel, place: Surroundings) -> dict[str, Any]:
    """What every task of a test needs besides its prompt."""
    return {
        "command": claude,
        "environment": place.environment(model.base_url),
        "inherit_environment": False,
        "timeout": 60,
    }


def test_a_task_as_the_architecture_document_runs_it(
    executor: TaskExecutor, task: dict[str, Any], model: ScriptedModel, backend: str
) -> None:
    assert RustEnhancedTaskExecutor is TaskExecutor
    model.add("hello", Script(Reply(Text("hello"))))
    asked = task | {"prompt": "[[script:hello]] hi", "ticket": 7}
    answer = asyncio.run(executor.execute_with_claude_agent(asked))
    assert answer["agent_id"].startswith("task_")
    assert len(answer["session_id"]) == 36
    assert answer["cost_usd"] > 0
    assert answer["duration_seconds"] > 0
    told = {name: answer[name] for name in ("success", "result", "backend", "outcome", "metadata")}
    assert told == {
        "success": True,
        "result": "hello",
        "backend": backend,
        "outcome": "completed",
        "metadata": {"ticket": 7},
    }
    assert answer["message"] == f"agent '{answer['agent_id']}' completed"


def test_each_failure_is_the_answer_of_its_task(
    executor: TaskExecutor, task: dict[str, Any], model: ScriptedModel
) -> None:
    model.add("good", Script(Reply(Text("good"))))
    model.add("bad", Script(then=Failure(400, "scripted refusal")))
    model.add("slow", Script(Stall(300)))
    tasks: list[Any] = [
        task | {"prompt": "[[script:good]] 1", "agent_id": "one"},
        task | {"prompt": "[[script:bad]] 2"},
        task | {"prompt": "[[script:slow]] 3", "timeout": "2s"},
        task | {"prompt": "[[script:good]] 4", "command": "/nowhere/claude"},
        task | {"prompt": ""},
        task | {"prompt": "x", "timeout": "soon"},
        "no mapping",
        task | {"prompt": "[[script:good]] 8"},
    ]

    async def main() -> list[dict[str, Any]]:
        async with executor:
            return await executor.run(tasks)

    answers = asyncio.run(main())
    assert [answer["success"] for answer in answers] == [True, *[False] * 6, True]
    assert [answer["error"]["code"] for answer in answers[1:-1]] == [
        *("failed", "timed_out", "spawn_failed", "config", "config", "config"),
    ]
    assert answers[0]["agent_id"] == "one"
    assert "scripted refusal" in answers[1]["error"]["message"]
    assert all(answer["error"]["remedy"] for answer in answers[1:-1])


def test_cancelling_the_call_ends_its_agents(
    executor: TaskExecutor, task: dict[str, Any], model: ScriptedModel, place: Surroundings
) -> None:
    model.add("slow", Script(then=Stall(300)))

    def slow(record: RequestRecord) -> bool:
        return record.script == "slow"

    async def main() -> None:
        tasks = [task | {"prompt": f"[[script:slow]] {number}"} for number in range(2)]
        work = asyncio.ensure_future(executor.run(tasks))
        await asyncio.to_thread(model.wait_for, slow)
        assert processes_in(place.work)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not processes_in(place.work)

    asyncio.run(main())


def test_a_secret_in_a_result_does_not_leave(
    executor: TaskExecutor, task: dict[str, Any], model: ScriptedModel
) -> None:
    task["environment"] |= {"DEPLOY_TOKEN": "the-token-of-somebody"}
    model.add("tell", Script(Reply(Text("it is the-token-of-somebody"))))
    answer = asyncio.run(executor.execute_with_claude_agent(task | {"prompt": "[[script:tell]] x"}))
    assert answer["result"] == "it is [redacted]"
