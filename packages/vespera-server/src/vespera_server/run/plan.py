"""Responsible for a task file becoming tasks: items, templates, roles, and what each agent gets.

Everything that can be wrong is found here, before the first agent starts, and named by file, line
and field.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vespera_agent_spawner import AgentConfig
from vespera_agent_spawner.errors import ConfigError
from vespera_server.documents import Document
from vespera_server.run.model import TaskEntry, TaskFile
from vespera_server.run.template import UnknownName, filled
from vespera_server.settings import Settings
from vespera_server.settings.layers import merged
from vespera_server.settings.model import agent_settings
from vespera_server.settings.problems import problem_with, problems_of, unknown
from vespera_server.tasks import TaskSpec
from vespera_server.tasks.graph import find_cycle

__all__ = ["Plan", "plan"]

Path_ = tuple[str | int, ...]
_LONGEST_ID = 100  # it becomes a file's name
_AGENT_FIELDS = tuple(field.name for field in fields(AgentConfig))


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a file, in its order, and what it says about the whole."""

    name: str
    specs: list[TaskSpec]
    agents: int | None
    budget_usd: float | None


@dataclass(frozen=True, slots=True)
class _Draft:
    """A task whose needs may still be patterns."""

    spec: TaskSpec
    at: Path_


def plan(
    document: Document,
    settings: Settings,
    *,
    variables: Mapping[str, str] | None = None,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Plan:
    """Read the file's tasks; relative paths are relative to ``directory``, as in a shell.

    Raises ``DocumentError`` for the first thing that is wrong.
    """
    directory = Path.cwd() if directory is None else directory
    file, prefix = _validated(document)
    names = {
        **file.vars,
        **(variables or {}),
        "env": dict(os.environ if environment is None else environment),
        "cwd": str(directory),
        "file_dir": str(Path(document.name).absolute().parent),
    }
    drafts: dict[str, _Draft] = {}
    for number, entry in prefix:
        at: Path_ = ("tasks", number) if isinstance(document.data, dict) else (number,)
        for draft in _drafts(document, file, settings, entry, at, names, directory):
            other = drafts.get(draft.spec.task_id)
            if other is not None:
                where = document.line(other.at)
                raise document.error(
                    (*at, "id"),
                    f"{draft.spec.task_id!r} is the id of the task in line {where} too: "
                    "give each its own (with items: put ${item} or ${index} into it)",
                )
            drafts[draft.spec.task_id] = draft
    specs = [_with_needs(document, draft, drafts) for draft in drafts.values()]
    if cycle := find_cycle({spec.task_id: spec.needs for spec in specs}):
        raise document.error(
            (*drafts[cycle[0]].at, "needs"),
            f"tasks need each other in a circle: {' -> '.join(cycle)}; take one out of needs",
        )
    name = file.run.name or ("stdin" if document.name == "-" else Path(document.name).stem)
    return Plan(name, specs, file.run.agents, file.run.budget_usd)


def _validated(document: Document) -> tuple[TaskFile, list[tuple[int, TaskEntry]]]:
    """The file, and its tasks with their numbers in it (JSONL has empty lines in between)."""
    data = document.data
    numbers = None
    if isinstance(data, list):  # JSONL, or a bare list of tasks
        numbers = [number for number, item in enumerate(data) if item is not None]
        data = {"tasks": [data[number] for number in numbers]}
    try:
        file = TaskFile.model_validate(data)
    except ValidationError as error:
        path, problem, value = next(problems_of(error, TaskFile))
        if numbers is not None:
            path = path[1:] if len(path) < 2 else (numbers[int(path[1])], *path[2:])
        raise document.error(path, problem, value) from error
    return file, list(zip(numbers or range(len(file.tasks)), file.tasks, strict=True))


def _drafts(
    document: Document,
    file: TaskFile,
    settings: Settings,
    entry: TaskEntry,
    at: Path_,
    names: Mapping[str, Any],
    directory: Path,
) -> Iterator[_Draft]:
    for name in entry.agent:
        if name not in _AGENT_FIELDS:
            fields_of_task = (*TaskEntry.model_fields, *_AGENT_FIELDS)
            raise document.error((*at, name), unknown(name, fields_of_task), entry.agent[name])
    role = _role(document, file, settings, entry, at)
    layers = [settings.agent, file.agent, role, entry.agent]
    agent: dict[str, Any] = {}
    for layer in layers:
        agent = merged(agent, layer)
    if entry.prompt is not None:
        agent["prompt"] = entry.prompt
    if agent.get("prompt") is None and agent.get("adapter", "claude") == "claude":
        raise document.error((*at, "prompt"), "the task has none, and neither has its role")
    scripted = [step.model_dump(exclude_defaults=True) for step in entry.scripted]
    for index, item in enumerate(_items(document, entry, at, names, directory)):
        known = {**names, "index": index, "item": item} if item is not _NO_ITEM else names
        given = {
            "id": entry.id,
            "needs": entry.needs,
            "agent": agent,
            "scripted": scripted,
        }
        full: dict[str, Any] = {}
        for field, value in given.items():
            try:
                full[field] = filled(value, known)
            except UnknownName as error:
                where: Path_ = (*at, field, *error.path)
                if field == "agent":
                    where = _source_of(error.path, file, entry, at)
                raise document.error(where, str(error)) from error
        config = _agent_config(document, full["agent"], file, entry, at, directory)
        extra: dict[str, Any] = {}
        if entry.role is not None:
            extra["role"] = entry.role
        if full["scripted"]:
            extra["scripted"] = full["scripted"]
        task_id = _task_id(document, full["id"], at)
        needs = tuple(map(str, full["needs"]))
        try:
            spec = TaskSpec(task_id, config, needs, entry.priority, entry.restart, extra)
        except ConfigError as error:
            raise document.error(
                (*at, "id" if error.field == "task_id" else error.field),
                f"{error.value!r}: {error.remedy}",
            ) from error
        yield _Draft(spec, at)


_NO_ITEM = object()


def _items(
    document: Document, entry: TaskEntry, at: Path_, names: Mapping[str, Any], directory: Path
) -> Iterator[Any]:
    if entry.items is not None:
        yield from entry.items
    elif entry.glob is not None:
        try:
            pattern = str(filled(entry.glob, names))
        except UnknownName as error:
            raise document.error((*at, "glob"), str(error)) from error
        if Path(pattern).is_absolute():
            raise document.error((*at, "glob"), f"{pattern!r}: use a relative pattern")
        found = sorted(path for path in directory.glob(pattern) if path.is_file())
        if not found:
            raise document.error((*at, "glob"), f"{pattern!r} matches no file in {directory}")
        for path in found:
            relative = path.relative_to(directory)
            yield {"path": str(relative), "name": path.name, "stem": path.stem}
    else:
        yield _NO_ITEM


def _role(
    document: Document, file: TaskFile, settings: Settings, entry: TaskEntry, at: Path_
) -> Mapping[str, Any]:
    if entry.role is None:
        return {}
    if entry.role not in file.roles and entry.role not in settings.roles:
        known = ", ".join(sorted({*file.roles, *settings.roles})) or "none"
        raise document.error(
            (*at, "role"), f"{entry.role!r} is no role; there are: {known}", entry.role
        )
    return merged(settings.roles.get(entry.role, {}), file.roles.get(entry.role, {}))


def _agent_config(
    document: Document,
    agent: dict[str, Any],
    file: TaskFile,
    entry: TaskEntry,
    at: Path_,
    directory: Path,
) -> dict[str, Any]:
    """The agent's settings, checked by the engine's rules; its directory made absolute."""
    try:
        agent_settings(agent)
    except ConfigError as error:
        path = tuple(part for part in error.field.split(".") if part)
        raise document.error(
            _source_of(path, file, entry, at),
            problem_with(error),
            error.value,
            error.remedy,
        ) from error
    place = directory / Path(agent.get("working_directory") or ".").expanduser()
    if not place.is_dir():
        raise document.error(
            _source_of(("working_directory",), file, entry, at),
            f"{place} is no directory; create it",
        )
    return {**agent, "working_directory": os.path.normpath(place)}


def _source_of(path: Path_, file: TaskFile, entry: TaskEntry, at: Path_) -> Path_:
    """Where a setting of a task's agent was written."""
    first = path[0] if path else ""
    if first in entry.agent or first == "prompt":
        return (*at, *path)
    if entry.role is not None and first in file.roles.get(entry.role, {}):
        return ("roles", entry.role, *path)
    if first in file.agent:
        return ("agent", *path)
    return (*at, *path)


def _task_id(document: Document, value: Any, at: Path_) -> str:
    task_id = str(value)
    if not 1 <= len(task_id.encode()) <= _LONGEST_ID:
        raise document.error(
            (*at, "id"), f"{task_id[:40]!r}: use 1 to {_LONGEST_ID} bytes", task_id
        )
    return task_id


def _with_needs(document: Document, draft: _Draft, drafts: Mapping[str, _Draft]) -> TaskSpec:
    """Patterns among the needs become the tasks that they match."""
    needs: dict[str, None] = {}
    for number, needed in enumerate(draft.spec.needs):
        if needed in drafts:
            found = [needed]
        else:
            found = [name for name in fnmatch.filter(drafts, needed) if name != draft.spec.task_id]
        if not found:
            raise document.error(
                (*draft.at, "needs", number), f"{needed!r} is no task of this file", needed
            )
        needs.update(dict.fromkeys(found))
    spec = draft.spec
    return TaskSpec(
        spec.task_id, spec.config, tuple(needs), spec.priority, spec.restart, spec.extra
    )
