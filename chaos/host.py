"""The host of the chaos trials on the Python package: see src/host.rs for what it says and obeys.

Run by the harness: ``host.py HARNESS TAG AGENTS GRACE_MS SEED``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys

from vespera_agent_spawner import Agent, AgentConfig, AgentError, Supervisor, SupervisorConfig

KINDS = ("plain", "setsid", "double", "term", "stopped", "storm", "pipes", "crowd")


def say(word: str) -> None:
    print(word, flush=True)


async def main(harness: str, tag: str, agents: int, grace_ms: int, seed: int) -> None:
    chance = random.Random(seed)
    fleet = SupervisorConfig(
        max_agents=64,
        max_starting=64,
        memory_reserve=0,
        host_death_grace=grace_ms / 1000,
        backend="rust",
    )

    def config(kind: str) -> AgentConfig:
        return AgentConfig(
            program=harness, args=("adversary", kind), environment={"CHAOS_TAG": tag}
        )

    async with Supervisor(fleet) as supervisor:
        # Their leashes are free again when the adversaries come.
        for _ in range(chance.randrange(4)):
            # The guardian may be killed meanwhile.
            with contextlib.suppress(AgentError):
                await (await supervisor.spawn(config("answer"))).shutdown(0)
        # None of them answers: each start stays in flight until the host is killed.
        starting = []
        for _ in range(agents):
            starting.append(asyncio.create_task(supervisor.spawn(config(chance.choice(KINDS)))))
            await asyncio.sleep(chance.random() * 0.003)
            say("spawned")
        say("all")
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        kept: list[Agent] = []
        while line := await reader.readline():
            if line == b"again\n":
                try:
                    kept.append(await supervisor.spawn(config("answer")))
                    say("ok")
                except AgentError as error:
                    say(f"failed {error}")


# A harness that is gone leaves no host for ever.
signal.alarm(60)
asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])))
