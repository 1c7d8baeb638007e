"""Responsible for the last word about a run: its exit code, its JSON, what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from vespera_server.redaction import Redactor
from vespera_server.run.opening import Opened
from vespera_server.tasks import Ending, Summary, TaskRecord, TaskState

__all__ = ["ExitCode", "exit_code", "failures", "report"]

_COMPLETED = "completed"


class ExitCode(IntEnum):
    """What `vespera run` leaves with. After a signal with tasks left: 128 and its number."""

    COMPLETED = 0
    NOT_ALL = 1
    COULD_NOT_RUN = 2
    BUDGET = 3
    AUTH_FAILED = 4


def exit_code(summary: Summary, signal: int | None) -> int:
    """The exit code for what there is in the end."""
    left = bool(summary.counts.keys() & {"pending", "running"})
    if left and signal is not None:
        return 128 + signal
    if left and summary.ending is Ending.BUDGET:
        return ExitCode.BUDGET
    if left and summary.ending is Ending.AUTH_FAILED:
        return ExitCode.AUTH_FAILED
    if left:
        return ExitCode.COULD_NOT_RUN
    return ExitCode.COMPLETED if set(summary.counts) <= {_COMPLETED} else ExitCode.NOT_ALL


def report(
    opened: Opened, summary: Summary, code: int, seconds: float, redactor: Redactor
) -> dict[str, Any]:
    """What `vespera run --json` prints: no secret in its errors, results as agents gave them."""
    return {
        "run": opened.name,
        "database": str(opened.queue.path),
        "resumed": opened.resumed,
        "ending": str(summary.ending),
        "reason": _without_secrets(summary.reason, redactor),
        "exit_code": int(code),
        "seconds": seconds,
        "cost_usd": summary.cost_usd,
        "counts": summary.counts,
        "tasks": [_task(task, opened.scripted, redactor) for task in opened.queue.tasks()],
    }


def failures(opened: Opened, redactor: Redactor) -> Iterator[str]:
    """One line for each task that ended otherwise than completed."""
    for task in opened.queue.tasks():
        if task.state is TaskState.ENDED and task.outcome != _COMPLETED:
            error = _without_secrets(task.error, redactor)
            yield f"{task.task_id}: {task.outcome}: {error or 'no reason told'}"


def _without_secrets(text: str | None, redactor: Redactor) -> str | None:
    return None if text is None else redactor.text(text)


def _task(task: TaskRecord, scripted: bool, redactor: Redactor) -> dict[str, Any]:
    kept = task.result if isinstance(task.result, dict) else {}
    return {
        "task_id": task.task_id,
        "role": task.extra.get("role"),
        "model": "scripted" if scripted else task.config.get("model") or "default",
        "state": str(task.state),
        "outcome": task.outcome,
        "attempts": task.attempts,
        "session_id": task.session_id,
        "result": kept.get("result"),
        "structured_output": kept.get("structured_output"),
        "error": _without_secrets(task.error, redactor),
        "cost_usd": task.cost_usd,
        "duration": kept.get("duration"),
        "backend": kept.get("backend"),
        "containment": kept.get("containment"),
    }
