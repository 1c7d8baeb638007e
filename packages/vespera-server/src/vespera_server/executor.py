"""Responsible for running tasks, each by an agent of its own: the same on both backends.

```python
async with TaskExecutor(".") as executor:
    answers = await executor.run([{"prompt": "Summarise README.md"}, {"prompt": "Count the tests"}])
```

Nothing survives the process, unless there is a ``database``: then tasks and their ends are kept in
a ``TaskQueue``, and a run that was cut off is continued by running the same tasks again.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

from vespera_agent_spawner import (
    AgentConfig,
    AgentError,
    ConfigError,
    Outcome,
    RunResult,
    Supervisor,
    SupervisorConfig,
    Timeouts,
)
from vespera_server.problems import problem_of
from vespera_server.redaction import Redactor

__all__ = ["RunTask", "RustEnhancedTaskExecutor", "TaskExecutor", "config_of", "describe"]

RunTask = Callable[[AgentConfig], Awaitable[RunResult]]

_FIELDS = {field.name for field in fields(AgentConfig)}


class TaskExecutor:
    """Runs tasks through one ``Supervisor``.

    A task is a mapping: ``prompt``, and whatever of ``AgentConfig`` it needs; ``command`` is the
    program, ``timeout`` (seconds, or ``"5m"``) bounds the turn. What is not known is kept as
    ``metadata``. Tasks run in ``project_root`` unless they name a ``working_directory``, which is
    relative to it.

    As ``async with`` all calls share the supervisor and its limits; without, each call has one of
    its own. Cancelling a call ends its agents.

    With ``database`` (a file, made 0600 when it is not there) every task is in it before the first
    one starts, and every end before it is answered. ``run`` with the same tasks goes on where it
    was cut off: a task that ended answers from the file, whatever its outcome; one that did not is
    resumed in its session, or restarted when there is none. The same is a task with the same
    fields, ``environment`` left out: that is never kept, and is what it is in the call. A task
    with an ``agent_id`` is known by it. Several processes may work on one file; each task has one.
    """

    def __init__(
        self,
        project_root: str | os.PathLike[str] = ".",
        *,
        config: SupervisorConfig | Mapping[str, Any] | None = None,
        database: str | os.PathLike[str] | None = None,
    ) -> None:
        self.project_root = os.path.realpath(project_root)
        self._config = config
        self._database = None if database is None else os.path.realpath(database)
        self._supervisor: Supervisor | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._supervisor = await self._stack.enter_async_context(Supervisor(self._config))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._supervisor = None
        await self._stack.aclose()

    async def execute_with_claude_agent(self, task_config: Mapping[str, Any]) -> dict[str, Any]:
        """Run one task to the end of its agent.

        Returns ``success``, ``agent_id``, ``session_id``, ``backend``, ``message``, ``outcome``,
        ``cost_usd``, ``duration_seconds`` and ``result``, or ``error`` with code, message and
        remedy. A failure is an answer, never an exception.
        """
        return (await self.run([task_config]))[0]

    async def run(self, tasks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Run all, as many at once as there are places; answers in the order of ``tasks``.

        With a database each answer also has ``start`` (``started``, ``resumed``, ``restarted``)
        and ``attempts``. Raises ``ConfigError`` or ``NewerDatabase`` when it cannot be used.
        """
        if self._supervisor is not None:
            return await self._run(self._supervisor, tasks)
        async with Supervisor(self._config) as supervisor:
            return await self._run(supervisor, tasks)

    async def _run(
        self, supervisor: Supervisor, tasks: Iterable[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        if self._database is not None:
            from vespera_server.continued import run_kept

            return await run_kept(self._database, supervisor, list(tasks), self.project_root)
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self._run_one(supervisor, task)) for task in tasks]
        return [each.result() for each in running]

    async def _run_one(self, supervisor: Supervisor, task: Mapping[str, Any]) -> dict[str, Any]:
        agent_id = None
        try:
            config, metadata = config_of(task, self.project_root)
            agent_id = config.agent_id
            (result,) = await supervisor.run([config])
        except (AgentError, ValueError, OSError) as error:
            return refusal(agent_id, error, Redactor())
        secrets = Redactor.for_environment(config.environment)
        answer = describe(agent_id or "", result, secrets)
        return answer | ({"metadata": metadata} if metadata else {})


