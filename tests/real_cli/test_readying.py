"""A spare of the real CLI does the work of its first prompt ahead, and asks the service nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from vespera_agent_spawner import AgentConfig, Outcome, Supervisor, SupervisorConfig
from vespera_server.scripted_model import Reply, Script, ScriptedModel, Text

pytestmark = pytest.mark.claude


def test_a_spare_gets_ready_without_the_service(
    backend: str, configure: Callable[..., AgentConfig], model: ScriptedModel
) -> None:
    model.add("told", Script(Reply(Text("done"))))
    fields = {"max_agents": 2, "memory_reserve": 0, "backend": backend, "warm": 1}

    async def main() -> None:
        config = configure("pair", "[[script:told]] go")
        async with Supervisor(SupervisorConfig.from_mapping(fields)) as sup:
            await (await sup.spawn(config)).result()
            assert sup._pool is not None
            async with asyncio.timeout(60):
                # Nobody is told of it but by a first turn that takes less.
                while not [spare for spare in sup._pool._spares if _has_worked(spare)]:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            spare = sup._pool._spares[0].session.pid
            asked = [request.path for request in model.requests]
            assert len(asked) == 1, asked
            agent = await sup.spawn(config)
            assert agent.pid == spare
            result = await agent.result()
            assert (result.outcome, result.result, result.turns) == (Outcome.COMPLETED, "done", 1)
            assert len(model.requests) == 2

    asyncio.run(main())


def _has_worked(spare: object) -> bool:
    """A CLI that is not asked for the work has none to do, and is done as well."""
    readying = getattr(spare, "readying", None)
    return readying is not None and readying.done and readying._works
