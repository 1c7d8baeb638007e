"""Responsible for a TaskExecutor with a database: what is kept, what goes on, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from vespera_agent_spawner.errors import ConfigError
from vespera_server import TaskExecutor
from vespera_server.scripted_model import Reply, Script, ScriptedModel, Stall, Text, ToolUse
from vespera_server.tasks import TaskQueue

CLI = Path(__file__).with_name("session_cli.py")
Task = dict[str, Any]


@pytest.fixture(params=["rust", "python"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "rust" and not spawner.RUST_AGENT_SPAWNER_AVAILABLE:
        pytest.skip("needs the compiled extension")
    return str(request.param)


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel({"default": Script(then=lambda r: Reply(Text("did it")))}) as running:
        yield running


@pytest.fixture
def task(tmp_path: Path, model: ScriptedModel) -> Task:
    return {
        "command": str(CLI),
        "inherit_environment": False,
        "environment": {
            "ANTHROPIC_BASE_URL": model.base_url,
            "ANTHROPIC_API_KEY": "a-key-that-stays-in-memory",
            "CLAUDE_CONFIG_DIR": str(tmp_path / "config"),
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        },
    }


@pytest.fixture
def executor(tmp_path: Path, backend: str) -> TaskExecutor:
    config = {"backend": backend, "memory_reserve": 0}
    return TaskExecutor(tmp_path, config=config, database=tmp_path / "kept.db")


def test_the_same_tasks_are_done_once_and_answered_again(
    executor: TaskExecutor, task: Task, model: ScriptedModel, backend: str, tmp_path: Path
) -> None:
    tasks = [task | {"prompt": "a"}, task | {"prompt": "a"}, task | {"prompt": "b", "ticket": 7}]
    first = asyncio.run(executor.run(tasks))
    assert [answer["outcome"] for answer in first] == ["completed"] * 3
    assert [answer["result"] for answer in first] == ["did it"] * 3
    assert [answer["start"] for answer in first] == ["started"] * 3
    assert {answer["backend"] for answer in first} == {backend}
    assert first[2]["metadata"] == {"ticket": 7}
    assert len({answer["session_id"] for answer in first}) == 3, "the same twice is two tasks"
    # A key that changed meanwhile makes no other task of it.
    other_key = task["environment"] | {"ANTHROPIC_API_KEY": "another-key-of-the-same"}
    again = asyncio.run(executor.run([each | {"environment": other_key} for each in tasks]))
    assert again == first
    assert len(model.requests) == 3
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("kept.db*"))
    assert b"a-key-that-stays-in-memory" not in kept
    assert (tmp_path / "kept.db").stat().st_mode & 0o777 == 0o600


def test_a_run_that_was_cut_off_goes_on_in_its_session(
    executor: TaskExecutor, task: Task, model: ScriptedModel
) -> None:
    tool = ToolUse("Bash", {"command": "echo once >> log; cat log"})
    late = Reply(Text("never seen"), delay=300)
    model.add("long", Script(Reply(tool), late, then=Reply(Text("went on"))))
    tasks = [task | {"prompt": "[[script:long]] go", "agent_id": "long"}, task | {"prompt": "b"}]

    async def main() -> None:
        async with executor:
            work = asyncio.ensure_future(executor.run(tasks))
            await asyncio.to_thread(model.wait_for, lambda r: r.script == "long")
            await asyncio.to_thread(model.wait_for, lambda r: r.script == "default")
            await asyncio.sleep(0.5)  # the tool has run, the model thinks
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            # Another run takes nothing of it along.
            (other,) = await executor.run([task | {"prompt": "c"}])
            assert other["success"]
            answers = await executor.run(tasks)
            assert [answer["start"] for answer in answers] == ["resumed", "started"]
            assert answers[0]["result"] == "went on"
            assert answers[0]["attempts"] == 1

    asyncio.run(main())
    assert (Path(executor.project_root) / "log").read_text() == "once\n"


_PROGRAM = """
import asyncio, json, sys
from vespera_server import TaskExecutor
root, tasks = sys.argv[1], json.loads(sys.argv[2])
config = {"memory_reserve": 0, "backend": sys.argv[3]}
executor = TaskExecutor(root, config=config, database=root + "/kept.db")
print(json.dumps(asyncio.run(executor.run(tasks))))
"""


def test_a_killed_program_goes_on_when_it_is_run_again(
    task: Task, model: ScriptedModel, tmp_path: Path, backend: str
) -> None:
    model.add("slow", Script(Stall(300), then=Reply(Text("second"))))
    tasks = [task | {"prompt": "quick"}, task | {"prompt": "[[script:slow]] x"}]
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path), json.dumps(tasks), backend]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        model.wait_for(lambda r: r.script == "slow")
        model.wait_for(lambda r: r.script == "default")
        with TaskQueue(tmp_path / "kept.db") as queue:
            while queue.counts().get("completed") != 1:
                assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    model.add("slow", Script(then=Reply(Text("second"))))  # also for a fresh session
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    quick, slow = json.loads(done.stdout)
    assert (quick["start"], quick["result"]) == ("started", "did it")
    assert (slow["outcome"], slow["result"]) == ("completed", "second")
    assert slow["start"] in ("resumed", "restarted")
    assert sum(record.script == "default" for record in model.requests) == 1


def test_what_cannot_be_kept_is_refused_alone(executor: TaskExecutor, task: Task) -> None:
    first = asyncio.run(executor.run([task | {"prompt": "a", "agent_id": "one"}]))
    assert first[0]["success"]
    tasks = [
        task | {"prompt": "another", "agent_id": "one"},
        task | {"prompt": "b", "agent_id": "two"},
        task | {"prompt": "c", "agent_id": "two"},
        task | {"prompt": "d", "session_id": "4ab9ed5a-6c34-4abf-9742-608043436ccb"},
        task | {"prompt": ""},
        task | {"prompt": "e", "agent_id": "x" * 300},
        task | {"prompt": "f"},
    ]
    answers = asyncio.run(executor.run(tasks))
    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert codes == ["task_exists", None, "task_exists", "config", "config", "config", None]
    assert "another config" in answers[0]["error"]["message"]
    assert all(answer["error"]["remedy"] for answer in answers if "error" in answer)


def test_a_database_of_another_kind_is_refused(tmp_path: Path) -> None:
    with TaskQueue(tmp_path / "queue.db") as queue:
        queue.remember(name="a run")
    (tmp_path / "text").write_text("no database, and long enough to be read as one\n" * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.db")) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.commit()
    for name in ("queue.db", "text", "foreign.db", "."):
        executor = TaskExecutor(tmp_path, database=tmp_path / name)
        with pytest.raises(ConfigError, match="database: ") as caught:
            asyncio.run(executor.run([]))
        assert caught.value.remedy


def test_vespera_run_leaves_it_alone(executor: TaskExecutor, task: Task, tmp_path: Path) -> None:
    asyncio.run(executor.run([task | {"prompt": "a"}]))
    database = str(tmp_path / "kept.db")
    for arguments in (["--resume"], ["tasks.toml"]):
        done = subprocess.run(
            [sys.executable, "-m", "vespera_server", "run", *arguments, "--database", database],
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 2
        assert "is a database of TaskExecutor" in done.stderr
