"""`vespera ps`, `top`, `logs`, `kill` and `history` as a user calls them, over both backends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from places import CLI, Place, wait_for
from vespera_agent_spawner import backends, register
from vespera_agent_spawner.backends.python import proc
from vespera_agent_spawner.register import Host, Listed, Process
from vespera_server import VesperaServer
from vespera_server.state.directory import StateDirectory
from vespera_server.watch.transcripts import read_said
from vespera_server.watch.trees import end_tree, look, members, usage

SLOW = """
[[tasks]]
id = "slow"
prompt = "go"
scripted = [
  { tool = "Bash", input = { command = "echo $$ > pid; exec sleep 60" } },
  { text = "done" },
]
[[tasks]]
id = "after"
needs = ["slow"]
prompt = "go"
"""
QUICK = """
[[tasks]]
id = "quick"
prompt = "Say it"
scripted = [{ tool = "Bash", input = { command = "echo hi" } }, { text = "said" }]
[[tasks]]
id = "bad"
prompt = "Fail"
scripted = [{ fail = 400 }]
"""


@pytest.fixture(params=["rust", "python"])
def backend(request: pytest.FixtureRequest) -> str:
    problem = backends.rust_problem()
    if request.param == "rust" and problem is not None:
        if os.environ.get("VESPERA_REQUIRE_RUST"):
            raise problem
        pytest.skip(f"no Rust backend here: {problem}")
    return str(request.param)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setenv("HOME", made.environment["HOME"])
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return made


class Working:
    """A `vespera run` whose agent `slow` is in a tool, which has a session of its own."""

    def __init__(self, place: Place, backend: str) -> None:
        place.environment["VESPERA_SUPERVISOR__BACKEND"] = backend
        place.write(SLOW)
        self.place = place
        self.process = place.start("tasks.toml", "--scripted")
        wait_for(place.work / "pid")
        self.tool = int((place.work / "pid").read_text())
        until(lambda: self.row()["state"] == "in_turn")

    def row(self) -> dict[str, Any]:
        done = self.place.vespera("ps", "--json")
        assert done.returncode == 0, done.stderr
        rows = [row for host in json.loads(done.stdout)["hosts"] for row in host["agents"]]
        found: dict[str, Any] = rows[0] if rows else {"state": "not listed"}
        return found

    def end(self) -> None:
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.process.send_signal(number)
        self.process.communicate(timeout=60)
        # Without a guardian a killed host's tool stays.
        if alive(self.tool) and proc.look_at(self.tool) is not None:
            os.kill(self.tool, signal.SIGKILL)


@pytest.fixture
def working(place: Place, backend: str) -> Iterator[Working]:
    made = Working(place, backend)
    yield made
    made.end()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    found = proc.look_at(pid)
    return found is not None and found.state not in "ZX"


def identity(pid: int) -> Process:
    started = proc.start_time(pid)
    assert started is not None
    return Process(pid, started)


def host_of(*agents: Listed, alive: bool | None = True) -> Host:
    now = time.time()
    me = identity(os.getpid())
    return Host(me.pid, me.start_time, now, now, "0.1.0", "/", agents, alive)


def listed(leader: Process | None, **more: Any) -> Listed:
    return Listed("a", "in_turn", "python", "pgroup", time.time(), leader=leader, **more)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


# -- ps and top ------------------------------------------------------------------------------


def test_ps_lists_what_a_run_does_and_nothing_after_it(working: Working, backend: str) -> None:
    row = working.row()
    assert row["agent_id"] == "slow"
    assert row["backend"] == backend
    assert row["host_pid"] == working.process.pid
    assert alive(row["pid"])
    text = working.place.vespera("ps").stdout
    assert f"slow   in_turn  {row['pid']}" in text
    assert f"host {working.process.pid}: vespera run tasks.toml --scripted" in text
    working.end()
    assert working.place.vespera("ps").stdout.startswith("no agent runs here")


def test_top_measures_the_whole_tree(working: Working) -> None:
    done = working.place.vespera("top", "--json", "-n", "2", "--interval", "0.2")
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, len(samples)) == (0, 2)
    (row,) = samples[1]["agents"]
    # The stand-in is Python, the tool a sleep in another session.
    assert row["processes"] == 2
    assert row["rss"] > 4 << 20
    assert row["cpu"] < 1
    text = working.place.vespera("top").stdout
    assert "slow" in text
    assert "MiB" in text


def test_top_on_a_terminal_looks_again_until_ctrl_c(place: Place) -> None:
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vespera_server", "top", "--interval", "0.1"],
        cwd=place.work,
        env={**place.environment, "TERM": "xterm"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    try:
        seen = b""
        while seen.count(b"no agent runs here") < 3:
            seen += os.read(master, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_a_server_lists_the_agents_of_its_clients_and_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    options = {
        "roots": [str(tmp_path)],
        "programs": {"claude": str(CLI)},
        "transcript_dir": str(tmp_path / "kept"),
    }
    environment = {"PATH": os.environ["PATH"], "CLAUDE_CONFIG_DIR": str(tmp_path / "config")}

    async def main() -> None:
        server = VesperaServer(options, host=environment)
        async with Client(server.mcp_server) as client:
            answer = await client.call_tool("spawn_claude_agent", {"agent_id": "docs"})
            assert answer.structured_content is not None
            assert answer.structured_content["success"], answer.structured_content

            def seen() -> bool:
                found = [agent for host in register.hosts() for agent in host.agents]
                return [(a.agent_id, a.state) for a in found] == [("docs", "ready")]

            await asyncio.to_thread(until, seen)
            ((agent,),) = [host.agents for host in register.hosts()]
            assert agent.transcript == str(tmp_path / "kept" / "docs.transcript")

    asyncio.run(main())


def test_a_state_directory_of_ones_own_holds_all_of_it(working: Working) -> None:
    assert (working.place.root / "state" / "hosts").is_dir()
    assert not Path(working.place.environment["HOME"]).exists()


def test_programs_without_this_package_tell_in_the_same_place(place: Place) -> None:
    assert StateDirectory().hosts == register.directory()


# -- kill ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("--force",)])
def test_kill_ends_the_whole_tree_and_the_host_hears_of_it(
    working: Working, how: tuple[str, ...]
) -> None:
    row = working.row()
    done = working.place.vespera("kill", "slow", "--json", *how)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ended"] is True
    assert answer["by"] == ("kill" if how else "terminate")
    assert not alive(row["pid"])
    assert not alive(working.tool)
    output, _ = working.process.communicate(timeout=60)
    assert working.process.returncode == 1
    assert f"{'SIGKILL' if how else 'SIGTERM'} that was not ours" in output
    assert "after: cancelled: it needs 'slow', which ended " in output


def test_kill_needs_no_help_of_a_host_that_is_stuck(working: Working) -> None:
    working.process.send_signal(signal.SIGSTOP)
    done = working.place.vespera("kill", "slow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not alive(working.tool)


def test_kill_ends_what_a_dead_host_left(place: Place) -> None:
    """Only the Python backend leaves anything: nobody ends its trees when it is killed."""
    working = Working(place, "python")
    pid = working.row()["pid"]
    os.kill(pid, signal.SIGSTOP)  # it would leave by itself when its input ends
    working.process.kill()
    working.process.communicate()
    assert working.row()["state"] == "orphaned"
    assert "(dead; its agents are not)" in place.vespera("ps").stdout
    done = place.vespera("kill", "slow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not alive(pid)
    assert not alive(working.tool)
    assert place.vespera("ps").stdout.startswith("no agent runs here")


def test_a_stranger_with_its_number_is_left_in_peace(sleeper: subprocess.Popen[bytes]) -> None:
    now = identity(sleeper.pid)
    agent = listed(Process(now.pid, now.start_time - 1))
    assert members(agent, look()) == []
    ended = end_tree(host_of(agent), agent, 0)
    assert (ended.by, ended.survivors) == ("itself", ())
    assert alive(sleeper.pid)


def test_a_stranger_with_the_number_of_its_leash_is_left_in_peace(
    sleeper: subprocess.Popen[bytes],
) -> None:
    me = identity(os.getpid())
    gone = Process(sleeper.pid, identity(sleeper.pid).start_time - 1)
    agent = listed(gone, leash=Process(me.pid, me.start_time - 1))
    assert members(agent, look()) == []
    assert end_tree(host_of(agent), agent, 0).survivors == ()
    assert alive(sleeper.pid)


def test_nobody_older_than_the_agent_is_of_its_tree() -> None:
    def process(pid: int, parent: int, start: int, session: int) -> proc.Process:
        return proc.Process(pid, parent, session, session, "S", start, 0, 0, 0, False)

    everybody = {
        each.pid: each
        for each in (
            process(1, 0, 0, 1),
            process(10, 1, 50, 10),  # the leader
            process(11, 10, 60, 10),
            process(12, 11, 70, 12),  # has a session of its own
            process(13, 10, 40, 10),  # a child of whoever had the number before
            process(20, 1, 80, 20),
        )
    }
    assert [each.pid for each in members(listed(Process(10, 50)), everybody)] == [10, 11, 12]
    assert members(listed(Process(10, 49)), everybody) == []
    assert usage(listed(Process(10, 50)), everybody).processes == 3
    del everybody[10]
    assert [each.pid for each in members(listed(Process(10, 50)), everybody)] == [11, 12]


def test_what_cannot_be_named_without_doubt_is_not_touched(
    place: Place, sleeper: subprocess.Popen[bytes]
) -> None:
    where = register.directory()
    where.mkdir(parents=True)
    leader = identity(sleeper.pid)
    for number, agents in enumerate(
        [
            (listed(leader), Listed("b", "queued", "", "", 0.0)),
            (listed(leader),),
        ]
    ):
        # Two living processes: this one and its parent.
        process = identity(os.getpid() if number else os.getppid())
        host = Host(process.pid, process.start_time, 1.0, 1.0, "0.1.0", "/", agents)
        (where / register.file_name(process)).write_text(json.dumps(register.to_json(host)))
    elsewhere = Host(
        7, 7, 1.0, 1.0, "0.1.0", "/", (Listed("c", "ready", "", "", 1.0, leader=leader),)
    )
    (where / "0123-1-7-7.json").write_text(json.dumps(register.to_json(elsewhere)))
    for arguments, words in (
        (("a",), "is there 2 times"),
        (("b",), "waits for a place"),
        (("c",), "another machine or container"),
        (("d",), "no agent 'd' is listed"),
        # A number that no process has.
        (("a", "--pid", "4194304"), "no agent 'a' with pid 4194304"),
        (("a", "--grace", "soon"), '--grace: got "soon"'),
    ):
        done = place.vespera("kill", *arguments)
        assert done.returncode == 2, done.stdout
        assert words in done.stderr.replace("\n", " ")
    assert alive(sleeper.pid)
    done = place.vespera("kill", "a", "--pid", str(os.getpid()))
    assert done.returncode == 0, done.stderr
    assert not alive(sleeper.pid)


# -- logs ------------------------------------------------------------------------------------


def test_logs_tell_of_a_task_that_ended(place: Place) -> None:
    place.write(QUICK)
    place.run("tasks.toml", "--scripted")
    done = place.vespera("logs", "quick")
    assert done.returncode == 0, done.stderr
    told = [line[9:] for line in done.stdout.splitlines()]
    for line in (
        "host    Say it",
        'agent   uses Bash {"command": "echo hi"}',
        "agent   said",
        "queue   ended outcome=completed",
    ):
        assert line in told
    assert told.index("host    Say it") < told.index("agent   said")
    assert place.vespera("logs", "quick", "-n", "1").stdout.splitlines() == [
        done.stdout.splitlines()[-1]
    ]
    records = place.vespera("logs", "quick", "--json").stdout.splitlines()
    assert [json.loads(line)["text"] for line in records] == [
        line[8:] for line in told if line.strip()
    ]
    raw = place.vespera("logs", "quick", "--raw").stdout
    assert raw.startswith('# {"vespera_transcript": 1')


def test_a_transcript_reads_as_what_was_said(tmp_path: Path) -> None:
    def line(mark: str, frame: dict[str, Any]) -> str:
        return f"{mark} 1.5 {json.dumps(frame)}\n"

    path = tmp_path / "t"
    result = [{"type": "text", "text": "line 1\nline 2"}]
    blocks = [{"type": "tool_result", "content": result, "is_error": True}]
    path.write_text(
        '# {"vespera_transcript": 1, "session_id": "s", "adapter": "claude", "started_at": 1.0}\n'
        + line(">", {"type": "control_request", "request": {"subtype": "initialize"}})
        + line("<", {"type": "system", "subtype": "init"})
        + line("<", {"type": "user", "message": {"content": blocks}})
        + line("<", {"type": "assistant", "message": {"content": "x" * 5000}})
        + line("<", {"type": "made_up_later", "text": "?"})
        + "! 2.5 70000000 {head\n"
        + "? what is that\n"
        + '= {"outcome": "failed", "error": "no"}\n'
        + "< 3.5 {half a rec"
    )
    told = list(read_said(path))
    assert [said.text[:40] for said in told] == [
        "session s",
        "→ failed: line 1\nline 2",
        "x" * 40,
        "a line of 70000000 bytes, left out",
        "? what is that",
        "failed: no",
    ]
    assert told[2].text.endswith(" … (5000 characters)")
    kinds = [said.kind for said in read_said(path, everything=True)]
    assert kinds[1:3] == ["control_request", "system"]
    assert "made_up_later" in kinds


def test_logs_follow_a_living_agent_to_its_end(working: Working) -> None:
    following = subprocess.Popen(
        [sys.executable, "-m", "vespera_server", "logs", "-f", "slow"],
        cwd=working.place.work,
        env=working.place.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    seen: list[str] = []
    while not any("uses Bash" in line for line in seen):
        seen.append(following.stdout.readline())
        assert seen[-1], "it ended too early"
    assert working.place.vespera("kill", "slow").returncode == 0
    rest, _ = following.communicate(timeout=60)
    assert following.returncode == 0
    assert "failed" in rest or "killed" in rest


def test_logs_say_where_nothing_is_kept_and_whom_they_do_not_know(
    place: Place, sleeper: subprocess.Popen[bytes]
) -> None:
    where = register.directory()
    where.mkdir(parents=True)
    host = host_of(listed(identity(sleeper.pid)))
    name = register.file_name(identity(os.getpid()))
    (where / name).write_text(json.dumps(register.to_json(host)))
    done = place.vespera("logs", "a")
    assert done.returncode == 1
    assert "set transcript_dir" in done.stderr
    done = place.vespera("logs", "aa")
    assert done.returncode == 2
    assert "did you mean 'a'?" in done.stderr


def test_logs_neither_command_the_terminal_nor_show_secrets(place: Place) -> None:
    place.environment["DEPLOY_TOKEN"] = "a-very-secret-value"
    text = "\\u001b]0;owned\\u0007 a-very-secret-value"
    place.write(f'[[tasks]]\nid = "t"\nprompt = "p"\nscripted = [{{ text = "{text}" }}]\n')
    place.run("tasks.toml", "--scripted")
    shown = place.vespera("logs", "t").stdout
    assert "\x1b" not in shown
    assert "\\x1b]0;owned\\x07 [redacted]" in shown


# -- history ---------------------------------------------------------------------------------


def test_history_lists_runs_and_their_tasks(place: Place) -> None:
    assert place.vespera("history").stdout.startswith("no run in ")
    place.write(QUICK)
    place.run("tasks.toml", "--scripted")
    place.write(QUICK.replace("quick", "again"), "other.toml")
    place.run("other.toml", "--scripted", "--database", str(place.work / "own.db"))
    (run,) = json.loads(place.vespera("history", "--json").stdout)["runs"]
    assert run["counts"] == {"completed": 1, "failed": 1}
    assert run["state"] == "ended"
    assert run["cost_usd"] > 0
    assert run["duration"] > 0
    assert place.vespera("history").stdout.splitlines()[1].startswith(f"{run['run']}  ")
    shown = place.vespera("history", run["run"][:15], "--json")
    tasks = {task["task_id"]: task for task in json.loads(shown.stdout)["tasks"]}
    assert tasks["quick"]["outcome"] == "completed"
    assert tasks["quick"]["cost_usd"] > 0
    assert tasks["quick"]["duration"] > 0
    assert tasks["bad"]["error"].startswith("API Error")
    named = place.vespera("history", "--database", "own.db").stdout
    assert "again  completed" in named


def test_history_of_what_is_not_there_is_exit_code_2(place: Place) -> None:
    for arguments in (("20991231",), ("--database", "no.db")):
        done = place.vespera("history", *arguments)
        assert done.returncode == 2
        assert "vespera history:" in done.stderr
    assert not (place.work / "no.db").exists()


def test_looking_changes_nothing(working: Working) -> None:
    (database,) = working.place.databases()
    before = {path: path.stat().st_mtime_ns for path in database.parent.iterdir()}
    assert "at work" in working.place.vespera("history").stdout
    assert working.place.vespera("logs", "slow").returncode == 0
    kept = {path: before[path] for path in before if not path.name.endswith(("-wal", "-shm"))}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_run_that_cannot_be_read_is_listed_as_such(place: Place) -> None:
    run = place.root / "state" / "runs" / "20200101T000000-old-000000"
    run.mkdir(parents=True)
    (run / "tasks.db").write_text("no database")
    (row,) = json.loads(place.vespera("history", "--json").stdout)["runs"]
    assert row["state"] == "unreadable"
    assert "cannot be read" in row["problem"]
