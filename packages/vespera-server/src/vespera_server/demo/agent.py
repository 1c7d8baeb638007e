"""Takes one agent through its life with the synchronous API: spawn, one turn, shutdown, checks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vespera_agent_spawner as spawner
from vespera_agent_spawner.errors import AgentError
from vespera_server.demo import processes
from vespera_server.demo.rows import Row

_SAMPLE_EVERY = 0.1  # seconds; a Claude tree keeps its peak for longer than that


@dataclass(frozen=True)
class Flight:
    """What all agents of one demo share.

    `first_answer(session_id)` gives the monotonic time of the model's first answer, where the
    model is ours. `settings` are AgentConfig fields that every agent gets.
    """

    backend: str
    timeout: float
    settings: Mapping[str, Any]
    prompt_for: Callable[[Row], str]
    first_answer: Callable[[str], float | None]
    stopping: threading.Event


def fly(row: Row, copy: Path, flight: Flight) -> None:
    """Runs the agent of `row` in `copy` and fills the row. Raises nothing: failures are data."""
    began = time.monotonic()
    try:
        _live(row, copy, flight, began)
    except (AgentError, OSError, ValueError) as error:
        row.error = str(error)
        row.outcome = _outcome_of(error, row)
        row.problems.append(f"{type(error).__name__}: {error}")
    finally:
        _shut_down(row, copy)
        row.duration = time.monotonic() - began
        row.state = "ended"
    if flight.stopping.is_set():
        row.problems.append("interrupted")
    else:
        _judge(row, copy)


def _outcome_of(error: Exception, row: Row) -> str:
    if row.startup is None:
        return "spawn_failed"
    return "timed_out" if isinstance(error, TimeoutError) else "failed"


def _live(row: Row, copy: Path, flight: Flight, began: float) -> None:
    row.state = "starting"
    settings = dict(flight.settings)
    if row.task.fails and "max_turns_of_failing" in settings:
        settings["max_turns"] = settings["max_turns_of_failing"]
    settings.pop("max_turns_of_failing", None)
    config = spawner.AgentConfig(agent_id=row.agent_id, working_directory=str(copy), **settings)
    session_id = spawner.spawn_claude_agent(
        row.agent_id, timeout_seconds=flight.timeout, config=config, backend=flight.backend
    )
    row.startup = time.monotonic() - began
    info = spawner.agent_status(row.agent_id)
    row.backend, row.containment = info.backend, info.containment
    row.state = "working"
    with _Sampler(row, info.pid):
        turn = spawner.execute_claude_json(row.agent_id, {"prompt": flight.prompt_for(row)})
    _take_over(row, dict(turn))
    answered = flight.first_answer(session_id)
    if row.first_output is None and answered is not None:
        row.first_output = max(0.0, answered - began)


def _take_over(row: Row, turn: Mapping[str, Any]) -> None:
    usage = turn.get("usage") or {}
    row.outcome = str(turn["outcome"])
    row.turns = turn.get("num_turns")
    row.answer = str(turn.get("result") or "")
    row.error = turn.get("error") or None
    row.cost_usd = turn.get("total_cost_usd")
    row.output_tokens = usage.get("output_tokens")
    row.input_tokens = sum(
        int(usage.get(name) or 0)
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    )
    since_prompt = turn.get("time_to_first_output")
    if since_prompt is not None and row.startup is not None:
        row.first_output = row.startup + float(since_prompt)


def _shut_down(row: Row, copy: Path) -> None:
    row.state = "ending"
    before = processes.processes_in(copy)
    try:
        leader = spawner.agent_status(row.agent_id).pid
        spawner.shutdown_claude_agent(row.agent_id)
    except AgentError as error:
        if row.startup is not None:  # it lived: not being able to end it is a finding
            row.problems.append(f"shutdown: {error}")
        return
    after = processes.processes_in(copy)
    row.left_behind = len(after)
    row.orphans_swept = len({p for p in before if p.pid != leader} - after)
    processes.end_processes_in(copy)


def _judge(row: Row, copy: Path) -> None:
    """Adds a problem for everything that is not as the task says."""
    wanted_failure = row.task.fails and row.outcome in ("failed", "limit_exceeded", "incomplete")
    if row.problems:
        return  # it broke; what its work lacks says nothing more
    if row.task.fails and not wanted_failure:
        row.problems.append(f"outcome {row.outcome}, although it was meant to fail")
    if not row.task.fails and row.outcome != "completed":
        why = row.error or row.answer or "no reason given"
        row.problems.append(f"outcome {row.outcome}: {why}")
    if row.outcome == "completed" and (wrong := row.task.check(copy, row.answer)):
        row.problems.append(wrong)
    if row.left_behind:
        text = f"{row.left_behind} process(es) outlived the agent and were ended by the demo"
        if row.containment == "pgroup":
            # What the tier says of itself: a process in a session of its own is out of reach.
            row.notes.append(f"{text} (tier pgroup cannot follow them)")
        else:
            row.problems.append(text)


class _Sampler:
    """Watches the memory of an agent's tree while the block runs; the peak goes into the row."""

    def __init__(self, row: Row, pid: int | None) -> None:
        self._row = row
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"memory-{row.agent_id}")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while self._pid is not None:
            now = processes.tree_memory(self._pid)
            if now is not None:
                self._row.memory = max(now, self._row.memory or 0)
            if self._done.wait(_SAMPLE_EVERY):
                return
