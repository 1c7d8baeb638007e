"""Runs the whole demo: the model, the surroundings, all agents at once, the verdict."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vespera_agent_spawner as spawner
from vespera_agent_spawner.errors import AgentError
from vespera_server.demo.agent import Flight, fly
from vespera_server.demo.project import write_project
from vespera_server.demo.rows import Row
from vespera_server.demo.surroundings import Surroundings
from vespera_server.demo.tasks import TOOLS, tasks_for
from vespera_server.scripted_model import ScriptedModel

LIVE_CEILING_USD = 0.50
LIVE_MODEL = "haiku"


@dataclass(frozen=True)
class Options:
    """What the command line chose. `timeout` is seconds for each agent's turn."""

    program: str
    agents: int = 6
    backend: str = "auto"
    live: bool = False
    model: str | None = None
    timeout: float = 120.0


@dataclass
class Report:
    """The rows, the wall time in seconds, and whether the run was interrupted."""

    rows: list[Row]
    live: bool
    seconds: float = 0.0
    interrupted: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def as_expected(self) -> bool:
        """True when every agent did what its task says."""
        return not self.interrupted and all(row.as_expected for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """What `vespera demo --json` prints."""
        return {
            "as_expected": self.as_expected,
            "interrupted": self.interrupted,
            "model": "live" if self.live else "scripted",
            "seconds": self.seconds,
            "agents": [row.to_json() for row in self.rows],
            "metrics": dict(self.metrics),
        }


def run_demo(
    options: Options, rows: list[Row], on_tick: Callable[[], None] = lambda: None
) -> Report:
    """Runs one agent per row, all at once; calls `on_tick` about ten times a second.

    Ctrl-C ends all agents and is told by `interrupted`. Everything that the demo made is
    removed. Raises AgentError when the demanded backend cannot be had.
    """
    report = Report(rows, options.live)
    began = time.monotonic()
    # A short root: Unix sockets beneath it may have paths of 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="vespera-", ignore_cleanup_errors=True) as root:
        place = Surroundings.create(Path(root).resolve())
        with _model(options, place, rows) as flight:
            report.interrupted = not _fly_all(rows, place, flight, on_tick)
    report.seconds = time.monotonic() - began
    report.metrics = spawner.metrics()
    return report


def rows_for(agents: int) -> list[Row]:
    """Fresh rows for so many agents."""
    return [Row(agent_id, task) for agent_id, task in tasks_for(agents)]


@contextmanager
def _model(options: Options, place: Surroundings, rows: list[Row]) -> Iterator[Flight]:
    """The deciding side: the scripted model, or the user's own account."""
    settings: dict[str, Any] = {"program": options.program, "allowed_tools": TOOLS}
    stopping = threading.Event()
    if options.live:
        yield Flight(
            backend=options.backend,
            timeout=options.timeout,
            settings=settings
            | {
                "model": options.model or LIVE_MODEL,
                "budget": spawner.Budget(usd=LIVE_CEILING_USD / len(rows)),
                # Nobody can tell a real model to fail: one turn is too few for its task.
                "max_turns_of_failing": 1,
            },
            prompt_for=lambda row: row.task.prompt,
            first_answer=lambda session_id: None,
            stopping=stopping,
        )
        return
    scripts = {row.agent_id: row.task.script(place.copy_for(row.agent_id)) for row in rows}
    with ScriptedModel(scripts) as model:
        offset = time.monotonic() - model.elapsed()

        def first_answer(session_id: str) -> float | None:
            for record in model.requests:
                if record.request is not None and record.request.session_id == session_id:
                    return offset + record.received_at + record.duration
            return None

        environment = place.environment(model.base_url)
        yield Flight(
            backend=options.backend,
            timeout=options.timeout,
            settings=settings
            | {"environment": environment, "inherit_environment": False}
            | ({"model": options.model} if options.model else {}),
            prompt_for=lambda row: f"[[script:{row.agent_id}]] {row.task.prompt}",
            first_answer=first_answer,
            stopping=stopping,
        )


def _fly_all(
    rows: list[Row], place: Surroundings, flight: Flight, on_tick: Callable[[], None]
) -> bool:
    """All agents at once, one thread each; False when Ctrl-C ended it early."""
    for row in rows:
        write_project(place.copy_for(row.agent_id))
    with ThreadPoolExecutor(len(rows), thread_name_prefix="demo") as pool:
        waiting = {pool.submit(fly, row, place.copy_for(row.agent_id), flight) for row in rows}
        flights = frozenset(waiting)
        try:
            while waiting:
                _, waiting = wait(waiting, timeout=0.1)
                on_tick()
        except KeyboardInterrupt:
            flight.stopping.set()
            print("ending the agents …", file=sys.stderr)
            for future in flights:
                future.cancel()
            _end_all(rows)
    for future in flights:
        if not future.cancelled():
            future.result()  # fly() raises nothing; if it does, that is a bug to be seen
    return not flight.stopping.is_set()


def _end_all(rows: list[Row]) -> None:
    for row in rows:
        try:
            spawner.shutdown_claude_agent(row.agent_id, grace_seconds=1.0)
        except AgentError as error:
            row.notes.append(f"while ending: {error}")
