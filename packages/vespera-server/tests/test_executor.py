"""The durable executor: tasks become agents, their ends are kept, sessions go on after a crash."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from vespera_agent_spawner import SupervisorConfig
from vespera_agent_spawner.errors import ConfigError
from vespera_server.scripted_model import Failure, ModelRequest, Reply, Script, ScriptedModel, Text
from vespera_server.scripted_model.steps import ToolUse
from vespera_server.tasks import (
    DurableExecutor,
    Ending,
    Start,
    Summary,
    TaskNews,
    TaskQueue,
    TaskSpec,
)
from vespera_server.tasks.executor import cost_of
from vespera_server.tasks.fence import holders

CLI = Path(__file__).with_name("session_cli.py")


@pytest.fixture(params=["rust", "python"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "rust" and not spawner.RUST_AGENT_SPAWNER_AVAILABLE:
        pytest.skip("needs the compiled extension")
    return str(request.param)


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    with ScriptedModel({"default": Script(then=lambda r: Reply(Text(f"did {r.marker}")))}) as run:
        yield run


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[TaskQueue]:
    with TaskQueue(tmp_path / "tasks.db", lease_seconds=5) as opened:
        yield opened


@pytest.fixture
def spec(tmp_path: Path, model: ScriptedModel) -> Callable[..., TaskSpec]:
    def make(task_id: str, prompt: str | None = None, **more: Any) -> TaskSpec:
        config = {
            "program": str(CLI),
            "prompt": prompt or f"do {task_id}",
            "working_directory": str(tmp_path),
            "environment": {
                "ANTHROPIC_BASE_URL": model.base_url,
                "CLAUDE_CONFIG_DIR": str(tmp_path / "config"),
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            },
            "inherit_environment": False,
            **more.pop("config", {}),
        }
        return TaskSpec(task_id, config, **more)

    return make


class Fleet:
    """An executor and what it told."""

    def __init__(self, queue: TaskQueue, backend: str, **options: Any) -> None:
        self.news: list[TaskNews] = []
        self.on: Callable[[TaskNews], None] = lambda news: None
        self.executor = DurableExecutor(
            queue,
            SupervisorConfig(max_agents=4, memory_reserve=0, backend=backend),
            on_news=self._hear,
            **options,
        )

    def _hear(self, news: TaskNews) -> None:
        self.news.append(news)
        self.on(news)

    def run(self) -> Summary:
        return asyncio.run(self.executor.run())

    def kinds(self, task_id: str) -> list[str]:
        return [news.kind for news in self.news if news.claim.task_id == task_id]


def sessions(model: ScriptedModel) -> set[str]:
    return {record.request.session_id for record in model.requests if record.request}


Spec = Callable[..., TaskSpec]


def test_tasks_become_agents_and_their_ends_are_kept(
    queue: TaskQueue, spec: Spec, backend: str
) -> None:
    queue.add([spec("last", needs=("a", "b")), spec("a"), spec("b")])
    fleet = Fleet(queue, backend)
    summary = fleet.run()
    assert summary.ending is Ending.DONE
    assert summary.counts == {"completed": 3}
    assert summary.cost_usd == pytest.approx(0.03)
    task = queue.task("last")
    assert (task.outcome, task.attempts, task.cost_usd) == ("completed", 1, 0.01)
    assert task.result["backend"] == backend
    assert task.started_at is not None
    assert task.ended_at is not None
    assert task.started_at < task.ended_at
    assert [e.kind for e in queue.events("last")] == ["added", "started", "launched", "ended"]
    ended = [news.claim.task_id for news in fleet.news if news.kind == "ended"]
    assert ended[-1] == "last"


def test_a_failure_is_a_result_and_cancels_what_needs_it(
    queue: TaskQueue, spec: Spec, model: ScriptedModel, backend: str
) -> None:
    model.add("no", Script(then=Failure(500)))
    queue.add([spec("a", "[[script:no]]"), spec("b", needs=("a",)), spec("c")])
    assert Fleet(queue, backend).run().counts == {"failed": 1, "cancelled": 1, "completed": 1}


def test_a_config_that_cannot_work_ends_its_task_with_the_field(
    queue: TaskQueue, spec: Spec, backend: str
) -> None:
    queue.add([spec("a", config={"max_turns": 0}), spec("b", config={"working_directory": "/no"})])
    assert Fleet(queue, backend).run().counts == {"spawn_failed": 2}
    assert "max_turns" in (queue.task("a").error or "")
    assert "/no" in (queue.task("b").error or "")


def test_a_session_goes_on_where_a_dead_owner_left_it(
    tmp_path: Path, spec: Spec, model: ScriptedModel, backend: str
) -> None:
    """The first owner stops in the middle of the turn; the second one resumes the session."""

    def second(request: ModelRequest) -> Reply:
        return Reply(Text(f"{len(request.messages)} messages, last: {request.last_tool_result}"))

    bash = Reply(ToolUse("Bash", {"command": "echo once >> log; sleep 0.2; wc -l < log"}))
    model.add("long", Script(bash, Reply(Text("never seen"), delay=30), then=second))
    with TaskQueue(tmp_path / "tasks.db") as queue:
        queue.add([spec("a", "[[script:long]] go")])
        first = Fleet(queue, backend)

        async def main() -> None:
            work = asyncio.ensure_future(first.executor.run())
            await asyncio.to_thread(model.wait_for, lambda r: r.step == 0)
            await asyncio.sleep(0.5)  # the tool has run, the model thinks
            first.executor.stop_now()
            summary = await work
            assert (summary.ending, summary.counts) == (Ending.STOPPED, {"pending": 1})

        asyncio.run(main())
        assert first.kinds("a") == ["started", "released"]
        again = Fleet(queue, backend)
        assert again.run().counts == {"completed": 1}
        assert again.kinds("a") == ["resumed", "ended"]
        assert queue.task("a").attempts == 1
        assert (tmp_path / "log").read_text() == "once\n"
        assert "last: 1" in queue.task("a").result["result"]
        assert sessions(model) == {queue.task("a").session_id}


def test_a_task_that_was_resumed_costs_what_its_session_has(queue: TaskQueue, spec: Spec) -> None:
    queue.add([spec("a")])
    claim = queue.claim()
    assert claim is not None
    fields: dict[str, Any] = {"session_id": "", "exit": None, "turns": 1, "usage": {}}
    result = spawner.RunResult(
        spawner.Outcome.COMPLETED,
        None,
        **fields,
        cost_usd=0.25,
        duration=1.0,
        time_to_first_output=None,
        total_cost_usd=1.25,
    )
    assert cost_of(claim, result) == 0.25
    resumed = dataclasses.replace(claim, start=Start.RESUMED)
    assert cost_of(resumed, result) == 1.25
    untold = dataclasses.replace(result, cost_usd=None, total_cost_usd=None)
    assert cost_of(resumed, untold) is None


def test_a_session_that_the_cli_refuses_restarts_and_counts(
    queue: TaskQueue, spec: Spec, model: ScriptedModel, backend: str
) -> None:
    queue.add([spec("a"), spec("b", restart=False), spec("c", needs=("b",))])
    for claim in [queue.claim(), queue.claim()]:
        assert claim is not None
        queue.release(claim)
    fleet = Fleet(queue, backend)
    fleet.run()
    assert fleet.kinds("a") == ["resumed", "restarted", "ended"]
    assert (queue.task("a").outcome, queue.task("a").attempts) == ("completed", 2)
    assert fleet.kinds("b") == ["resumed", "ended"]
    outcomes = [queue.task(name).outcome for name in "bc"]
    assert outcomes == ["incomplete", "cancelled"]
    assert sessions(model) == {queue.task("a").session_id}


def test_a_living_holder_of_the_session_is_ended_first(
    queue: TaskQueue, spec: Spec, model: ScriptedModel, tmp_path: Path
) -> None:
    asked = threading.Event()

    def late_at_first(request: ModelRequest) -> Reply:
        late = not asked.is_set()
        asked.set()
        return Reply(Text("too late"), delay=60) if late else Reply(Text("done"))

    model.add("slow", Script(late_at_first, then=late_at_first))
    queue.add([spec("a", "[[script:slow]]")])
    claim = queue.claim()
    assert claim is not None
    config = queue.task("a").config
    line = '{"type": "user", "message": {"content": "[[script:slow]] old"}}\n'
    with subprocess.Popen(
        [sys.executable, str(CLI), f"--session-id={claim.session_id}"],
        env=config["environment"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as old:
        assert old.stdin is not None
        old.stdin.write(line)
        old.stdin.flush()
        assert asked.wait(20)
        assert holders(claim.session_id) == [old.pid]
        queue.release(claim)
        assert Fleet(queue, "auto").run().counts == {"completed": 1}
        assert old.wait(timeout=10) == -15


def test_two_executors_on_one_database_double_nothing(
    tmp_path: Path, spec: Spec, model: ScriptedModel, backend: str
) -> None:
    path = tmp_path / "tasks.db"
    with TaskQueue(path) as one, TaskQueue(path) as two:
        one.add([spec(f"t{number}", f"[[script:t{number}]]") for number in range(12)])
        for number in range(12):
            model.add(f"t{number}", Script(Reply(Text("ok"))))
        fleets = [Fleet(one, backend), Fleet(two, backend)]

        async def main() -> list[Summary]:
            return await asyncio.gather(*(fleet.executor.run() for fleet in fleets))

        summaries = asyncio.run(main())
    assert [summary.counts for summary in summaries] == [{"completed": 12}] * 2
    ended = Counter(n.claim.task_id for f in fleets for n in f.news if n.kind == "ended")
    assert set(ended.values()) == {1}
    assert len(ended) == 12
    assert len(model.requests) == 12


def test_a_spent_budget_admits_nothing_more_and_says_so(
    queue: TaskQueue, spec: Spec, backend: str
) -> None:
    queue.add([spec(f"t{number}") for number in range(5)])
    summary = Fleet(queue, backend, places=1, budget_usd=0.02).run()
    assert summary.ending is Ending.BUDGET
    assert summary.counts == {"completed": 2, "pending": 3}
    assert "0.02 of 0.02 USD" in (summary.reason or "")
    more = Fleet(queue, backend, budget_usd=1.0).run()
    assert (more.ending, more.counts) == (Ending.DONE, {"completed": 5})


def test_each_agent_is_told_what_is_left_of_the_budget(
    queue: TaskQueue, spec: Spec, tmp_path: Path
) -> None:
    seen: list[dict[str, str | None]] = []

    def note(claim: object, config: spawner.AgentConfig) -> spawner.AgentConfig:
        seen.append(dict(config.extra_args))
        return config

    queue.add([spec("a", priority=1), spec("b", config={"budget": {"usd": 0.05}})])
    Fleet(queue, "auto", places=1, budget_usd=0.5, configure=note).run()
    assert seen == [{"max-budget-usd": "0.5000"}, {"max-budget-usd": "0.0500"}]


def test_who_cannot_log_in_keeps_all_tasks_for_later(
    queue: TaskQueue, spec: Spec, model: ScriptedModel, backend: str
) -> None:
    model.add("401", Script(Failure(401), then=Reply(Text("in"))))
    queue.add([spec(f"t{number}", "[[script:401]]") for number in range(3)])
    summary = Fleet(queue, backend, places=1).run()
    assert (summary.ending, summary.counts) == (Ending.AUTH_FAILED, {"pending": 3})
    assert "401" in (summary.reason or "")


def test_stop_lets_the_running_ones_end(queue: TaskQueue, spec: Spec, backend: str) -> None:
    queue.add([spec("a"), spec("b")])
    fleet = Fleet(queue, backend, places=1)
    fleet.on = lambda news: fleet.executor.stop()
    summary = fleet.run()
    assert (summary.ending, summary.counts) == (Ending.STOPPED, {"completed": 1, "pending": 1})


def test_a_lost_lease_ends_the_agent_and_writes_nothing(
    tmp_path: Path, spec: Spec, model: ScriptedModel, backend: str
) -> None:
    model.add("slow", Script(Reply(Text("late"), delay=60), then=Reply(Text("mine"))))
    path = tmp_path / "tasks.db"
    with TaskQueue(path, lease_seconds=0.6) as queue, TaskQueue(path) as thief:
        queue.add([spec("a", "[[script:slow]]")])
        fleet = Fleet(queue, backend)
        stolen = threading.Event()

        def steal() -> None:
            thief._clock = lambda: queue._clock() + 60
            claim = thief.claim()
            assert claim is not None
            thief.finish(claim, "completed", result="stolen")
            stolen.set()

        def later(news: TaskNews) -> None:
            if news.kind == Start.STARTED:
                threading.Timer(1, steal).start()

        fleet.on = later
        fleet.run()
        assert stolen.is_set()
        assert fleet.kinds("a") == ["started", "lost"]
        assert queue.task("a").result == "stolen"


def test_no_place_is_no_fleet(queue: TaskQueue) -> None:
    with pytest.raises(ConfigError, match="places = 0"):
        DurableExecutor(queue, places=0)
