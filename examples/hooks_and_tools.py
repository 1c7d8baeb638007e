"""An agent that calls Python: two functions as its tools, a guard and a log as its hooks.

    python examples/hooks_and_tools.py ["a question about stock"]

It needs a Claude CLI with an account (``pip install "vespera-agent-spawner[tools]"``, once
released; until then as the README says). Nothing is asked of anybody: what the agent may do is
decided by the functions below.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field

from vespera_agent_spawner import AgentConfig, Hook, Supervisor, Tool

STOCK = {"bolt": 120, "nut": 80}
USED: Counter[str] = Counter()


def in_stock(part: Literal["bolt", "nut"]) -> int:
    """How many pieces of a part are in stock."""
    return STOCK[part]


async def order(part: str, pieces: Annotated[int, Field(ge=1, le=1000)]) -> dict[str, Any]:
    """Order pieces of a part."""
    await asyncio.sleep(0.1)  # a warehouse far away
    if part not in STOCK:
        raise LookupError(f"nobody makes '{part}'; there are {', '.join(STOCK)}")
    return {"part": part, "pieces": pieces, "arrives": "Friday"}


def only_this_directory(event: dict[str, Any]) -> str | None:
    """A guard: text is a reason to refuse, None lets the CLI go on."""
    command = event["tool_input"].get("command", "")
    return "stay in this directory" if ".." in command or "cd /" in command else None


def count(event: dict[str, Any]) -> None:
    """A log: it returns nothing, so it says nothing."""
    USED[event["tool_name"]] += 1


async def main(question: str) -> str:
    """One run with all of it."""
    config = AgentConfig(
        prompt=question,
        allowed_tools=["Bash"],
        tools=[in_stock, Tool(order, timeout=10)],
        hooks={
            "PreToolUse": Hook(only_this_directory, matcher="Bash", timeout=5),
            "PostToolUse": count,
        },
    )
    async with Supervisor() as sup:
        [result] = await sup.run([config])
    for name, times in USED.items():
        print(f"{name}: {times}")
    return result.result or f"{result.outcome}: {result.error}"


if __name__ == "__main__":
    print(asyncio.run(main(" ".join(sys.argv[1:]) or "Order as many bolts as are in stock.")))
