"""Responsible for the same sessions through the official SDK, as its documentation shows them, by
its own transport or by ours.

It is imported where it is used: asv loads every module here, in environments that have no SDK.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from claude_agent_sdk import ClaudeAgentOptions, Transport

    Carry = Callable[[ClaudeAgentOptions], Transport | None]


def by_itself(options: ClaudeAgentOptions) -> Transport | None:
    """The SDK's own transport."""
    return None


async def session(program: str, places: asyncio.Semaphore, carry: Carry) -> None:
    """Connect, one prompt, read up to the result, disconnect."""
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient

    options = ClaudeAgentOptions(cli_path=program)
    async with places, ClaudeSDKClient(options, transport=carry(options)) as client:
        await client.query("hi")
        async for _ in client.receive_response():
            pass


async def sessions(program: str, count: int, width: int, carry: Carry = by_itself) -> None:
    """Run `count` sessions, `width` at a time."""
    places = asyncio.Semaphore(width)
    await asyncio.gather(*(session(program, places, carry) for _ in range(count)))


async def listen(program: str, environment: dict[str, str]) -> tuple[int, int]:
    """One prompt whose answer is long; returns how many messages and characters were read."""
    from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, ClaudeSDKClient, TextBlock

    messages = characters = 0
    options = ClaudeAgentOptions(cli_path=program, env=environment)
    async with ClaudeSDKClient(options) as client:
        await client.query("hi")
        async for message in client.receive_response():
            messages += 1
            if isinstance(message, AssistantMessage):
                for block in message.content:
                    characters += len(block.text) if isinstance(block, TextBlock) else 0
    return messages, characters
