"""A leash has one agent after the other, and none of them is touched by the one before."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from fake_agents import eventually
from fleets import Fleet
from vespera_agent_spawner import Agent, AgentConfig, Outcome, Supervisor, backends

pytestmark = pytest.mark.skipif(
    backends.rust_problem() is not None, reason="only the Rust backend has leashes"
)

MOST_FREE = 16


@pytest.fixture
def backend() -> str:
    return "rust"


@pytest.fixture(autouse=True)
def fresh_guardian() -> None:
    """Other tests' free leashes would answer."""
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if Path(f"/proc/{pid}/comm").read_text() == "vespera-guard\n":
                os.kill(pid, signal.SIGKILL)
                assert eventually(functools.partial(is_zombie, pid))


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def oom_score_of(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def leash_of(agent: Agent) -> int:
    return int(agent._session.leash)  # type: ignore[union-attr]


def guardian_of(leash: int) -> int:
    return int(Path(f"/proc/{leash}/stat").read_text().rpartition(")")[2].split()[1])


def leashes_of(guardian: int) -> list[int]:
    return [
        int(pid) for pid in Path(f"/proc/{guardian}/task/{guardian}/children").read_text().split()
    ]


def is_free(leash: int) -> bool:
    return not Path(f"/proc/{leash}/task/{leash}/children").read_text().strip()


async def one(sup: Supervisor, fleet: Fleet, **fields: Any) -> int:
    """The leash of an agent that has come and gone."""
    agent = await sup.spawn(fleet.config(**fields))
    leash = leash_of(agent)
    assert (await agent.run("echo hello")).result == "echo hello"
    await agent.shutdown()
    # Its host hears of it before it is kept for the next.
    await asyncio.sleep(0.05)
    return leash


def test_the_next_agent_gets_the_leash_of_the_last(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            assert [await one(sup, fleet) for _ in range(3)] == [first] * 3
            assert is_free(first)

    asyncio.run(main())


def test_a_request_that_fits_in_no_packet_reaches_it_too(fleet: Fleet) -> None:
    big = {f"BIG_{number}": "x" * 60_000 for number in range(4)}

    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            config = fleet.config()
            environment = {**config.environment, **big}
            agent = await sup.spawn(
                AgentConfig(program=sys.executable, args=config.args, environment=environment)
            )
            assert leash_of(agent) == first
            assert (await agent.run("echo hello")).result == "echo hello"

    asyncio.run(main())


def test_what_an_agent_left_is_gone_before_the_next_comes(fleet: Fleet) -> None:
    """Also one that ends by force, with processes that left its session."""

    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            adversary = await sup.spawn(fleet.config(how="stubborn"))
            assert leash_of(adversary) == first
            await adversary.run("orphan")
            await adversary.shutdown(0)
            await asyncio.sleep(0.05)
            assert is_free(first)
            assert await one(sup, fleet) == first

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_free_leash_that_was_killed_or_stopped_keeps_nobody(
    fleet: Fleet, how: signal.Signals
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            os.kill(first, how)
            await asyncio.sleep(0.05)
            second = await one(sup, fleet)
            # A stopped one is continued after five seconds.
            assert (second == first) == (how is signal.SIGSTOP)

    asyncio.run(main())


def test_free_leashes_end_with_their_guardian_and_another_makes_new_ones(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            guardian = guardian_of(first)
            os.kill(guardian, signal.SIGKILL)
            assert await asyncio.to_thread(eventually, lambda: not Path(f"/proc/{first}").exists())
            second = await one(sup, fleet)
            assert guardian_of(second) != guardian

    asyncio.run(main())


def test_only_so_many_wait(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(max_agents=24, max_starting=24) as sup:
            guardian = guardian_of(await one(sup, fleet))
            results = await sup.run([fleet.config("echo x")] * 24)
            assert {result.outcome for result in results} == {Outcome.COMPLETED}
            assert await asyncio.to_thread(
                eventually, lambda: len(leashes_of(guardian)) <= MOST_FREE
            )

    asyncio.run(main())


def test_what_the_last_agent_used_is_not_the_next_ones(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            busy = await sup.spawn(fleet.config(limits={"cpu_seconds": 60}))
            # A limit of the tree's time counts what the leash has reaped: it gets its own.
            assert leash_of(busy) != first
            await busy.shutdown()
            [burner] = await sup.run([fleet.config("burn child", timeouts={"turn": 2})])
            assert burner.outcome is Outcome.TIMED_OUT
            await asyncio.sleep(0.05)
            [result] = await sup.run([fleet.config("echo x")])
            assert burner.cpu_seconds is not None
            assert result.cpu_seconds is not None
            assert result.cpu_seconds < burner.cpu_seconds

    asyncio.run(main())


def test_a_longer_grace_is_heard_by_the_guardian(fleet: Fleet) -> None:
    """It waits for its leashes as long as the longest grace that it has heard of."""

    async def main() -> None:
        async with fleet.supervisor(host_death_grace=1) as sup:
            short = await one(sup, fleet)
        async with fleet.supervisor(host_death_grace=30) as sup:
            long = await one(sup, fleet)
            assert long != short
            assert await one(sup, fleet) in (long, short)

    asyncio.run(main())


def test_a_program_that_cannot_be_started_takes_no_leash_along(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            lost = AgentConfig(program="/nobody/there", prompt="x")
            [result] = await sup.run([lost])
            assert result.outcome is Outcome.SPAWN_FAILED
            second = await one(sup, fleet)
            assert await one(sup, fleet) == second
            assert first >= 1

    asyncio.run(main())


def test_agents_are_the_first_to_go_when_memory_is_short(fleet: Fleet) -> None:
    """proc_pid_oom_score_adj(5); the leash keeps what the host has."""

    async def main() -> None:
        async with fleet.supervisor() as sup:
            await one(sup, fleet)
            agent = await sup.spawn(fleet.config())
            assert oom_score_of(agent.info().pid) == 500
            assert oom_score_of(leash_of(agent)) == oom_score_of(os.getpid())

    asyncio.run(main())
