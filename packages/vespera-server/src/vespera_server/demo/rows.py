"""One row of the demo per agent: what it does now, and in the end what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vespera_server.demo.tasks import Task


@dataclass
class Row:
    """Written by its agent's thread, read by the screen.

    Durations in seconds, memory in bytes, cost in US dollars; None is "not known (yet)".
    """

    agent_id: str
    task: Task
    state: str = "waiting"
    outcome: str | None = None
    turns: int | None = None
    startup: float | None = None
    first_output: float | None = None
    duration: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    memory: int | None = None
    orphans_swept: int | None = None
    left_behind: int = 0
    backend: str = ""
    containment: str = ""
    answer: str = ""
    error: str | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def as_expected(self) -> bool:
        """Whether the agent ended and did what its task says."""
        return self.state == "ended" and not self.problems

    def to_json(self) -> dict[str, Any]:
        """The row as `vespera demo --json` prints it."""
        return {
            "agent_id": self.agent_id,
            "task": self.task.name,
            "as_expected": self.as_expected,
            "outcome": self.outcome,
            "turns": self.turns,
            "startup_seconds": self.startup,
            "time_to_first_output_seconds": self.first_output,
            "duration_seconds": self.duration,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": self.cost_usd,
            "tree_memory_bytes": self.memory,
            "orphans_swept": self.orphans_swept,
            "left_behind": self.left_behind,
            "backend": self.backend,
            "containment": self.containment,
            "answer": self.answer,
            "error": self.error,
            "problems": self.problems,
            "notes": self.notes,
        }
