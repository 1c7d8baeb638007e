"""The official SDK on this engine: a fleet of ``query()`` calls with limits, counted and contained.

    python examples/sdk_on_engine.py ["a prompt", …]

It needs an account (``pip install "vespera-agent-spawner[claude-sdk]"``, once released; until then
as the README says; the SDK brings its CLI). A query that fails is one line; the others go on.
"""

from __future__ import annotations

import asyncio
import sys

from claude_agent_sdk import ClaudeAgentOptions, ClaudeSDKError, ResultMessage, query

from vespera_agent_spawner import AgentError, Supervisor, SupervisorConfig
from vespera_agent_spawner.claude_sdk import SupervisedTransport


async def ask(sup: Supervisor, prompt: str) -> str:
    """One query, as the SDK's documentation shows it, and the one line."""
    options = ClaudeAgentOptions(max_turns=5)
    transport = SupervisedTransport(options, supervisor=sup, limits={"memory": "2GiB"})
    answer = "no answer"
    async for message in query(prompt=prompt, options=options, transport=transport):
        if isinstance(message, ResultMessage):
            answer = message.result or message.subtype
    info = transport.agent.info()
    return f"{info.agent_id} ({info.containment}, {info.cost_usd or 0:.4f} USD): {answer}"


async def ask_or_say_why(sup: Supervisor, prompt: str) -> str:
    """One query's answer, or its failure in a line: it is nobody else's."""
    try:
        return await ask(sup, prompt)
    except (AgentError, ClaudeSDKError, OSError) as error:
        first = str(error).partition("\n")[0]
        return f"{prompt!r} failed: {type(error).__name__}: {first}"


async def main(prompts: list[str]) -> None:
    """All at once; eight of them run at a time."""
    async with Supervisor(SupervisorConfig(max_agents=8)) as sup:
        for line in await asyncio.gather(*(ask_or_say_why(sup, prompt) for prompt in prompts)):
            print(line)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["Say hello", "Say goodbye"]))
