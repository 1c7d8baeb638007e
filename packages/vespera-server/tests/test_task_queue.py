"""The durable queue: order, leases, crashes, several processes, the schema's way forward."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vespera_agent_spawner.errors import ConfigError
from vespera_server.tasks import (
    DependencyCycle,
    LeaseLost,
    NewerDatabase,
    Start,
    TaskExists,
    TaskNotFound,
    TaskQueue,
    TaskSpec,
    TaskState,
    UnknownDependency,
)
from vespera_server.tasks.database import MIGRATIONS, open_database
from vespera_server.tasks.owners import nobody_owns, somebody_owns

WORKER = """
import json, sys
from vespera_server.tasks import TaskQueue
with TaskQueue(sys.argv[1]) as queue:
    print("ready", flush=True)
    sys.stdin.readline()
    done = []
    while claim := queue.claim():
        queue.heartbeat(claim)
        queue.finish(claim, "completed")
        done.append(claim.task_id)
print(json.dumps(done))
"""

HOLDER = """
import sys
from vespera_server.tasks import TaskQueue
queue = TaskQueue(sys.argv[1])
print(queue.claim().session_id, flush=True)
sys.stdin.readline()
"""


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def queue(path: Path, clock: Clock) -> Iterator[TaskQueue]:
    with TaskQueue(path, lease_seconds=30, clock=clock) as opened:
        yield opened


def drain(queue: TaskQueue) -> list[str]:
    order = []
    while claim := queue.claim():
        order.append(claim.task_id)
        queue.finish(claim, "completed")
    return order


def test_higher_priority_goes_first_and_equals_in_the_order_of_adding(queue: TaskQueue) -> None:
    queue.add([TaskSpec("a"), TaskSpec("b", priority=5), TaskSpec("c"), TaskSpec("d", priority=5)])
    assert drain(queue) == ["b", "d", "a", "c"]


def test_a_task_waits_for_what_it_needs_whatever_its_priority(queue: TaskQueue) -> None:
    last = TaskSpec("last", needs=("first", "second"), priority=9)
    queue.add([last, TaskSpec("first"), TaskSpec("second")])
    assert drain(queue) == ["first", "second", "last"]


def test_what_needs_a_failed_task_is_cancelled_down_the_line(queue: TaskQueue) -> None:
    queue.add([TaskSpec("a"), TaskSpec("b", needs=("a",)), TaskSpec("c", needs=("b",))])
    claim = queue.claim()
    assert claim is not None
    queue.finish(claim, "failed", error="no such file")
    assert [task.outcome for task in queue.tasks()] == ["failed", "cancelled", "cancelled"]
    assert queue.task("c").error == "it needs 'b', which ended cancelled"
    queue.add([TaskSpec("late", needs=("a",))])
    assert (queue.task("late").outcome, queue.claim()) == ("cancelled", None)


def test_a_circle_is_refused_with_its_path_and_adds_nothing(queue: TaskQueue) -> None:
    specs = [TaskSpec("in", needs=("a",)), TaskSpec("a", needs=("b",)), TaskSpec("b", needs=("a",))]
    with pytest.raises(DependencyCycle, match="a -> b -> a") as caught:
        queue.add(specs)
    assert caught.value.context["path"] == ["a", "b", "a"]
    assert queue.tasks() == []


def test_a_chain_longer_than_the_stack_is_no_circle(queue: TaskQueue) -> None:
    length = sys.getrecursionlimit() * 2
    chain = [TaskSpec(f"t{n}", needs=(f"t{n + 1}",)) for n in range(length)]
    queue.add([*chain, TaskSpec(f"t{length}")])
    claim = queue.claim()
    assert claim is not None
    assert claim.task_id == f"t{length}"
    queue.finish(claim, "failed")
    assert Counter(task.outcome for task in queue.tasks()) == {"failed": 1, "cancelled": length}


def test_unknown_needs_and_ids_in_use_are_refused_by_name(queue: TaskQueue) -> None:
    with pytest.raises(UnknownDependency, match="'a' needs 'nobody'"):
        queue.add([TaskSpec("a", needs=("nobody",))])
    queue.add([TaskSpec("a")])
    with pytest.raises(TaskExists, match="'a'"):
        queue.add([TaskSpec("new"), TaskSpec("a")])
    with pytest.raises(TaskNotFound, match="no task 'new'"):
        queue.task("new")


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("task_id", lambda: TaskSpec("")),
        ("task_id", lambda: TaskSpec("a\nb")),
        ("priority", lambda: TaskSpec("a", priority=10**9)),
        ("needs", lambda: TaskSpec("a", needs="b")),  # type: ignore[arg-type]
    ],
)
def test_a_task_that_cannot_work_names_its_field(field: str, make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigError) as caught:
        make()
    assert (caught.value.field, bool(caught.value.remedy)) == (field, True)


def test_config_that_is_not_json_is_refused(queue: TaskQueue) -> None:
    with pytest.raises(ConfigError, match="config of task 'a'"):
        queue.add([TaskSpec("a", {"limit": float("nan")})])
    assert queue.tasks() == []


def test_results_costs_and_events_are_kept(queue: TaskQueue, path: Path) -> None:
    queue.add([TaskSpec("a", {"prompt": "é\0"}), TaskSpec("b")])
    for cost in (0.25, 0.5):
        claim = queue.claim()
        assert claim is not None
        queue.finish(claim, "completed", result={"lines": [1, 2]}, cost_usd=cost)
    with TaskQueue(path) as again:
        task = again.task("a")
        assert (task.state, task.result) == (TaskState.ENDED, {"lines": [1, 2]})
        assert (task.config, task.attempts) == ({"prompt": "é\0"}, 1)
        assert again.cost_usd() == 0.75
        assert [event.kind for event in again.events("a")] == ["added", "started", "ended"]


def test_a_heartbeat_keeps_the_lease_and_silence_loses_it(queue: TaskQueue, clock: Clock) -> None:
    queue.add([TaskSpec("a")])
    first = queue.claim()
    assert first is not None
    clock.now += 29
    first = queue.heartbeat(first)
    clock.now += 29
    assert queue.claim() is None
    clock.now += 1
    second = queue.claim()
    assert second is not None
    assert (second.start, second.session_id) == (Start.RESUMED, first.session_id)
    assert second.attempts == 1
    for late in (queue.heartbeat, queue.release, queue.restart):
        with pytest.raises(LeaseLost, match="'a' is void"):
            late(first)
    with pytest.raises(LeaseLost):
        queue.finish(first, "completed", result="late")
    queue.finish(second, "completed", result="mine")
    with pytest.raises(LeaseLost):
        queue.finish(second, "failed")
    assert (queue.task("a").result, queue.task("a").outcome) == ("mine", "completed")


def test_a_released_task_is_resumed_at_once(queue: TaskQueue) -> None:
    queue.add([TaskSpec("a")])
    first = queue.claim()
    assert first is not None
    queue.release(first)
    second = queue.claim()
    assert second is not None
    assert (second.start, second.session_id) == (Start.RESUMED, first.session_id)


def test_a_restart_counts_the_attempt_and_takes_a_fresh_session(queue: TaskQueue) -> None:
    queue.add([TaskSpec("a")])
    first = queue.claim()
    assert first is not None
    fresh = queue.restart(first)
    assert fresh is not None
    assert (fresh.start, fresh.attempts, queue.task("a").attempts) == (Start.RESTARTED, 2, 2)
    assert fresh.session_id == queue.task("a").session_id != first.session_id
    queue.finish(fresh, "completed")
    assert [e.kind for e in queue.events("a")] == ["added", "started", "restarted", "ended"]


def test_restart_false_ends_incomplete(queue: TaskQueue) -> None:
    queue.add([TaskSpec("a", restart=False), TaskSpec("b", needs=("a",))])
    claim = queue.claim()
    assert claim is not None
    assert queue.restart(claim) is None
    assert [task.outcome for task in queue.tasks()] == ["incomplete", "cancelled"]
    assert "restart is false" in (queue.task("a").error or "")


def test_an_outcome_that_does_not_exist_is_refused(queue: TaskQueue) -> None:
    queue.add([TaskSpec("a")])
    claim = queue.claim()
    assert claim is not None
    with pytest.raises(ValueError, match="splendid"):
        queue.finish(claim, "splendid")
    assert queue.task("a").state == TaskState.RUNNING


def test_processes_on_one_database_never_double_a_task(path: Path) -> None:
    ids = [f"t{number}" for number in range(120)]
    with TaskQueue(path) as queue:
        queue.add([TaskSpec(task_id) for task_id in ids])
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(python(WORKER, path)) for _ in range(3)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        answers = []
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            answers += json.loads(worker.communicate(timeout=60)[0])
    assert sorted(answers) == sorted(ids)
    with TaskQueue(path) as queue:
        kinds = Counter(event.kind for task_id in ids for event in queue.events(task_id))
    assert kinds == {"added": 120, "started": 120, "ended": 120}


def test_the_task_of_a_killed_process_is_resumed_by_its_session(path: Path) -> None:
    with TaskQueue(path) as queue:
        queue.add([TaskSpec("a")])
    with python(HOLDER, path) as holder:
        assert holder.stdout is not None
        session_id = holder.stdout.readline().strip()
        holder.kill()
        holder.wait(timeout=10)
    with TaskQueue(path) as queue:
        claim = queue.claim()
    assert claim is not None
    assert (claim.start, claim.session_id) == (Start.RESUMED, session_id)


def test_the_task_of_a_stopped_process_waits_for_its_lease(path: Path) -> None:
    with TaskQueue(path) as queue:
        queue.add([TaskSpec("a")])
    with python(HOLDER, path) as holder:
        assert holder.stdout is not None
        session_id = holder.stdout.readline().strip()
        holder.send_signal(signal.SIGSTOP)
        with TaskQueue(path) as queue:
            assert queue.claim() is None
        with TaskQueue(path, clock=lambda: time.time() + 31) as later:
            claim = later.claim()
    assert claim is not None
    assert (claim.start, claim.session_id) == (Start.RESUMED, session_id)


def test_a_database_with_an_owner_is_not_to_be_removed(path: Path) -> None:
    with TaskQueue(path) as queue:
        queue.add([TaskSpec("a")])
        assert not somebody_owns(path)
        queue.claim()
        assert somebody_owns(path)
        with nobody_owns(path) as free:
            assert not free
    assert not somebody_owns(path)
    with nobody_owns(path) as free:
        assert free
        assert somebody_owns(path)


def test_a_session_that_was_never_launched_is_not_resumed(path: Path) -> None:
    with TaskQueue(path) as first, TaskQueue(path) as second:
        first.add([TaskSpec("a")])
        claim = first.claim(launched=False)
        assert claim is not None
        first.release(claim)
        again = second.claim(launched=False)
        assert again is not None
        assert (again.start, again.session_id, again.attempts) == (
            Start.STARTED,
            claim.session_id,
            1,
        )
        second.launch(again)
        second.release(again)
        last = first.claim(launched=False)
        assert last is not None
        assert (last.start, last.session_id) == (Start.RESUMED, claim.session_id)
        fresh = first.restart(last, launched=False)
        assert fresh is not None
        first.release(fresh)
        never = second.claim()
        assert never is not None
        assert (never.start, never.attempts) == (Start.STARTED, 2)


def test_many_leases_are_prolonged_at_once_and_the_void_ones_named(
    queue: TaskQueue, clock: Clock
) -> None:
    queue.add([TaskSpec("a"), TaskSpec("b")])
    first, second = queue.claim(), queue.claim()
    assert first is not None
    assert second is not None
    queue.finish(first, "completed")
    clock.now += 20
    assert queue.prolong([first, second]) == [first]
    clock.now += 20
    assert queue.claim() is None


def test_a_second_adding_of_the_same_tasks_adds_what_is_new(queue: TaskQueue) -> None:
    first = [TaskSpec("a", {"prompt": "x"}), TaskSpec("b", needs=("a",))]
    assert queue.merge(first) == ["a", "b"]
    assert queue.merge([*first, TaskSpec("c", needs=("b",))]) == ["c"]
    with pytest.raises(TaskExists, match="'a' is in the queue already with another config"):
        queue.merge([TaskSpec("d"), TaskSpec("a", {"prompt": "y"})])
    assert [task.task_id for task in queue.tasks()] == ["a", "b", "c"]


def test_facts_extras_and_counts_are_kept(queue: TaskQueue, path: Path) -> None:
    queue.add([TaskSpec("a", extra={"role": "reader"}), TaskSpec("b"), TaskSpec("c")])
    queue.remember(file="tasks.toml", tries=1)
    queue.remember(tries=2)
    claim = queue.claim()
    assert claim is not None
    assert claim.extra == {"role": "reader"}
    queue.note(claim, "spoke", words=3)
    queue.finish(claim, "failed")
    with TaskQueue(path) as again:
        assert again.facts() == {"file": "tasks.toml", "tries": 2}
        assert again.counts() == {"failed": 1, "pending": 2}
        assert again.task("a").extra == {"role": "reader"}
        assert [event.kind for event in again.events("a")] == ["added", "started", "spoke", "ended"]


@contextlib.contextmanager
def python(source: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", source, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_database_is_for_its_owner_only(queue: TaskQueue, path: Path) -> None:
    queue.add([TaskSpec("a")])
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("tasks.db", "tasks.db-wal", "tasks.db-shm"), 0o600)


def test_a_migration_keeps_a_copy_of_what_was(path: Path) -> None:
    with TaskQueue(path) as queue:
        queue.add([TaskSpec("a")])
    step = ("ALTER TABLE tasks ADD COLUMN colour TEXT",)
    with contextlib.closing(open_database(path, (*MIGRATIONS, step))) as db:
        assert [tuple(row) for row in db.execute("SELECT id, colour FROM tasks")] == [("a", None)]
    copy = path.with_name(f"tasks.db.schema-{len(MIGRATIONS)}")
    assert copy.stat().st_mode & 0o777 == 0o600
    with TaskQueue(copy) as old:
        assert old.task("a").state == TaskState.PENDING


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    with TaskQueue(path) as queue:
        queue.add([TaskSpec("a")])
    steps = ("ALTER TABLE tasks ADD COLUMN colour TEXT", "ALTER TABLE nowhere ADD COLUMN x TEXT")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        open_database(path, (*MIGRATIONS, steps))
    with TaskQueue(path) as queue:
        assert queue.task("a").state == TaskState.PENDING
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert "colour" not in {row[1] for row in db.execute("PRAGMA table_info(tasks)")}


def test_the_first_schema_comes_forward_with_its_tasks(path: Path) -> None:
    with contextlib.closing(open_database(path, MIGRATIONS[:1])) as db:
        db.execute(
            "INSERT INTO tasks (id, config, priority, restart, state, attempts, session_id, token,"
            " lease_until) VALUES ('a', '{}', 0, 1, 'running', 1, 's', 't', 0)"
        )
    with TaskQueue(path) as queue:
        claim = queue.claim(launched=False)
    assert claim is not None
    assert (claim.start, claim.session_id) == (Start.RESUMED, "s")


def test_a_newer_database_is_refused_and_names_the_version_to_install(path: Path) -> None:
    with contextlib.closing(open_database(path, (*MIGRATIONS, ()))) as db:
        db.execute("UPDATE written_by SET version = '9.8.7'")
    with pytest.raises(NewerDatabase, match=r"install vespera-server 9\.8\.7 or later") as caught:
        TaskQueue(path)
    assert (caught.value.code, caught.value.context["schema"]) == (
        "newer_database",
        len(MIGRATIONS) + 1,
    )
