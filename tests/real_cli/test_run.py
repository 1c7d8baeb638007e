"""`vespera run` with the real CLI: killed and resumed, refused and restarted, out of money."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import ModelRequest, Reply, Script, ScriptedModel, Text, ToolUse
from vespera_server.tasks import TaskQueue

pytestmark = pytest.mark.claude

FILE = """
[agent]
allowed_tools = ["Bash"]
[[tasks]]
id = "a"
prompt = "[[script:a]] go"
[[tasks]]
id = "b"
prompt = "[[script:b]] go"
needs = ["a"]
"""
START = Callable[..., subprocess.Popen[str]]


def answered(request: ModelRequest) -> int:
    """How often the model has spoken in this conversation."""
    return sum(message.get("role") == "assistant" for message in request.messages)


def works_once(request: ModelRequest) -> Reply:
    """One tool call, then a long thought the first time, then the tool's answer."""
    if answered(request) == 0:
        command = "echo ran >> log; wc -l < log"
        return Reply(ToolUse("Bash", {"command": command, "description": "work"}))
    return Reply(Text(f"the log has {request.last_tool_result} line"))


@pytest.fixture
def start(claude: str, backend: str, model: ScriptedModel, place: Surroundings) -> Iterator[START]:
    """`vespera run` with the scripted model as the user's own account."""
    (place.work / "tasks.toml").write_text(FILE)
    environment = place.environment(model.base_url) | {
        "VESPERA_BACKEND": backend,
        "VESPERA_STATE__DIRECTORY": str(place.root / "state"),
        "VESPERA_SUPERVISOR__MEMORY_RESERVE": "0",
    }
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: str, without: str = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "vespera_server", "run", "--claude", claude]
        processes.append(
            subprocess.Popen(
                [*command, "--database", "batch.db", "--json", *arguments],
                cwd=place.work,
                env={name: value for name, value in environment.items() if name != without},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def answer_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=100)
    answer: dict[str, Any] = json.loads(output)
    return answer


def sessions(model: ScriptedModel, script: str) -> list[str]:
    """Of one task, in the order in which the model heard of them."""
    seen = {r.request.session_id: None for r in model.requests if r.request and r.script == script}
    return list(seen)


def test_a_batch_runs_with_the_users_own_cli(
    start: START, model: ScriptedModel, place: Surroundings, backend: str
) -> None:
    model.add("a", Script(then=works_once))
    model.add("b", Script(then=Reply(Text("b is done"))))
    answer = answer_of(start("tasks.toml"))
    assert answer["exit_code"] == 0, answer
    assert [task["result"] for task in answer["tasks"]] == ["the log has 1 line", "b is done"]
    assert {task["backend"] for task in answer["tasks"]} == {backend}
    assert answer["cost_usd"] > 0
    for task in answer["tasks"]:
        assert sessions(model, task["task_id"]) == [task["session_id"]]
    transcripts = place.work / "batch.db.files" / "transcripts"
    assert sorted(path.name for path in transcripts.iterdir()) == ["a.transcript", "b.transcript"]


def test_a_killed_batch_is_resumed_in_the_session_that_it_had(
    start: START, model: ScriptedModel, place: Surroundings
) -> None:
    thinking: list[None] = []

    def thinks_long_once(request: ModelRequest) -> Reply:
        if answered(request) == 1 and not thinking:
            thinking.append(None)
            return Reply(Text("never heard"), delay=60)
        return works_once(request)

    model.add("a", Script(then=thinks_long_once))
    model.add("b", Script(then=Reply(Text("b is done"))))
    first = start("tasks.toml")
    model.wait_for(lambda record: record.script == "a", 60)
    while not thinking:  # the tool has run and its result is with the model
        os.sched_yield()
    first.kill()
    first.wait()
    answer = answer_of(start("--resume"))
    assert answer["counts"] == {"completed": 2}
    a, b = answer["tasks"]
    assert (a["attempts"], b["attempts"]) == (1, 1)
    assert a["result"] == "the log has 1 line"
    assert (place.work / "log").read_text() == "ran\n"
    assert sessions(model, "a") == [a["session_id"]]
    with TaskQueue(place.work / "batch.db") as queue:
        kinds = [event.kind for event in queue.events("a")]
    assert kinds == ["added", "started", "launched", "resumed", "launched", "ended"]


def test_a_session_that_the_cli_does_not_have_is_restarted_and_counted(
    start: START, model: ScriptedModel, place: Surroundings
) -> None:
    """The queue says that the session was launched; the CLI never came so far as to keep it."""
    model.add("a", Script(then=works_once))
    model.add("b", Script(then=Reply(Text("b is done"))))
    (place.work / "tasks.toml").write_text(FILE.replace('needs = ["a"]', "restart = false"))
    answer_of(start("tasks.toml", "--budget", "0"))
    with TaskQueue(place.work / "batch.db") as queue:
        claims = [queue.claim(), queue.claim()]
        for claim in claims:
            assert claim is not None
            queue.release(claim)
    answer = answer_of(start("--resume", "--budget", "1"))
    a, b = answer["tasks"]
    assert (a["outcome"], a["attempts"]) == ("completed", 2)
    assert (b["outcome"], b["attempts"]) == ("incomplete", 1)
    assert "restart is false" in b["error"]
    assert answer["exit_code"] == 1
    assert sessions(model, "a") == [a["session_id"]]
    assert sessions(model, "b") == []
    with TaskQueue(place.work / "batch.db") as queue:
        kinds = [event.kind for event in queue.events("a")]
    assert kinds[-5:] == ["resumed", "launched", "restarted", "launched", "ended"]


def test_a_budget_stops_real_spending(start: START, model: ScriptedModel) -> None:
    model.add("a", Script(then=works_once))
    model.add("b", Script(then=Reply(Text("b is done"))))
    answer = answer_of(start("tasks.toml", "--budget", "0.001"))
    assert answer["exit_code"] in (1, 3), answer
    outcomes = [task["outcome"] for task in answer["tasks"]]
    assert outcomes[0] in ("completed", "budget_exceeded")
    assert not sessions(model, "b")


def test_who_never_logged_in_is_told_so_and_keeps_the_tasks(
    start: START, model: ScriptedModel
) -> None:
    """The CLI asks nobody then, and no HTTP status tells."""
    model.add("a", Script(then=works_once))
    model.add("b", Script(then=Reply(Text("b is done"))))
    answer = answer_of(start("tasks.toml", without="ANTHROPIC_API_KEY"))
    assert answer["exit_code"] == 4
    assert answer["counts"] == {"pending": 2}
    assert "log" in answer["reason"]
    assert answer_of(start("--resume"))["exit_code"] == 0


def test_the_scripted_model_needs_no_account(claude: str, tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text(
        "tasks:\n"
        "  - id: a\n"
        "    prompt: say it\n"
        "    allowed_tools: [Bash]\n"
        "    scripted:\n"
        "      - {fail: 529}\n"
        "      - {tool: Bash, input: {command: echo six > six.txt, description: write}}\n"
        "      - {text: wrote six}\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vespera_server", "run", "tasks.yaml"),
            *("--scripted", "--json", "--claude", claude),
        ],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path / "home"),
            "VESPERA_STATE__DIRECTORY": str(tmp_path / "state"),
            "VESPERA_SUPERVISOR__MEMORY_RESERVE": "0",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    assert (task["result"], task["model"]) == ("wrote six", "scripted")
    assert (tmp_path / "six.txt").read_text() == "six\n"
    assert not (tmp_path / "home").exists()
