"""Responsible for fake agents under a supervisor in tests."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

from fake_agents import FAKE, eventually, traced
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig

__all__ = ["ASK", "DONE", "TASK", "Fleet", "filled", "pids", "play", "said_to", "spares", "until"]

# What a CLI says of a background task and of a tool that it wants to use.
TASK = {"type": "system", "subtype": "task_started", "task_id": "t1"}
DONE = {"type": "system", "subtype": "task_notification", "task_id": "t1", "status": "completed"}
ASK = {
    "type": "control_request",
    "request_id": "ask-1",
    "request": {"subtype": "can_use_tool", "tool_name": "Bash", "input": {}},
}


def play(*steps: Any) -> str:
    """A prompt that the fake plays step by step."""
    return f"play {json.dumps(steps)}"


def said_to(prompt: str, text: str) -> dict[str, Any]:
    """A result that answers another prompt."""
    frame = {"type": "result", "subtype": "success", "is_error": False, "result": text}
    return {**frame, "user_message_uuids": [prompt]}


class Fleet:
    """Makes configurations of fake agents and supervisors of one backend."""

    def __init__(self, backend: str, trace: str) -> None:
        self.backend = backend
        self.trace = trace

    def supervisor(self, **config: Any) -> Supervisor:
        fields = {"memory_reserve": 0, "max_agents": 16, "backend": self.backend, **config}
        return Supervisor(SupervisorConfig.from_mapping(fields))

    def config(self, prompt: str | None = None, how: str = "", **fields: Any) -> AgentConfig:
        return AgentConfig(
            program=sys.executable,
            args=(str(FAKE),),
            prompt=prompt,
            environment={"FAKE_CLAUDE": how, "FAKE_TRACE": self.trace},
            **fields,
        )

    def gone(self) -> bool:
        return bool(eventually(lambda: not traced(self.trace)))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event to wait for."""
    assert await asyncio.to_thread(eventually, condition)


def spares(sup: Supervisor) -> list[Any]:
    assert sup._pool is not None
    return sup._pool._spares


async def filled(sup: Supervisor, count: int) -> None:
    await until(lambda: [spare.ready for spare in spares(sup)] == [True] * count)


def pids(sup: Supervisor) -> set[int]:
    return {spare.session.pid for spare in spares(sup)}
