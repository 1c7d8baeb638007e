"""Responsible for whether a run is tried again, with what, and what its attempts come to."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

from vespera_agent_spawner._ids import random_uuid
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.config import AgentConfig, RetryPolicy
from vespera_agent_spawner.errors import (
    AgentExists,
    AgentTimeout,
    BudgetExceeded,
    ConfigError,
    SupervisorClosed,
)
from vespera_agent_spawner.results import Outcome, RunResult

__all__ = ["Effort", "is_settled", "refuses_session"]

_GO_ON = (
    "You were ended before you had finished ({outcome}). Look at what is done already, do what is "
    "left of the task, and then give your final answer as if nothing had happened."
)


class Effort:
    """One run over all its attempts."""

    def __init__(
        self,
        config: AgentConfig,
        policy: RetryPolicy,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self._given = config
        self._policy = policy
        self._draw = draw
        self._attempts: list[RunResult] = []
        self._refused: list[RunResult] = []
        self._resumed: str | None = None
        #: The last attempt in which the model spoke: what it did is in that session.
        self._spoke: RunResult | None = None

    @property
    def attempts(self) -> int:
        """How many have an end."""
        return len(self._attempts)

    def again(self, result: RunResult) -> float | None:
        """Note the end of an attempt; seconds until the next one, None when this was the last.

        ``config`` is then what the next one is started with.
        """
        if self._resumed is not None and refuses_session(result, self._resumed):
            # No attempt at the task: it goes on in a fresh session at once.
            self._resumed = self._spoke = None
            self._refused.append(result)
            self.config = self._afresh()
            return 0.0
        self._attempts.append(result)
        policy = self._policy
        if len(self._attempts) >= policy.attempts or result.outcome.value not in policy.on:
            return None
        self.config = self._next(result)
        wait = float(policy.backoff * 2 ** (len(self._attempts) - 1))
        return wait * (1 - policy.jitter * self._draw())

    def settled(self, result: RunResult) -> RunResult:
        """The last attempt's result with what all of them took."""
        if len(self._attempts) + len(self._refused) < 2:
            return result
        all_of_them = [*self._attempts, *self._refused]
        return dataclasses.replace(
            result,
            attempts=max(1, len(self._attempts)),
            turns=sum(one.turns for one in all_of_them),
            usage=_added_up([one.usage for one in all_of_them]),
            cost_usd=_sum(one.cost_usd for one in all_of_them),
            cpu_seconds=_sum(one.cpu_seconds for one in all_of_them),
            duration=sum(one.duration for one in all_of_them),
            orphans_reaped=sum(one.orphans_reaped for one in all_of_them),
        )

    def _next(self, result: RunResult) -> AgentConfig:
        """Where the model has spoken, its session goes on; else there is nothing to go on with.

        An attempt without a word, or without a process, takes nothing back of what one before it
        has done: to begin afresh would do that twice.
        """
        if result.session_id and result.time_to_first_output is not None:
            self._spoke = result
        spoke = self._spoke
        if spoke is None or adapter_named(self._given.adapter).runs_to_exit:
            return self._afresh()
        self._resumed = spoke.session_id
        return self._given._having(
            {
                "resume": spoke.session_id,
                "session_id": None,
                "fork_session": False,
                "prompt": _GO_ON.format(outcome=spoke.outcome.value.replace("_", " ")),
            }
        )

    def _afresh(self) -> AgentConfig:
        if self._given.session_id is None:
            return self._given
        # The CLI refuses an id that it has seen.
        return self._given._having({"session_id": random_uuid()})


def is_settled(error: BaseException) -> bool:
    """Whether another attempt would only say the same."""
    if isinstance(error, AgentTimeout) and error.which == "queue":
        return True
    return isinstance(error, ConfigError | AgentExists | SupervisorClosed | BudgetExceeded)


def refuses_session(result: RunResult, session_id: str) -> bool:
    """Whether the CLI said that it has no such session.

    Not by its words, which change: it ended at once, having spent nothing, and complained about
    this very id.
    """
    return (
        result.outcome in (Outcome.FAILED, Outcome.SPAWN_FAILED)
        and not result.cost_usd
        and session_id in f"{result.error} {result.stderr_tail}"
    )


def _added_up(usages: list[Mapping[str, Any]]) -> dict[str, Any]:
    total = dict(usages[-1])
    for name in {name for usage in usages for name in usage}:
        counts = [usage[name] for usage in usages if type(usage.get(name)) is int]
        if counts:
            total[name] = sum(counts)
    return total


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
