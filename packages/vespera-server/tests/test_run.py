"""`vespera run` as a user calls it, with the fast stand-in for the CLI and the scripted model."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import vespera_agent_spawner as spawner
from places import CLI, Place, wait_for
from vespera_agent_spawner import AgentConfig
from vespera_server.run.scripted import scripted_fleet
from vespera_server.scripted_model import (
    Failure,
    ModelRequest,
    Reply,
    Script,
    ScriptedModel,
    Text,
)
from vespera_server.tasks import Claim, Start, TaskQueue, TaskSpec

THREE = """
[run]
name = "three"
[[tasks]]
id = "t${item}"
items = [1, 2, 3]
prompt = "do ${item}"
"""
SLOW = """
[[tasks]]
id = "slow"
prompt = "go"
scripted = [
  { tool = "Bash", input = { command = "echo ran >> log; echo $$ > pid; exec sleep 60" } },
  { text = "done" },
]
[[tasks]]
id = "after"
needs = ["slow"]
prompt = "go"
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def ended() -> Iterator[Callable[[subprocess.Popen[str]], subprocess.Popen[str]]]:
    """Processes that are killed if a test fails to end them."""
    processes: list[subprocess.Popen[str]] = []

    def keep(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        processes.append(process)
        return process

    yield keep
    for process in processes:
        process.kill()
        process.communicate()


def assert_gone(place: Place) -> None:
    """The tool's process, which has a session of its own: only the Rust backend promises that."""
    pid = int((place.work / "pid").read_text())
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return
    if spawner.backend() == "rust":
        assert state == "Z"
    else:
        os.kill(pid, signal.SIGKILL)


def test_the_first_line_says_what_will_be_spent_and_each_row_that_it_is_scripted(
    place: Place,
) -> None:
    place.write(THREE)
    done = place.run("tasks.toml", "--scripted", "--agents", "2", "--budget", "1.5")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        "running three: 3 tasks, at most 2 agents at once; model: scripted; account: nobody's "
        "account (a scripted model on loopback decides); budget 1.50 USD; database: "
    )
    rows = [line for line in lines if re.match(r"t\d: ", line)]
    assert len(rows) == 6
    assert all("model scripted" in row for row in rows)
    assert lines[-1].startswith("three (scripted): 3 completed; $0.03")


