"""Responsible for fake agents under a supervisor in tests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from fake_agents import FAKE, eventually, traced
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig

__all__ = ["Fleet", "until"]


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