#: The name that the architecture document gives it.
RustEnhancedTaskExecutor = TaskExecutor


def config_of(
    task: Mapping[str, Any], project_root: str = os.curdir
) -> tuple[AgentConfig, dict[str, Any]]:
    """The agent of a task, and what else the task says. Raises ``ConfigError``."""
    if not isinstance(task, Mapping):
        raise ConfigError(
            f"task: expected an object, got {task!r}"[:200],
            field="task",
            value=task,
            remedy='give {"prompt": "…"}',
        )
    given = dict(task)
    if "command" in given:
        given["program"] = given.pop("command")
    timeout = given.pop("timeout", None)
    known = {name: value for name, value in given.items() if name in _FIELDS}
    metadata = {name: value for name, value in given.items() if name not in _FIELDS}
    if timeout is not None:
        own = known.get("timeouts") or {}
        own = own.to_mapping() if isinstance(own, Timeouts) else dict(own)
        known["timeouts"] = own | {"turn": timeout}
    if not known.get("agent_id"):
        known["agent_id"] = f"task_{uuid.uuid4().hex[:8]}"
    if not known.get("prompt"):
        raise ConfigError(
            "prompt: a task needs one",
            field="prompt",
            value=known.get("prompt"),
            remedy='give {"prompt": "…"}',
        )
    directory = os.fspath(known.get("working_directory") or "")
    known["working_directory"] = os.path.join(project_root, directory)  # noqa: PTH118
    return AgentConfig.from_mapping(known), metadata


def describe(agent_id: str, result: RunResult, redactor: Redactor) -> dict[str, Any]:
    """The answer that a task's result is."""
    success = result.outcome is Outcome.COMPLETED
    answer: dict[str, Any] = {
        "success": success,
        "agent_id": agent_id,
        "session_id": result.session_id or None,
        "backend": result.backend or None,
        "message": f"agent '{agent_id}' {result.outcome.replace('_', ' ')}",
        "outcome": str(result.outcome),
        "cost_usd": result.cost_usd,
        "duration_seconds": round(result.duration, 3),
    }
    if result.structured_output is not None:
        answer["structured_output"] = redactor.value(result.structured_output)
    if result.result is not None:
        answer["result"] = redactor.text(result.result)
    if not success:
        words = redactor.text(result.error or result.result or "it gave no reason")
        answer["error"] = {
            "code": str(result.outcome),
            "message": words[:4000],
            "remedy": _REMEDIES.get(result.outcome, "look at the message; run it again"),
        }
    return answer


def refusal(agent_id: str | None, error: Exception, redactor: Redactor) -> dict[str, Any]:
    """The answer to a task that cannot be begun."""
    problem = problem_of(error, redactor)
    return {
        "success": False,
        "agent_id": agent_id,
        "session_id": None,
        "backend": None,
        "message": problem.message,
        "outcome": str(Outcome.SPAWN_FAILED),
        "error": problem.model_dump(),
    }


_REMEDIES = {
    Outcome.TIMED_OUT: "give the task a longer timeout, or split it",
    Outcome.CANCELLED: "run it again",
    Outcome.OUT_OF_MEMORY: "run fewer agents at once",
    Outcome.LIMIT_EXCEEDED: "raise the limit that the message names",
    Outcome.BUDGET_EXCEEDED: "raise the budget",
    Outcome.AUTH_FAILED: "log in with the Claude CLI ('vespera doctor' says where it is), or set "
    "ANTHROPIC_API_KEY",
    Outcome.RATE_LIMITED: "wait, then run it again; run fewer agents at once",
    Outcome.SPAWN_FAILED: "run 'vespera doctor'",
}
