"""Responsible for what is asked of a CLI beside its turns: control requests and their answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from vespera_agent_spawner.backends._protocol import LiveSession
from vespera_agent_spawner.errors import AgentFailed, AgentTimeout

__all__ = ["Waiting", "ask", "tell"]

# Seconds.
_ANSWER_DEADLINE = 30.0

# Who waits for an answer, by the request's id.
Waiting: TypeAlias = dict[str, asyncio.Future[Mapping[str, Any]]]


async def ask(session: LiveSession, waiting: Waiting, request: Mapping[str, Any]) -> None:
    """Ask, and wait for a yes; raises ``AgentFailed`` for a no and ``AgentTimeout`` (request)."""
    whose, what = f"agent '{session.agent_id}'", request["subtype"]
    answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
    request_id = session.request(request)
    waiting[request_id] = answer
    try:
        async with asyncio.timeout(_ANSWER_DEADLINE):
            response = await answer
    except TimeoutError:
        raise AgentTimeout(
            f"{whose}: no answer to {what} within {_ANSWER_DEADLINE:g} s",
            which="request",
            after=_ANSWER_DEADLINE,
        ) from None
    finally:
        waiting.pop(request_id, None)
    if response.get("subtype") == "error":
        raise AgentFailed(f"{whose} refused {what}: {response.get('error')}")


def tell(waiting: Waiting, request_id: str, frame: bytes) -> None:
    """The CLI has answered."""
    answer = waiting.get(request_id)
    if answer is not None and not answer.done():
        answer.set_result(json.loads(frame).get("response") or {})
