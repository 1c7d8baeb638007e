"""Responsible for what a careful engineer writes with asyncio today: sessions, WIDTH at a time.

It only does the work: no timeouts, no stderr, no containment, no errors worth the name. The Python
backend is measured against it, because a fallback much slower than this would be a poor one.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
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


async def session(program: str, turns: int, places: asyncio.Semaphore) -> None:
    """Spawn, initialize, `turns` prompts, EOF, exit."""
    async with places:
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


async def sessions(program: str, count: int, width: int, turns: int) -> float:
    """Run `count` sessions; returns wall seconds."""
    places = asyncio.Semaphore(width)
    began = time.perf_counter()
    await asyncio.gather(*(session(program, turns, places) for _ in range(count)))
    return time.perf_counter() - began


def compute() -> None:
    """What a busy orchestrator does beside its agents."""
    while True:
        pass


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[2:5]]
    if "busy" in sys.argv[5:]:
        threading.Thread(target=compute, daemon=True).start()
    seconds = asyncio.run(sessions(sys.argv[1], *numbers))
    print(f"{seconds:.6f} {time.process_time():.6f}")
