"""Responsible for a ``TaskExecutor``'s run that can be cut off and continued: its tasks go through
a database, each end is written there before it is answered.

What is kept of a task is what it says besides ``environment`` and functions. Both are taken from
the call that runs it: no key is written to disk, and one that changed meanwhile is the new one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vespera_agent_spawner import (
    AgentConfig,
    AgentError,
    ConfigError,
    Outcome,
    RunResult,
    Supervisor,
    SupervisorConfig,
)
from vespera_server.executor import config_of, describe, refusal
from vespera_server.redaction import Redactor
from vespera_server.selection import Selection, selection_at
from vespera_server.tasks import (
    Claim,
    DurableExecutor,
    Start,
    Summary,
    TaskExists,
    TaskRecord,
    TaskSpec,
    TaskState,
)

__all__ = ["KEEPER", "result_of", "run_kept"]

KEEPER = "TaskExecutor"
# The queue gives each task its session.
_THE_QUEUES = ("session_id", "resume", "fork_session")


@dataclass(frozen=True)
class _Planned:
    """A task that can be run, or ``answer``, which says why it cannot."""

    answer: dict[str, Any] | None = None
    spec: TaskSpec | None = None
    config: AgentConfig | None = None
    metadata: Mapping[str, Any] | None = None


async def run_kept(
    database: str, supervisor: Supervisor, tasks: Sequence[Any], project_root: str
) -> list[dict[str, Any]]:
    """Run what has not ended yet of these tasks; an answer for each, in their order."""
    planned = _plan(tasks, project_root)
    queue = await asyncio.to_thread(selection_at, database, KEEPER, field="database")
    try:
        planned = await asyncio.to_thread(_add, queue, planned)
        by_id = {each.spec.task_id: each for each in planned if each.spec is not None}
        await asyncio.to_thread(queue.choose, by_id)
        summary = await _Sharing(queue, supervisor, by_id).run()
        return await asyncio.to_thread(_answers, queue, planned, summary)
    finally:
        queue.close()


class _Sharing(DurableExecutor):
    """A durable executor whose agents live in a supervisor that others use too."""

    def __init__(
        self, queue: Selection, supervisor: Supervisor, planned: Mapping[str, _Planned]
    ) -> None:
        config = supervisor.config
        places = SupervisorConfig(
            max_agents=config.max_agents,
            memory_reserve=config.memory_reserve,
            backend=config.backend,
        )
        super().__init__(queue, places, configure=self._as_called)
        self._shared = supervisor
        self._planned = planned

    async def _run_one(self, config: AgentConfig) -> RunResult:
        (result,) = await self._shared.run([config])
        return result

    def _as_called(self, claim: Claim, kept: AgentConfig) -> AgentConfig:
        """What the call says, with the session of the claim."""
        own = self._planned[claim.task_id].config
        assert own is not None
        return own._with(
            agent_id=claim.task_id,
            session_id=kept.session_id,
            resume=kept.resume,
            prompt=kept.prompt,
        )


def result_of(record: TaskRecord) -> RunResult:
    """The result of a task that ended, as far as it was kept."""
    kept = record.result if isinstance(record.result, Mapping) else {}
    return RunResult(
        outcome=Outcome(record.outcome or Outcome.INCOMPLETE),
        result=kept.get("result"),
        session_id=record.session_id or "",
        exit=None,
        turns=kept.get("turns", 0),
        usage=kept.get("usage", {}),
        cost_usd=record.cost_usd,
        duration=kept.get("duration", 0.0),
        time_to_first_output=None,
        error=record.error,
        backend=kept.get("backend", ""),
        containment=kept.get("containment", ""),
        structured_output=kept.get("structured_output"),
        agent_id=record.task_id,
    )


def _plan(tasks: Sequence[Any], project_root: str) -> list[_Planned]:
    seen: dict[str, int] = {}
    planned = []
    for task in tasks:
        try:
            config, metadata = config_of(task, project_root)
            for name in _THE_QUEUES:
                if getattr(config, name):
                    remedy = "leave it out: with a database each task is given a session"
                    value = getattr(config, name)
                    raise ConfigError(f"{name}: {remedy}", field=name, value=value, remedy=remedy)
            spec = _spec(task, config, metadata, seen)
        except (AgentError, ValueError, OSError) as error:
            planned.append(_Planned(refusal(None, error, Redactor())))
        else:
            planned.append(_Planned(None, spec, config, metadata))
    return planned


def _spec(
    task: Mapping[str, Any],
    config: AgentConfig,
    metadata: Mapping[str, Any],
    seen: dict[str, int],
) -> TaskSpec:
    given = config._given()
    kept = {name: value for name, value in given.items() if name not in ("agent_id", "environment")}
    task_id = task.get("agent_id")
    if not task_id:
        # Functions and the like have no form that lasts: their type's name stands for them.
        said = json.dumps([kept, metadata], sort_keys=True, default=lambda it: type(it).__name__)
        task_id = f"task_{hashlib.sha256(said.encode('utf-8', 'replace')).hexdigest()[:16]}"
        seen[task_id] = seen.get(task_id, 0) + 1
        if seen[task_id] > 1:  # the same task twice is two tasks
            task_id = f"{task_id}_{seen[task_id]}"
    return TaskSpec(str(task_id), kept)


def _add(queue: Selection, planned: Sequence[_Planned]) -> list[_Planned]:
    """Into the database, all that can be; the others with the reason as their answer."""
    able = [each.spec for each in planned if each.spec is not None]
    if len({spec.task_id for spec in able}) == len(able):
        try:
            queue.merge(able)
        except AgentError:
            pass  # whose fault it is, one at a time
        else:
            return list(planned)
    added: set[str] = set()
    left = []
    for each in planned:
        if each.spec is not None:
            name = each.spec.task_id
            try:
                if name in added:
                    raise TaskExists(f"two of the tasks have the agent_id {name!r}")
                queue.merge([each.spec])
                added.add(name)
            except AgentError as error:
                each = _Planned(refusal(name, error, Redactor()))
        left.append(each)
    return left


def _answers(
    queue: Selection, planned: Sequence[_Planned], summary: Summary
) -> list[dict[str, Any]]:
    answers = []
    for each in planned:
        if each.spec is None or each.config is None:
            answers.append(each.answer or {})
            continue
        record = queue.task(each.spec.task_id)
        secrets = Redactor.for_environment(each.config.environment)
        answer = describe(record.task_id, result_of(record), secrets)
        if record.state is not TaskState.ENDED:
            answer["message"] = f"agent '{record.task_id}' did not end"
            answer["error"] = {
                "code": str(summary.ending),
                "message": secrets.text(summary.reason or "it was cut off"),
                "remedy": "run the same tasks again: they go on",
            }
        starts = [event.kind for event in queue.events(record.task_id) if event.kind in set(Start)]
        answer["start"] = starts[-1] if starts else None
        answer["attempts"] = record.attempts
        answers.append(answer | ({"metadata": dict(each.metadata)} if each.metadata else {}))
    return answers
