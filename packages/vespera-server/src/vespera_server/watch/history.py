"""`vespera history` as the user calls it: runs that were, and their tasks."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from vespera_agent_spawner.errors import AgentError, ConfigError
from vespera_server.demo.screen import console_for
from vespera_server.redaction import Redactor
from vespera_server.settings import load_settings
from vespera_server.state.directory import RunState, StateDirectory
from vespera_server.state.reading import TaskLine, read_queue
from vespera_server.watch.finding import run_named
from vespera_server.watch.rows import wide_console
from vespera_server.words import counted, money, span

__all__ = ["history"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what it was asked, what became of it. ``problem``: why it cannot be read."""

    name: str
    database: Path
    state: str
    facts: dict[str, Any]
    tasks: list[TaskLine]
    problem: str | None = None

    @property
    def counts(self) -> Counter[str]:
        """How many tasks by outcome, else by state."""
        return Counter(task.outcome or task.state for task in self.tasks)

    @property
    def cost_usd(self) -> float:
        """What its ended tasks cost, as far as it is known."""
        return sum(task.cost_usd or 0.0 for task in self.tasks)

    @property
    def started_at(self) -> float | None:
        """When it was made, else when its first task was begun."""
        begun = [task.started_at for task in self.tasks if task.started_at is not None]
        return self.facts.get("created_at") or min(begun, default=None)

    @property
    def duration(self) -> float | None:
        """Seconds from there to its last task's end."""
        ends = [task.ended_at for task in self.tasks if task.ended_at is not None]
        if self.started_at is None or not ends:
            return None
        return max(0.0, max(ends) - self.started_at)


def history(*, run: str | None, database: Path | None, limit: int, as_json: bool) -> int:
    """Runs, newest first, or the tasks of one. 0; 2 when there is no such run."""
    try:
        state = StateDirectory(load_settings().values.state.directory)
        if run is None and database is None:
            return _runs(state, limit, as_json)
        return _tasks(_chosen(state, run, database), as_json)
    except (AgentError, OSError) as error:
        words = Redactor().text(f"vespera history: {error}")
        console_for(stderr=True).print(words, style="red", markup=False, soft_wrap=True)
        return 2


def _chosen(state: StateDirectory, run: str | None, database: Path | None) -> Run:
    if database is not None:
        # As 'vespera run' calls it, which may be otherwise than its file.
        name = read_queue(database).facts().get("name")
        return _read(str(name or database.stem), database, "")
    return _look(run_named(state, run or ""))


def _look(run: RunState) -> Run:
    state = "at work" if run.alive else "ended" if not run.unfinished else "unfinished"
    return _read(run.name, run.database, state)


def _read(name: str, database: Path, state: str) -> Run:
    try:
        queue = read_queue(database)
        return Run(name, database, state, queue.facts(), queue.tasks())
    except ConfigError as error:
        return Run(name, database, "unreadable", {}, [], str(error))


def _runs(state: StateDirectory, limit: int, as_json: bool) -> int:
    everything = state.list_runs()
    shown = [_look(run) for run in reversed(everything[-limit:])]
    if as_json:
        answer = {"directory": str(state.runs), "total": len(everything)}
        print(json.dumps({**answer, "runs": [_run_json(run) for run in shown]}, indent=2))
        return 0
    console = wide_console()
    if not shown:
        console.print(f"no run in {state.runs}: 'vespera run FILE' begins one", soft_wrap=True)
        return 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("run", "began", "state", "tasks"):
        table.add_column(title, no_wrap=title != "tasks")
    for title in ("cost", "took"):
        table.add_column(title, justify="right", no_wrap=True)
    for run in shown:
        began = run.started_at
        table.add_row(
            escape(run.name),
            "" if began is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(began)),
            run.state + (" (scripted)" if run.facts.get("scripted") else ""),
            _counted(run.counts) if run.problem is None else escape(run.problem),
            money(run.cost_usd),
            span(run.duration),
        )
    console.print(table)
    if len(everything) > limit:
        console.print(
            f"{limit} of {counted(len(everything), 'run')}; --limit shows more", soft_wrap=True
        )
    return 0


def _tasks(run: Run, as_json: bool) -> int:
    if run.problem is not None:
        raise ConfigError(run.problem, field="database", value=str(run.database), remedy="")
    redactor = Redactor()
    if as_json:
        tasks = [_task_json(task, redactor) for task in run.tasks]
        print(json.dumps({**_run_json(run), "tasks": tasks}, indent=2, ensure_ascii=False))
        return 0
    console = wide_console()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("task", "outcome"):
        table.add_column(title, no_wrap=True)
    for title in ("attempts", "cost", "took"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("error", overflow="fold")
    for task in run.tasks:
        table.add_row(
            escape(task.task_id),
            task.outcome or task.state,
            str(task.attempts),
            money(task.cost_usd),
            span(task.duration),
            escape(redactor.text(task.error or "")),
        )
    console.print(table)
    console.print(
        f"{run.name}: {_counted(run.counts)}; {money(run.cost_usd)}; database: {run.database}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _run_json(run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "name": run.facts.get("name"),
        "file": run.facts.get("file"),
        "database": str(run.database),
        "state": run.state or None,
        "scripted": bool(run.facts.get("scripted")),
        "started_at": run.started_at,
        "duration": run.duration,
        "cost_usd": run.cost_usd,
        "counts": dict(run.counts),
        "problem": run.problem,
    }


def _task_json(task: TaskLine, redactor: Redactor) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "state": task.state,
        "outcome": task.outcome,
        "attempts": task.attempts,
        "session_id": task.session_id,
        "cost_usd": task.cost_usd,
        "started_at": task.started_at,
        "ended_at": task.ended_at,
        "duration": task.duration,
        "error": None if task.error is None else redactor.text(task.error),
    }
