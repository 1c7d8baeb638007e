"""Responsible for one agent of a server: what it was, is and said, also after its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from vespera_agent_spawner import Agent, AgentConfig, ExitStatus, RunResult, State
from vespera_server.serve.event_log import EventLog
from vespera_server.serve.transcript import Transcript

__all__ = ["Member"]


@dataclass(eq=False, kw_only=True)
class Member:
    """An agent with its log. ``owner`` is the client session that it ends with, if there is one.

    ``failure`` is why it never started. ``reserved`` are the US dollars set aside for it.
    ``prepare`` is what must be done right before a process may be started for it. ``left``: it
    ends because its caller or the server does, not because of anything about itself.
    """

    config: AgentConfig
    backend: str
    owner: str | None
    log: EventLog
    reserved: float | None = None
    prepare: Callable[[], Awaitable[None]] | None = None
    left: bool = False
    transcript: Transcript | None = None
    agent: Agent | None = None
    starting: asyncio.Task[Agent] | None = None
    turn: asyncio.Task[RunResult] | None = None
    result: RunResult | None = None
    failure: Exception | None = None
    exit: ExitStatus | None = None
    since: float = field(default_factory=time.time)
    touched: float = field(default_factory=time.monotonic)
    turn_began: int = 0

    @property
    def agent_id(self) -> str:
        return self.config.agent_id or ""

    @property
    def is_task(self) -> bool:
        """Whether it has one prompt and ends by itself."""
        return self.config.prompt is not None

    @property
    def state(self) -> State:
        if self.agent is not None:
            return self.agent.state
        if self.failure is not None:
            return State.SPAWN_FAILED
        return State.STARTING if self.exit is None else State.ENDED

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        return self.exit is not None or self.failure is not None

    @property
    def in_turn(self) -> bool:
        return self.turn is not None and not self.turn.done()

    @property
    def session_id(self) -> str | None:
        return self.agent.session_id if self.agent is not None else self.config.session_id

    @property
    def cost_usd(self) -> float | None:
        """What it has cost so far, as far as the CLI has told."""
        return self.agent.info().cost_usd if self.agent is not None else None

    @property
    def activity(self) -> str:
        """The last thing that happened, in a few words."""
        last = self.log.last
        if last is None:
            return str(self.state)
        if last.tool_name:
            return f"uses {last.tool_name}"
        return (last.text or last.kind).strip().partition("\n")[0][:120] or last.kind

    def touch(self) -> None:
        """Somebody asked about it."""
        self.touched = time.monotonic()
