"""Responsible for batches that outlive their server: what is kept, what goes on and when."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

import vespera_agent_spawner as spawner
from vespera_agent_spawner.errors import ConfigError
from vespera_server.scripted_model import (
    Failure,
    ModelRequest,
    Reply,
    Script,
    ScriptedModel,
    Stall,
    Text,
    ToolUse,
)
from vespera_server.selection import Selection, keeper_of
from vespera_server.serve import ServerOptions, VesperaServer
from vespera_server.serve.command import Flags, server_options
from vespera_server.serve.policy import Wish
from vespera_server.serve.task_database import TaskDatabase
from vespera_server.settings import load_settings
from vespera_server.state import StateDirectory, collect
from vespera_server.tasks import NewerDatabase, TaskQueue, TaskSpec

CLI = Path(__file__).with_name("session_cli.py")
Answer = dict[str, Any]


@pytest.fixture(params=["rust", "python"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "rust" and not spawner.RUST_AGENT_SPAWNER_AVAILABLE:
        pytest.skip("needs the compiled extension")
    return str(request.param)


def second(request: ModelRequest) -> Reply:
    return Reply(Text(f"went on after: {request.last_tool_result}"))


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    first = Reply(ToolUse("Bash", {"command": "echo once >> log; cat log"}))
    with ScriptedModel({"default": Script(then=lambda r: Reply(Text(f"did {r.marker}")))}) as run:
        run.add("long", Script(first, Reply(Text("never seen"), delay=300), then=second))
        yield run


class Place:
    """A root, a database outside of it, and servers over both, one after the other."""

    def __init__(self, root: Path, model: ScriptedModel, backend: str) -> None:
        self.work = root / "work"
        self.work.mkdir()
        self.database = root / "state" / "batches.db"
        self.database.parent.mkdir(mode=0o700)
        self.model = model
        self.options: dict[str, Any] = {
            "roots": [self.work],
            "programs": {"claude": str(CLI), "next": str(CLI)},
            "backend": backend,
            "environment_names": ["CLAUDE_CONFIG_DIR"],
            "task_database": self.database,
        }
        self.host = {
            "ANTHROPIC_BASE_URL": model.base_url,
            "ANTHROPIC_API_KEY": "a-key-that-nobody-sees",
            "CLAUDE_CONFIG_DIR": str(root / "config"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin{os.pathsep}/bin",
        }

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        server = VesperaServer(self.options | options, host=self.host)
        async with Client(server.mcp_server) as client:
            yield client

    async def interrupt(self, *tasks: Answer) -> str:
        """A batch whose server ended in the middle of every long task; its name."""
        async with self.client() as client:
            batch = await call(client, "run_tasks", tasks=list(tasks), wait_seconds=0)
            await asyncio.to_thread(self.model.wait_for, lambda r: r.script == "long")
            async with asyncio.timeout(30):
                while not (self.work / "log").exists():  # noqa: ASYNC110 - another process's file
                    await asyncio.sleep(0.02)
        self.model.add("long", Script(then=second))  # asked for the late answer by then, or not
        return str(batch["batch_id"])


@pytest.fixture
def place(tmp_path: Path, model: ScriptedModel, backend: str) -> Place:
    return Place(tmp_path, model, backend)


async def call(client: Client, tool: str, **arguments: Any) -> Answer:
    result = await client.call_tool(tool, arguments)
    answer = result.structured_content
    assert isinstance(answer, dict), result
    assert answer["success"] or answer["error"]["remedy"]
    return answer


async def resumed(client: Client, batch_id: str, wait: float = 60) -> Answer:
    return await call(client, "run_tasks", batch_id=batch_id, resume=True, wait_seconds=wait)


def rows(answer: Answer, name: str) -> list[Any]:
    return [row.get(name) for row in answer["tasks"]]


def test_results_and_costs_outlive_the_server(place: Place) -> None:
    async def main() -> None:
        async with place.client() as client:
            given = [{"prompt": "a", "agent_id": "a"}, {"prompt": "b"}]
            first = await call(client, "run_tasks", tasks=given)
            assert (first["state"], first["completed"]) == ("ended", 2)
        async with place.client() as client:
            later = await call(client, "task_status", batch_id=first["batch_id"])
            assert later == first
            assert rows(later, "start") == ["started", "started"]
            assert later["cost_usd"] == pytest.approx(0.02)
            (listed,) = (await call(client, "task_status"))["batches"]
            assert (listed["batch_id"], listed["state"]) == (first["batch_id"], "ended")
            # A batch that ended is answered, and nothing of it runs again.
            again = await resumed(client, first["batch_id"])
            assert again == first
        assert len(place.model.requests) == 2

    asyncio.run(main())


def test_every_task_is_on_disk_before_the_call_returns(place: Place) -> None:
    async def main() -> None:
        async with place.client(max_agents=1) as client:
            tasks = [{"prompt": f"[[script:long]] {number}"} for number in range(5)]
            batch = await call(client, "run_tasks", tasks=tasks, wait_seconds=0)
            with contextlib.closing(sqlite3.connect(place.database)) as db:
                found = db.execute("SELECT id, config FROM tasks ORDER BY number").fetchall()
        names = [f"{batch['batch_id']}/{row['agent_id']}" for row in batch["tasks"]]
        assert [name for name, _ in found] == names
        assert [json.loads(config)["prompt"] for _, config in found] == [
            task["prompt"] for task in tasks
        ]

    asyncio.run(main())
    assert stat.S_IMODE(place.database.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.database.parent.stat().st_mode) == 0o700
    assert b"a-key-that-nobody-sees" not in place.database.read_bytes()


def test_what_a_server_left_waits_until_somebody_asks(place: Place) -> None:
    async def main() -> None:
        batch_id = await place.interrupt({"prompt": "[[script:long]] go", "agent_id": "a"})
        asked = len(place.model.requests)
        async with place.client() as client:
            left = await call(client, "task_status", batch_id=batch_id, wait_seconds=1)
            assert (left["state"], left["interrupted"]) == ("interrupted", 1)
            assert (left["completed"], left["failed"]) == (0, 0)
            (row,) = left["tasks"]
            assert (row["state"], row["error"]["code"]) == ("interrupted", "interrupted")
            assert batch_id in row["error"]["remedy"]
            # Others' new tasks take nothing of it along.
            other = await call(client, "run_tasks", tasks=[{"prompt": "another"}])
            assert other["completed"] == 1
            assert len(place.model.requests) == asked + 1
            listed = (await call(client, "task_status"))["batches"]
            assert [each["state"] for each in listed] == ["ended", "interrupted"]

            over = await resumed(client, batch_id)
            assert (over["state"], over["completed"]) == ("ended", 1)
            assert rows(over, "start") == ["resumed"]
            assert rows(over, "attempts") == [1]
            assert rows(over, "session_id") == [row["session_id"]]
            assert rows(over, "result") == ["went on after: once"]
        assert (place.work / "log").read_text() == "once\n"

    asyncio.run(main())


def test_a_task_that_never_began_begins_and_one_without_session_restarts(place: Place) -> None:
    async def main() -> None:
        tasks = [
            {"prompt": "[[script:long]] go", "agent_id": "first"},
            {"prompt": "second", "agent_id": "second"},
        ]
        place.options["max_agents"] = 1
        batch_id = await place.interrupt(*tasks)
        for session in (Path(place.host["CLAUDE_CONFIG_DIR"]) / "sessions").iterdir():
            session.unlink()  # the CLI has forgotten it
        place.model.add("long", Script(then=Reply(Text("anew"))))
        async with place.client() as client:
            over = await resumed(client, batch_id)
            assert rows(over, "start") == ["restarted", "started"]
            assert rows(over, "attempts") == [2, 1]
            assert rows(over, "outcome") == ["completed", "completed"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("now", "code"),
    [
        ({"programs": {"claude": str(CLI)}}, "program_not_allowed"),
        ({"turn_timeout": 100.0}, "timeout_not_allowed"),
        ({"models": ["other"]}, "model_not_allowed"),
        ({"tools": ["Glob"]}, "tool_not_allowed"),
        ({"budget_usd": 0.0}, "budget_exceeded"),
    ],
)
def test_the_limits_of_now_decide_what_goes_on(place: Place, now: Answer, code: str) -> None:
    asking: Answer = {
        "prompt": "[[script:long]] go",
        "agent_id": "asking",
        "command": "next",
        "timeout_seconds": 200,
        "model": "mine",
        "allowed_tools": ["Read"],
    }
    plain = {"prompt": "[[script:long]] x", "agent_id": "plain", "timeout_seconds": 50}

    async def main() -> None:
        batch_id = await place.interrupt(asking, plain)
        async with place.client(**now) as client:
            over = await resumed(client, batch_id)
            row, other = over["tasks"]
            assert (row["state"], row["success"]) == ("ended", False)
            assert row["error"]["code"] == code
            assert row["error"]["remedy"]
            if code != "budget_exceeded":
                # The CLI may not have kept a session of it yet.
                assert other["start"] in ("resumed", "restarted")
                assert other["outcome"] == "completed"
        # It ended: a server without these limits does not take it up again.
        async with place.client() as client:
            again = await resumed(client, batch_id)
            assert again["tasks"][0]["error"]["code"] == code

    asyncio.run(main())


def test_a_root_that_is_gone_is_an_error_of_its_task(place: Place) -> None:
    async def main() -> None:
        there = place.work / "there"
        there.mkdir()
        tasks = [
            {"prompt": "[[script:long]] a", "agent_id": "a", "working_directory": "there"},
            {"prompt": "[[script:long]] b", "agent_id": "b"},
        ]
        batch_id = await place.interrupt(*tasks)
        for left in there.iterdir():
            left.unlink()
        there.rmdir()
        async with place.client() as client:
            over = await resumed(client, batch_id)
            assert rows(over, "success") == [False, True]
            assert over["tasks"][0]["error"]["code"] == "not_found"

    asyncio.run(main())


def test_a_call_that_is_cancelled_is_interrupted_and_an_agent_that_is_ended_is_not(
    place: Place,
) -> None:
    async def main() -> None:
        async with place.client() as client:
            place.model.add("ended", Script(then=Stall(300)))
            tasks = [
                {"prompt": "[[script:long]] go", "agent_id": "a"},
                {"prompt": "[[script:ended]] go", "agent_id": "b"},
            ]
            work = asyncio.ensure_future(call(client, "run_tasks", tasks=tasks))
            await asyncio.to_thread(place.model.wait_for, lambda r: r.script == "long")
            await asyncio.to_thread(place.model.wait_for, lambda r: r.script == "ended")
            await call(client, "shutdown_agent", agent_id="b")
            work.cancel()
            await asyncio.wait([work])
            (listed,) = (await call(client, "task_status"))["batches"]
            async with asyncio.timeout(30):
                state = "running"
                while state == "running":
                    status = await call(client, "task_status", batch_id=listed["batch_id"])
                    state = status["state"]
            assert rows(status, "state") == ["interrupted", "ended"], str(status)
            assert (await call(client, "list_agents"))["agents"] == []
            over = await resumed(client, listed["batch_id"])
            assert rows(over, "success") == [True, False]
            assert over["state"] == "ended"

    asyncio.run(main())


def test_two_servers_on_one_database_do_a_task_once(place: Place) -> None:
    async def main() -> None:
        batch_id = await place.interrupt({"prompt": "[[script:long]] go", "agent_id": "a"})
        place.model.add("slow", Script(then=lambda r: Reply(Text("slowly"), delay=1)))
        async with place.client() as one, place.client() as two:
            both = await asyncio.gather(resumed(one, batch_id), resumed(two, batch_id))
            assert [answer["state"] for answer in both] == ["ended", "ended"]
            assert [rows(answer, "outcome") for answer in both] == [["completed"]] * 2
            tasks = [{"prompt": "[[script:slow]] x", "agent_id": "x"}]
            begun = await call(one, "run_tasks", tasks=tasks, wait_seconds=0)
            seen = await call(two, "task_status", batch_id=begun["batch_id"])
            assert (seen["state"], rows(seen, "state")) == ("running", ["running"])
            stolen = await resumed(two, begun["batch_id"])
            assert (stolen["state"], rows(stolen, "result")) == ("ended", ["slowly"])
        sessions = [record.request.session_id for record in place.model.requests if record.request]
        assert len(set(sessions)) == 2
        with TaskQueue(place.database) as queue:
            kinds = [event.kind for event in queue.events(f"{batch_id}/a")]
        assert kinds.count("ended") == 1
        assert kinds.count("resumed") == 1

    asyncio.run(main())


def test_a_task_that_another_process_took_over_is_left_to_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Selection.__init__

    def short(self: Selection, path: Any, **_: Any) -> None:
        original(self, path, lease_seconds=0.6)

    monkeypatch.setattr(Selection, "__init__", short)

    async def main() -> None:
        async with place.client() as client:
            tasks = [{"prompt": "[[script:long]] go", "agent_id": "a"}]
            batch = await call(client, "run_tasks", tasks=tasks, wait_seconds=0)
            await asyncio.to_thread(place.model.wait_for, lambda r: r.script == "long")
            name = f"{batch['batch_id']}/a"
            with contextlib.closing(Selection(place.database)) as thief:
                thief._clock = lambda: 4e9
                (claim,) = thief.take([name])
                thief.finish(claim, "completed", result={"result": "theirs"})
            over = await call(client, "task_status", batch_id=batch["batch_id"], wait_seconds=30)
            assert rows(over, "result") == ["theirs"]
            async with asyncio.timeout(30):
                while (await call(client, "list_agents"))["agents"]:
                    pass

    asyncio.run(main())


def test_a_failed_task_is_the_same_after_a_restart_and_tells_no_secret(place: Place) -> None:
    place.model.add("bad", Script(then=Failure(500)))
    place.model.add("tell", Script(Reply(Text("the key is a-key-that-nobody-sees"))))

    async def main() -> None:
        async with place.client() as client:
            tasks = [{"prompt": "[[script:bad]] a"}, {"prompt": "[[script:tell]] b"}]
            first = await call(client, "run_tasks", tasks=tasks)
        async with place.client() as client:
            later = await call(client, "task_status", batch_id=first["batch_id"])
        assert later == first
        assert rows(later, "outcome") == ["failed", "completed"]
        assert later["tasks"][1]["result"] == "the key is [redacted]"

    asyncio.run(main())


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_id": "batch-0000000000000000", "resume": True},
        {"batch_id": "", "resume": True},
        {"batch_id": "batch-", "resume": True},
        {"batch_id": "%", "resume": True},
        {"batch_id": "../x/..", "resume": True},
        {"batch_id": "' OR 1=1 --", "resume": True},
        {"batch_id": "b\0", "resume": True},
        {"batch_id": "x" * 65, "resume": True},
        {"resume": True},
        {"batch_id": "batch-x", "resume": True, "tasks": [{"prompt": "x"}]},
        {"batch_id": "batch-x", "tasks": [{"prompt": "x"}]},
        {"tasks": []},
        {},
    ],
)
def test_a_bad_call_is_refused_and_begins_nothing(place: Place, arguments: Answer) -> None:
    async def main() -> None:
        async with place.client() as client:
            await call(client, "run_tasks", tasks=[{"prompt": "there"}])
            refused = await call(client, "run_tasks", **arguments)
            assert not refused["success"]
            assert refused["error"]["code"] in ("batch_not_found", "invalid_arguments")
            assert (await call(client, "list_agents"))["agents"] == []

    asyncio.run(main())
    assert len(place.model.requests) == 1


def test_without_a_database_a_lost_batch_says_how_to_keep_the_next(place: Place) -> None:
    async def main() -> None:
        async with place.client(task_database=None) as client:
            batch = await call(client, "run_tasks", tasks=[{"prompt": "x"}])
            assert not {"start", "attempts"} & batch["tasks"][0].keys()
            (listed,) = (await call(client, "task_status"))["batches"]
            assert listed["batch_id"] == batch["batch_id"]
            refused = await resumed(client, batch["batch_id"])
            assert refused["error"]["code"] == "no_task_database"
        async with place.client(task_database=None) as client:
            lost = await call(client, "task_status", batch_id=batch["batch_id"])
            assert lost["error"]["code"] == "batch_not_found"
            assert "--task-database" in lost["error"]["remedy"]
        assert not place.database.exists()

    asyncio.run(main())


# -- the file --------------------------------------------------------------------------------


def server(tmp_path: Path, database: Path | str) -> VesperaServer:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    return VesperaServer(ServerOptions(roots=[root]), host={}, task_database=database)


def test_a_database_that_cannot_be_used_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database, and long enough to be read as one\n" * 100)
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign")) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
        db.commit()
    with TaskQueue(tmp_path / "batch") as queue:
        queue.add([TaskSpec("a", {"prompt": "x"})])
    (tmp_path / "file").touch()
    for name, words in {
        "text": "not a database",
        "foreign": "another program's database",
        "batch": "it is of vespera run",
        "file/below": "there is no directory",
        "nowhere/below": "there is no directory .*nowhere; create it, or name another file",
        ".": "it is no file",
        "root/inside": "beneath the root",
    }.items():
        with pytest.raises(ConfigError, match=words) as caught:
            server(tmp_path, tmp_path / name)
        assert caught.value.field == "task_database"
        assert caught.value.remedy
    assert not (tmp_path / "nowhere").exists()
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign")) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    server(tmp_path, path)
    path.chmod(0o400)
    with pytest.raises(ConfigError, match="task_database"):
        server(tmp_path, path)


def test_a_disk_that_takes_nothing_is_a_failure_in_words(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def main() -> None:
        async with place.client() as client:
            monkeypatch.setattr(Selection, "add", full)
            refused = await call(client, "run_tasks", tasks=[{"prompt": "x", "agent_id": "x"}])
            assert refused["error"]["code"] == "task_database"
            assert "disk is full" in refused["error"]["message"]
            monkeypatch.undo()
            batch = await call(client, "run_tasks", tasks=[{"prompt": "x", "agent_id": "x"}])
            assert batch["completed"] == 1

    asyncio.run(main())


def test_a_newer_database_names_the_version_to_install(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    server(tmp_path, path)
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("UPDATE written_by SET version = '9.9.9'")
        db.commit()
    with pytest.raises(NewerDatabase, match=r"install vespera-server 9\.9\.9"):
        server(tmp_path, path)


def test_a_wish_of_another_version_ends_with_its_reason(place: Place) -> None:
    async def main() -> None:
        database = TaskDatabase(str(place.database))
        wish = dataclasses.asdict(Wish(agent_id="a", prompt="x")) | {"later": 1}
        database._queue.add([TaskSpec("batch-1/a", wish), TaskSpec("batch-1/b", wish | {"x": 2})])
        database.close()
        async with place.client() as client:
            over = await resumed(client, "batch-1")
            assert [row["error"]["code"] for row in over["tasks"]] == ["task_not_known"] * 2

    asyncio.run(main())


def test_a_keeper_is_known_without_writing(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    server(tmp_path, path)
    assert keeper_of(path) == "vespera serve"
    assert keeper_of(tmp_path / "nothing") is None
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "text").write_text("x" * 5000)
    assert keeper_of(tmp_path / "text") is None


def test_gc_takes_it_for_a_run_where_runs_are_kept(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    path = state.new_run("batches") / "tasks.db"
    database = TaskDatabase(str(path))
    asyncio.run(database.add("batch-1", [Wish(agent_id="a", prompt="x")]))
    later = time.time() + 40 * 86400
    assert collect(state, now=later).removed == []
    database.close()
    (gone,) = collect(state, now=later).removed
    assert (gone.why, gone.run.unfinished, path.exists()) == ("age", 1, False)


def test_a_setting_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "vespera").mkdir()
    user = tmp_path / "vespera" / "vespera.toml"
    user.write_text("[serve]\ntask_database = '/var/lib/agents/batches.db'\n")
    layered = load_settings(tmp_path, environment={})
    assert layered.origin("serve.task_database") == str(user)
    options = server_options(Flags(), layered.values.serve)
    assert options.task_database == "/var/lib/agents/batches.db"
    over = server_options(Flags(fields={"task_database": "b.db"}), layered.values.serve)
    assert over.task_database == "b.db"


@pytest.mark.parametrize("own", [False, True])
def test_its_directory_is_made_in_our_own_place_only(own: bool, tmp_path: Path) -> None:
    place, root = tmp_path / "place", tmp_path / "root"
    root.mkdir()
    database = place / "kept" / "x.db"
    state = place if own else tmp_path / "state"
    done = subprocess.run(
        [sys.executable, "-m", "vespera_server", "serve", "--root", str(root)],
        env={
            **os.environ,
            "VESPERA_STATE__DIRECTORY": str(state),
            "VESPERA_SERVE__TASK_DATABASE": str(database),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, place.exists()) == ((0, True) if own else (2, False)), done.stderr
    if own:
        assert {path.stat().st_mode & 0o777 for path in (place, database.parent)} == {0o700}


def test_the_command_says_what_to_do_once(tmp_path: Path) -> None:
    words = ["serve", "--root", str(tmp_path), "--task-database", __file__]
    done = subprocess.run(
        [sys.executable, "-m", "vespera_server", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("name another file") == 1, done.stderr