def test_the_users_own_account_is_named_by_where_it_is_not_by_its_key(place: Place) -> None:
    place.write(THREE + 'model = "haiku"\n')
    with ScriptedModel({"default": Script(then=Reply(Text("hello")))}) as model:
        place.environment |= {
            "ANTHROPIC_BASE_URL": model.base_url,
            "ANTHROPIC_API_KEY": "sk-secret",
            "CLAUDE_CONFIG_DIR": str(place.root / "config"),
        }
        done = place.run("tasks.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    first = done.stdout.splitlines()[0]
    assert "model: haiku; account: your key in ANTHROPIC_API_KEY, at ANTHROPIC_BASE_URL;" in first
    assert "no budget" in first
    assert "sk-secret" not in done.stdout
    assert "scripted" not in done.stdout


def test_json_has_every_task_and_nothing_else_is_on_stdout(place: Place) -> None:
    place.write('{"id": "a", "prompt": "x", "scripted": [{"text": "seven"}]}\n', "tasks.jsonl")
    answer = place.json("tasks.jsonl", "--scripted")
    (task,) = answer["tasks"]
    assert (answer["counts"], answer["ending"]) == ({"completed": 1}, "done")
    assert (task["result"], task["model"], task["attempts"]) == ("seven", "scripted", 1)


def test_a_failed_task_is_exit_code_1_and_named(place: Place) -> None:
    place.write('[[tasks]]\nid = "a"\nprompt = "x"\nscripted = [{ fail = 500 }]\n')
    done = place.run("tasks.toml", "--scripted")
    assert done.returncode == 1
    assert re.search(r"^a: failed: ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.toml"], "nowhere.toml"),
        (["tasks.toml"], "tasks.toml:2: tasks[0].question: "),
        (["tasks.toml", "--format", "xml"], "--format: 'xml' is no format; use one of toml, "),
        (["--retry-failed"], "there is no run with tasks that failed or are left in "),
        (["--discard", "20261231"], "is named '20261231…'; 'vespera history' lists them"),
        ([], "there is no task file"),
        (["--resume"], "there is no unfinished run"),
        (["tasks.toml", "--resume", "--database", "no.db"], "there is no database no.db"),
    ],
)
def test_what_cannot_run_is_exit_code_2_and_says_why(
    arguments: list[str], words: str, place: Place
) -> None:
    place.write('[[tasks]]\nquestion = "x"\nid = "a"\nprompt = "x"\n')
    done = place.run(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_begin_leaves_no_run_behind(place: Place) -> None:
    place.write(THREE)
    command = place.command("tasks.toml", "--scripted")
    command[-1] = str(place.root / "claude")
    done = subprocess.run(
        command, cwd=place.work, env=place.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "started" not in done.stdout
    place.environment["VESPERA_BACKEND"] = "ruby"
    done = place.run("tasks.toml", "--scripted")
    assert done.returncode == 2
    assert "VESPERA_BACKEND: 'ruby' is no backend" in done.stderr
    assert place.databases() == []


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--resume",)])
def test_a_file_that_is_no_queue_is_refused_and_stays(
    arguments: tuple[str, ...], place: Place
) -> None:
    place.write(THREE)
    other = place.work / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE theirs (a)")
    place.write("no database", "text.db")
    for name, words in (("other.db", "another program's database"), ("text.db", "not a database")):
        before = (place.work / name).read_bytes()
        done = place.run("tasks.toml", "--scripted", "--database", name, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"database: {name} cannot be used as a run's queue: " in done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert (place.work / name).read_bytes() == before


def test_a_database_in_a_directory_that_is_not_there_is_refused(place: Place) -> None:
    place.write(THREE)
    done = place.run("tasks.toml", "--scripted", "--database", "nowhere/x.db")
    assert done.returncode == 2
    assert "there is no directory" in done.stderr
    assert not (place.work / "nowhere").exists()
    outside = place.root / "state" / ".." / "nowhere" / "x.db"
    assert place.run("tasks.toml", "--scripted", "--database", str(outside)).returncode == 2
    assert not (place.root / "nowhere").exists()
    own = place.root / "state" / "x.db"
    done = place.run("tasks.toml", "--scripted", "--database", str(own))
    assert done.returncode == 0, done.stderr
    assert own.parent.stat().st_mode & 0o777 == 0o700


def test_a_run_goes_on_without_the_program_of_what_completed(place: Place) -> None:
    raw = {"adapter": "raw", "prompt": "x"}
    with TaskQueue(place.work / "kept.db") as queue:
        queue.add(
            [
                TaskSpec("a", {**raw, "program": "/nowhere/at/all"}),
                TaskSpec("b", {**raw, "program": "cat"}),
            ]
        )
        claim = queue.claim()
        assert claim is not None
        queue.finish(claim, "completed")
    assert place.json("--resume", "--database", "kept.db")["counts"] == {"completed": 2}


def failing(*steps: str) -> str:
    """A batch whose first task needs a file, and whose second one needs the first."""
    return f"""
[[tasks]]
id = "a"
prompt = "x"
scripted = [{", ".join(steps)}]
[[tasks]]
id = "b"
needs = ["a"]
prompt = "x"
[[tasks]]
id = "c"
prompt = "x"
"""


@pytest.mark.parametrize("named", [True, False])
def test_failed_tasks_are_done_again_when_asked_for(named: bool, place: Place) -> None:
    place.write(failing("{ fail = 400 }"))
    where = ("--database", "kept.db") if named else ()
    done = place.run("tasks.toml", "--scripted", *where)
    assert done.returncode == 1
    assert "2 tasks did not complete; once more: vespera run --retry-failed --database" in (
        done.stdout
    )
    database = place.work / "kept.db" if named else place.databases()[0]
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("UPDATE tasks SET cost_usd = 0.5 WHERE id = 'a'")
        db.execute("UPDATE tasks SET extra = '{}' WHERE id = 'a'")  # what failed is mended
        db.commit()
    answer = place.json("--retry-failed", *where)
    assert answer["counts"] == {"completed": 3}
    tasks = {task["task_id"]: task for task in answer["tasks"]}
    assert [tasks[name]["attempts"] for name in "abc"] == [2, 1, 1]
    assert tasks["a"]["cost_usd"] == pytest.approx(0.51)
    with TaskQueue(database) as queue:
        assert "retried" in [event.kind for event in queue.events("a")]
    again = place.run("--resume", "--retry-failed", "--database", str(database))
    assert again.returncode == 0
    assert "no task of this run has failed\ntasks: nothing to do, 3 tasks ended" in again.stdout
    shown = place.vespera("history", "--database", str(database))
    assert shown.stdout.splitlines()[-1].startswith("tasks: 3 completed; ")  # as 'run' calls it


def test_the_same_command_with_retry_failed_joins_and_retries(place: Place) -> None:
    place.write(failing("{ fail = 400 }"))
    arguments = ("tasks.toml", "--scripted", "--database", "kept.db", "--retry-failed")
    for expected in (None, "once more: a, b"):
        done = place.run(*arguments)
        assert done.returncode == 1
        assert expected is None or expected in done.stdout


def test_a_failure_that_ends_a_script_goes_on(place: Place) -> None:
    with scripted_fleet(place.root / "scripted") as fleet:
        steps = [{"text": "x"}, {"fail": 529}, {"fail": 400}]
        claim = Claim("a", {}, "s", Start.STARTED, 1, "t", 0.0, {"scripted": steps})
        fleet.configure(claim, AgentConfig(prompt="x"))
        asked = ModelRequest(
            {"tools": [{"name": "Bash"}], "messages": [{"role": "assistant", "content": "x"}]},
            {"x-claude-code-session-id": "s"},
        )
        answers = [fleet._model.scripts.decide(asked).step for _ in range(12)]
    assert [answer.status for answer in answers if isinstance(answer, Failure)] == (
        [529] + [400] * 11
    )


def test_an_unfinished_run_can_be_discarded(place: Place) -> None:
    place.write(THREE)
    place.run("tasks.toml", "--scripted", "--agents", "1", "--budget", "0.01")
    (database,) = place.databases()
    nothing = place.vespera("run", "--discard", "")
    assert (nothing.returncode, database.exists()) == (2, True)
    noted = place.run("tasks.toml", "--scripted")
    assert f"vespera run --discard {database.parent.name} removes it" in noted.stdout
    done = place.vespera("run", "--discard", database.parent.name)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"discarded {database.parent.name} with 2 tasks left, its results and transcripts\n"
    )
    assert not database.parent.exists()
    assert "note:" not in place.run("tasks.toml", "--scripted").stdout


def test_a_run_that_is_at_work_is_not_discarded(
    place: Place, ended: Callable[[subprocess.Popen[str]], subprocess.Popen[str]]
) -> None:
    place.write(SLOW)
    run = ended(place.start("tasks.toml", "--scripted"))
    wait_for(place.work / "pid")
    (database,) = place.databases()
    done = place.vespera("run", "--discard", database.parent.name)
    assert done.returncode == 2
    assert "is at work; end it first" in done.stderr
    assert database.exists()
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)


def test_a_spent_budget_is_exit_code_3_and_resume_with_more_goes_on(place: Place) -> None:
    place.write(THREE)
    done = place.run("tasks.toml", "--scripted", "--agents", "1", "--budget", "0.015")
    assert done.returncode == 3
    assert "0.02 of 0.01 USD spent" in done.stdout or "0.02 of 0.02 USD spent" in done.stdout
    assert "1 task is left; go on with: vespera run --resume --database" in done.stdout
    answer = place.json("tasks.toml", "--resume", "--budget", "1")
    assert (answer["counts"], answer["resumed"]) == ({"completed": 3}, True)


def test_who_is_not_logged_in_is_exit_code_4_and_keeps_the_tasks(place: Place) -> None:
    place.write(THREE)
    with ScriptedModel({"default": Script(then=Failure(401))}) as model:
        place.environment["ANTHROPIC_BASE_URL"] = model.base_url
        place.environment["CLAUDE_CONFIG_DIR"] = str(place.root / "config")
        answer = place.json("tasks.toml", "--agents", "1")
        again = place.run("--resume", "--agents", "1")
    assert answer["exit_code"] == 4
    assert answer["counts"] == {"pending": 3}
    # The CLI may be inside of a wheel, on nobody's PATH.
    assert f"log in with the Claude CLI (run {CLI}, there /login)" in again.stdout


def test_a_killed_run_goes_on_in_its_sessions(
    place: Place, ended: Callable[[subprocess.Popen[str]], subprocess.Popen[str]]
) -> None:
    place.write(SLOW)
    first = ended(place.start("tasks.toml", "--scripted"))
    wait_for(place.work / "pid")
    first.kill()
    first.wait()
    place.write(SLOW.replace("[[tasks]]", "# changed\n[[tasks]]", 1))
    done = place.run("--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming tasks: 2 tasks" in done.stdout
    assert "tasks.toml has changed; the run goes on as it began" in done.stdout
    assert "slow: resumed, attempt 1" in done.stdout or "slow: restarted, attempt 2" in done.stdout
    (database,) = place.databases()
    with TaskQueue(database) as queue:
        assert queue.counts() == {"completed": 2}
        kinds = [event.kind for event in queue.events("slow")]
    assert kinds.count("ended") == 1
    assert_gone(place)


def test_a_new_run_says_that_an_old_one_is_unfinished(place: Place) -> None:
    place.write(THREE)
    place.run("tasks.toml", "--scripted", "--agents", "1", "--budget", "0.01")
    done = place.run("tasks.toml", "--scripted")
    assert done.returncode == 0
    assert "note: an earlier run of tasks.toml has 2 tasks left" in done.stdout
    assert len(place.databases()) == 2


def test_two_runs_on_one_database_double_nothing(
    place: Place, ended: Callable[[subprocess.Popen[str]], subprocess.Popen[str]]
) -> None:
    place.write(THREE.replace("[1, 2, 3]", str(list(range(10)))))
    arguments = ("tasks.toml", "--scripted", "--agents", "2", "--database", "both.db")
    runs = [ended(place.start(*arguments)) for _ in range(2)]
    outputs = [run.communicate(timeout=100)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    endings = re.findall(r"^(t\d): completed", "\n".join(outputs), re.MULTILINE)
    assert sorted(endings) == [f"t{number}" for number in range(10)]
    with TaskQueue(place.work / "both.db") as queue:
        assert queue.counts() == {"completed": 10}
        assert {task.attempts for task in queue.tasks()} == {1}
    again = place.run(*arguments)
    assert again.returncode == 0
    assert "completed, " not in again.stdout
    place.write(THREE)
    other = place.run(*arguments)
    assert other.returncode == 0  # three of them are there, and the same
    place.write(THREE.replace("do", "undo"))
    other = place.run(*arguments)
    assert other.returncode == 2
    assert "'t1' is in the queue already with another config" in other.stderr


def test_scripted_and_the_users_account_do_not_mix(place: Place) -> None:
    place.write(THREE)
    assert place.run("tasks.toml", "--scripted", "--database", "one.db").returncode == 0
    done = place.run("tasks.toml", "--database", "one.db")
    assert done.returncode == 2
    assert "began with the scripted model and stays so" in done.stderr


@pytest.mark.parametrize(
    ("first", "then"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, None), (signal.SIGHUP, None)],
)
def test_now_ends_the_agents_and_keeps_the_tasks(
    first: int,
    then: int | None,
    place: Place,
    ended: Callable[[subprocess.Popen[str]], subprocess.Popen[str]],
) -> None:
    place.write(SLOW)
    run = ended(place.start("tasks.toml", "--scripted"))
    wait_for(place.work / "pid")
    run.send_signal(first)
    if then is not None:
        assert run.stdout is not None
        for line in run.stdout:
            if "nothing more is started" in line:
                break
        run.send_signal(then)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + first
    assert "ending the agents" in output
    assert "2 tasks are left" in output
    assert_gone(place)
    (database,) = place.databases()
    with TaskQueue(database) as queue:
        assert queue.counts() == {"pending": 2}


def test_ctrl_c_once_lets_the_running_end_and_starts_nothing_more(
    place: Place, ended: Callable[[subprocess.Popen[str]], subprocess.Popen[str]]
) -> None:
    place.write(SLOW.replace("exec sleep 60", "exec sleep 2"))
    run = ended(place.start("tasks.toml", "--scripted"))
    wait_for(place.work / "pid")
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "slow: completed" in output
    assert "after: started" not in output


def can_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make a pid namespace")
@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_it_works_as_process_1(
    number: int | None,
    place: Place,
    ended: Callable[[subprocess.Popen[str]], subprocess.Popen[str]],
) -> None:
    """As in a container: it hears signals there, and what orphans leave behind is reaped."""
    orphan = "(setsid sh -c 'sleep 0.1' &) ; ps -o pid=,stat= -A > seen; echo 1 > pid"
    place.write(
        SLOW.replace("echo $$ > pid; exec sleep 60", orphan + ("; sleep 60" * bool(number)))
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    run = ended(
        subprocess.Popen(
            [*command, *place.command("tasks.toml", "--scripted")],
            cwd=place.work,
            env=place.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
    wait_for(place.work / "pid")
    if number is not None:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        os.kill(int(children[0]), number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == (0 if number is None else 128 + number), output
    assert ("2 completed" if number is None else "2 tasks are left") in output


def test_metrics_are_served_while_it_runs(
    place: Place, ended: Callable[[subprocess.Popen[str]], subprocess.Popen[str]]
) -> None:
    place.write(SLOW)
    run = ended(place.start("tasks.toml", "--scripted", "--metrics-port", "0"))
    assert run.stdout is not None
    address = ""
    while not address:
        address = "".join(
            re.findall(r"^metrics: (http://127\.0\.0\.1:\d+/metrics)", next(run.stdout))
        )
    wait_for(place.work / "pid")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=10) as answer:
        scraped = answer.read().decode()
    assert 'vespera_agents{state="in_turn"} 1.0' in scraped
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)


def test_standard_input_is_a_file_too(place: Place) -> None:
    done = place.run("-", "--format", "yaml", "--scripted", input="tasks: [{id: a, prompt: x}]\n")
    assert done.returncode == 0, done.stderr
    assert "running stdin: 1 task, at most 1 agent at once" in done.stdout


def test_a_variable_of_the_command_line_wins(place: Place) -> None:
    place.write(
        '[vars]\nword = "file"\n[[tasks]]\nid = "a"\nprompt = "x"\n'
        'scripted = [{ text = "it is ${word}" }]\n'
    )
    answer = place.json("tasks.toml", "--scripted", "--var", "word=mine")
    assert answer["tasks"][0]["result"] == "it is mine"
    assert place.run("tasks.toml", "--var", "word").returncode == 2
