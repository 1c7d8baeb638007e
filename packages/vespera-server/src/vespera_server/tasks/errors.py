"""Responsible for what can go wrong with a task queue, one class per thing a caller can act on."""

from __future__ import annotations

from vespera_agent_spawner.errors import AgentError

__all__ = [
    "DependencyCycle",
    "LeaseLost",
    "NewerDatabase",
    "TaskError",
    "TaskExists",
    "TaskNotFound",
    "UnknownDependency",
]


class TaskError(AgentError):
    """Base of the errors of tasks and their queue."""

    default_code = "task"


class TaskExists(TaskError):
    """The queue has a task with this id: choose another id."""

    default_code = "task_exists"


class TaskNotFound(TaskError, KeyError):
    """The queue has no task with this id."""

    default_code = "task_not_found"


class UnknownDependency(TaskError, ValueError):
    """A task needs one that is neither in the queue nor added with it."""

    default_code = "unknown_dependency"


class DependencyCycle(TaskError, ValueError):
    """Tasks need each other in a circle; ``context["path"]`` walks it from a task to itself."""

    default_code = "dependency_cycle"


class LeaseLost(TaskError):
    """The claim is no longer valid: it expired and was taken over, or the task has ended.

    Whoever gets this stops working on the task; nothing of the late answer was written.
    """

    default_code = "lease_lost"


class NewerDatabase(TaskError):
    """A newer version wrote the database; the message names the version to install."""

    default_code = "newer_database"
