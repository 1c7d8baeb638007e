"""Responsible for `--scripted`: the embedded model, a HOME of its own, and answers from the file.

The place in a task's script is read off the conversation itself (how often the model has
answered in it), not kept here: after a crash the next process goes on at the right step.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vespera_agent_spawner import AgentConfig
from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import (
    Failure,
    ModelRequest,
    Reply,
    Script,
    ScriptedModel,
    Step,
    Text,
    ToolUse,
)
from vespera_server.state.directory import private_directory
from vespera_server.tasks import Claim

__all__ = ["ScriptedFleet", "script_of", "scripted_fleet"]


class ScriptedFleet:
    """A running scripted model, and the configuration that leads agents to it."""

    def __init__(self, model: ScriptedModel, home: Path, temporary: str) -> None:
        self._model = model
        self._place = Surroundings(home)
        self._temporary = temporary
        for directory in (self._place.home, self._place.config):
            private_directory(directory)

    def configure(self, claim: Claim, config: AgentConfig) -> AgentConfig:
        """The task's agent, with the scripted model instead of an account."""
        default = f"scripted answer for task {claim.task_id!r}"
        self._model.add(claim.session_id, script_of(claim.extra.get("scripted", ()), default))
        environment = self._place.environment(self._model.base_url)
        environment["TMPDIR"] = self._temporary  # Unix sockets there: the path must be short
        return config._with(
            environment={**environment, **_harmless(config.environment)},
            inherit_environment=False,
        )


@contextlib.contextmanager
def scripted_fleet(home: Path) -> Iterator[ScriptedFleet]:
    """Everything that `--scripted` needs; sessions are kept in ``home``, to be resumed."""
    private_directory(home)
    with (
        tempfile.TemporaryDirectory(prefix="v-", ignore_cleanup_errors=True) as temporary,
        ScriptedModel(choose=lambda request: request.session_id or None) as model,
    ):
        yield ScriptedFleet(model, home, temporary)


def _harmless(environment: Mapping[str, str]) -> dict[str, str]:
    """A task's own environment, without what would lead its agent to a real account."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("ANTHROPIC_", "CLAUDE_CODE_USE_", "CLAUDE_CONFIG_DIR"))
    }


def script_of(steps: Sequence[Mapping[str, Any]], default: str) -> Script:
    """The script of ``ScriptedStep``s as data; ``default`` is said when they are all done."""
    answers: list[Reply] = []
    failures: Counter[int] = Counter()
    errors: dict[tuple[int, int], Failure] = {}
    for step in steps:
        delay = float(step.get("delay", 0.0))
        if "fail" in step:
            number = failures[len(answers)]
            errors[len(answers), number] = Failure(int(step["fail"]), delay=delay)
            failures[len(answers)] += 1
        elif "tool" in step:
            use = ToolUse(str(step["tool"]), dict(step.get("input", {})))
            answers.append(Reply(use, delay=delay))
        else:
            answers.append(Reply(Text(str(step["text"])), delay=delay))
    last: Step = Reply(Text(default))
    if steps and "fail" in steps[-1]:
        # The CLI asks again after an error: a failure that ends a script goes on, or it is none.
        last = errors[len(answers), failures[len(answers)] - 1]
    lock = threading.Lock()
    failed: Counter[int] = Counter()

    def step_for(request: ModelRequest) -> Step:
        place = sum(message.get("role") == "assistant" for message in request.messages)
        with lock:
            error = errors.get((place, failed[place]))
            failed[place] += error is not None
        if error is not None:
            return error
        return answers[place] if place < len(answers) else last

    return Script(then=step_for)
