"""Scripts, and which step of which script a conversation gets next."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vespera_server.scripted_model.request import ModelRequest
from vespera_server.scripted_model.steps import Failure, Reply, Step, Text

StepSource = Step | Callable[[ModelRequest], Step]
Choose = Callable[[ModelRequest], str | None]


@dataclass(frozen=True, init=False)
class Script:
    """Steps in order; a callable step is given the request and returns the step to send.

    Args:
        steps: At least one step, or `then`.
        then: Repeated for every request after the last step. Without it such a request gets
            HTTP 400 that says so, since a client asking more than scripted is a finding.
    """

    steps: tuple[StepSource, ...]
    then: StepSource | None

    def __init__(self, *steps: StepSource, then: StepSource | None = None) -> None:
        if not steps and then is None:
            raise ValueError("a Script needs at least one step, or then=")
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "then", then)

    def step(self, number: int) -> StepSource | None:
        """Step `number` (from 0), `then` beyond the last, None when there is none."""
        return self.steps[number] if number < len(self.steps) else self.then


@dataclass(frozen=True)
class Decision:
    """The step to send, and where it came from (for the log)."""

    step: Step
    script: str | None
    number: int | None


class Scripts:
    """The scripts of one server and the place of every conversation in its script."""

    def __init__(
        self, scripts: Mapping[str, Script], choose: Choose | None, errand_reply: str
    ) -> None:
        self._scripts = dict(scripts)
        self._choose = choose
        self._errand_reply = errand_reply
        self._lock = threading.Lock()
        self._places: defaultdict[tuple[str, str], int] = defaultdict(int)

    def add(self, name: str, script: Script) -> None:
        """Adds or replaces a script while the server runs."""
        with self._lock:
            self._scripts[name] = script

    def decide(self, request: ModelRequest) -> Decision:
        """The answer to this request; moves its conversation one step on."""
        if not request.tool_names:
            return Decision(Reply(Text(self._errand_reply)), None, None)
        name = self._name_for(request)
        conversation = request.session_id or request.first_prompt
        with self._lock:
            script = self._scripts.get(name)
            if script is None:
                return Decision(self._unknown(name), name, None)
            number = self._places[name, conversation]
            self._places[name, conversation] += 1
        source = script.step(number)
        if source is None:
            text = f"script {name!r} has {len(script.steps)} steps; request {number + 1} has none"
            return Decision(Failure(400, text), name, number)
        # A callable step is foreign code: it runs outside the lock.
        return Decision(source(request) if callable(source) else source, name, number)

    def _name_for(self, request: ModelRequest) -> str:
        chosen = self._choose(request) if self._choose else None
        if chosen is not None:
            return chosen
        if request.marker is not None:
            return request.marker
        by_model = f"model:{request.model}"
        with self._lock:
            return by_model if by_model in self._scripts else "default"

    def _unknown(self, name: str) -> Failure:
        known = ", ".join(sorted(self._scripts)) or "none"
        return Failure(400, f"no script {name!r}; this server has: {known}")
