"""Responsible for what a careful engineer writes with asyncio today: sessions, WIDTH at a time.

It only does the work: no timeouts, no stderr, no containment, no errors worth the name. The Python
backend is measured against it, because a fallback much slower than this would be a poor one.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from typing import Any


async def frame(process: Process, kind: str) -> dict[str, Any]:
    """Read up to the next frame of the given kind."""
    assert process.stdout is not None
    while line := await process.stdout.readline():
        message: dict[str, Any] = json.loads(line)
        if message["type"] == kind:
            return message
    raise EOFError(f"the program ended before it sent a {kind!r} frame")


async def send(process: Process, message: dict[str, Any]) -> None:
    """Write one frame."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    await process.stdin.drain()


async def start_and_end(program: str) -> None:
    """A program that says nothing: read up to its end, and wait for it."""
    process = await asyncio.create_subprocess_exec(program, stdout=PIPE)
    assert process.stdout is not None
    await process.stdout.read()
    if await process.wait():
        raise ChildProcessError(f"{program} exited with {process.returncode}")


async def session(program: str, turns: int, places: asyncio.Semaphore) -> None:
    """Spawn, initialize, `turns` prompts, EOF, exit; with -1 only spawn and exit."""
    async with places:
        if turns < 0:
            await start_and_end(program)
            return
        process = await asyncio.create_subprocess_exec(program, stdin=PIPE, stdout=PIPE)
        assert process.stdin is not None
        initialize = {"subtype": "initialize"}
        await send(process, {"type": "control_request", "request_id": "1", "request": initialize})
        await frame(process, "control_response")
        for _ in range(turns):
            await send(process, {"type": "user", "message": {"role": "user", "content": "hi"}})
            await frame(process, "result")
        process.stdin.close()
        if await process.wait():
            raise ChildProcessError(f"{program} exited with {process.returncode}")


async def sessions(program: str, count: int, width: int, turns: int) -> None:
    """Run `count` sessions, `width` at a time."""
    places = asyncio.Semaphore(width)
    await asyncio.gather(*(session(program, turns, places) for _ in range(count)))


async def listen(program: str, environment: dict[str, str], touched: bool) -> tuple[int, int]:
    """One prompt whose answer is long; returns how many messages and characters were read.

    Messages that are not `touched` are not decoded, only told from the last one.
    """
    process = await asyncio.create_subprocess_exec(
        program, stdin=PIPE, stdout=PIPE, limit=1 << 20, env={**os.environ, **environment}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    await send(process, {"type": "user", "message": {"role": "user", "content": "hi"}})
    messages = characters = 0
    while line := await process.stdout.readline():
        messages += 1
        if not touched and len(line) > 1000:
            continue
        message = json.loads(line)
        if message["type"] == "assistant":
            characters += sum(len(block["text"]) for block in message["message"]["content"])
        elif message["type"] == "result":
            break
    process.stdin.close()
    await process.wait()
    return messages, characters
