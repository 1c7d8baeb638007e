"""Responsible for the same sessions through the official SDK, as its documentation shows them.

It is imported where it is used: asv loads every module here, in environments that have no SDK.
"""

from __future__ import annotations

import asyncio


async def session(program: str, places: asyncio.Semaphore) -> None:
    """Connect, one prompt, read up to the result, disconnect."""
    from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKClient

    async with places, ClaudeSDKClient(ClaudeAgentOptions(cli_path=program)) as client:
        await client.query("hi")
        async for _ in client.receive_response():
            pass


async def sessions(program: str, count: int, width: int) -> None:
    """Run `count` sessions, `width` at a time."""
    places = asyncio.Semaphore(width)
    await asyncio.gather(*(session(program, places) for _ in range(count)))


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
