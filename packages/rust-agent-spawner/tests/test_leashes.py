"""A leash has one agent after the other, and none of them is touched by the one before."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_agents import children_of, eventually, has_ended, policy_of
from fleets import Fleet, until
from vespera_agent_spawner import (
    Agent,
    AgentConfig,
    Outcome,
    RunResult,
    Supervisor,
    backends,
    register,
)

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
    for pid in children_of(os.getpid()):
        # The engine may reap a former one at any moment.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/comm").read_text() == "vespera-guard\n":
                os.kill(pid, signal.SIGKILL)
                assert eventually(functools.partial(has_ended, pid))


def leash_of(agent: Agent) -> int:
    return int(agent._session.leash)  # type: ignore[union-attr]


def guardian_of(leash: int) -> int:
    return int(Path(f"/proc/{leash}/stat").read_text().rpartition(")")[2].split()[1])


def leashes_of(guardian: int) -> list[int]:
    return [
        int(pid) for pid in Path(f"/proc/{guardian}/task/{guardian}/children").read_text().split()
    ]


def oom_score_of(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


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


def environment_of(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def private_kib(pid: int) -> int:
    """Memory that nobody shares with it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def test_a_large_request_leaves_no_memory_in_its_leash_and_nothing_for_the_next(
    fleet: Fleet,
) -> None:
    large = {"LARGE": "x" * 100_000}

    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            before = private_kib(first)
            config = fleet.config()
            agent = await sup.spawn(
                AgentConfig(
                    program=sys.executable,
                    args=config.args,
                    environment={**config.environment, **large},
                )
            )
            assert leash_of(agent) == first
            assert b"LARGE=xxx" in environment_of(agent.pid)
            assert (await agent.run("echo hello")).result == "echo hello"
            assert private_kib(first) - before < 32, "100 KiB were read"
            await agent.shutdown()
            await asyncio.sleep(0.05)
            small = await sup.spawn(fleet.config())
            assert leash_of(small) == first
            assert b"LARGE" not in environment_of(small.pid)
            assert (await small.run("echo hello")).result == "echo hello"

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


TRACER = """
import ctypes, sys
seize = ctypes.CDLL(None).ptrace(ctypes.c_long(0x4206), ctypes.c_long(int(sys.argv[1])), None, None)
print(seize, flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def debugged(pid: int) -> Iterator[Callable[[], None]]:
    """Held by a debugger: once it has ended nobody can reap it before the debugger leaves."""
    with subprocess.Popen(
        [sys.executable, "-c", TRACER, str(pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as debugger:
        assert debugger.stdin is not None
        assert debugger.stdout is not None
        if debugger.stdout.readline() != b"0\n":
            pytest.skip("no process may be traced here")
        yield debugger.stdin.close


@contextlib.contextmanager
def refused(pid: int, calls: str, how: str) -> Iterator[None]:
    """A process whose system calls fail as they do when a machine has nothing left."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    arguments = ["-e", f"trace={calls}", "-e", f"inject={calls}:{how}", "-p", str(pid)]
    with subprocess.Popen(
        [strace, "-o", "/dev/null", *arguments], stderr=subprocess.PIPE
    ) as refusing:
        assert refusing.stderr is not None
        try:
            if b"attached" not in refusing.stderr.readline():
                pytest.skip("no process may be traced here")
            yield
        finally:
            refusing.terminate()


@pytest.mark.parametrize("leaves", [False, True])
def test_a_leash_that_still_has_an_agent_gets_no_other(fleet: Fleet, leaves: bool) -> None:
    """A debugger holds the agent's end back, as an uninterruptible sleep would."""

    async def main() -> None:
        async with fleet.supervisor() as sup:
            held = await sup.spawn(fleet.config())
            leash = leash_of(held)
            with debugged(held.info().pid or 0) as leave:
                await held.shutdown(0)
                assert not is_free(leash)
                spawning = asyncio.ensure_future(sup.spawn(fleet.config(timeouts={"startup": 5})))
                if leaves:
                    await asyncio.sleep(0.5)
                    leave()
                agent = await spawning
                assert leash_of(agent) != leash
                assert (await agent.run("echo hello")).result == "echo hello"
                await agent.shutdown()

    asyncio.run(main())


def test_an_agent_that_has_ended_is_not_listed_as_alive_for_its_leash(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever follows what it says would wait as long as its host lives."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    def told() -> list[register.Listed]:
        return [one for host in register.hosts() for one in host.agents if one.leash is not None]

    async def main() -> None:
        async with fleet.supervisor(register=True) as sup:
            agent = await sup.spawn(fleet.config())
            leash = leash_of(agent)
            await until(lambda: bool(told()))
            [listed] = told()
            assert listed.is_alive
            await agent.shutdown()
            await until(lambda: not listed.is_alive)
            assert is_free(leash)

    asyncio.run(main())


def test_an_end_that_its_leash_could_not_tell_is_noticed(fleet: Fleet) -> None:
    """A report is refused for want of memory: its leash would wait for the next request."""

    async def main() -> None:
        async with fleet.supervisor() as sup:
            config = AgentConfig(program="/bin/sleep", args=("60",), adapter="raw")
            agent = await sup.spawn(config)
            await until(lambda: agent.pid is not None)
            assert agent.pid is not None
            # The second thing that it says at the end is that nothing is left.
            with refused(leash_of(agent), "sendto", "error=ENOBUFS:when=2"):
                os.kill(agent.pid, signal.SIGKILL)
                await asyncio.wait_for(agent.result(), 20)

    asyncio.run(main())


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


class _AtTheEnd(logging.Handler):
    """Does something between the end of an agent and the start of the next in its place."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self.do = do

    def emit(self, record: logging.LogRecord) -> None:
        if ": ended: " in record.getMessage():
            self.do()


@contextlib.contextmanager
def at_the_end(do: Callable[[], None]) -> Iterator[None]:
    logger = logging.getLogger("vespera.agent_spawner.agent")
    handler, level = _AtTheEnd(do), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_agents_that_follow_each_other_in_a_batch_share_a_leash(fleet: Fleet) -> None:
    """Whoever ends makes place for the next, whose request is sent at the end of that moment."""
    leashes: set[int] = set()

    async def main() -> list[Outcome]:
        async with fleet.supervisor(max_agents=1) as sup:

            def look() -> None:
                leashes.update(leashes_of(guardian))

            await one(sup, fleet)
            [guardian] = [pid for pid in children_of(os.getpid()) if not has_ended(pid)]
            with at_the_end(look):
                results = await sup.run([fleet.config(f"echo {n}") for n in range(5)])
            return [result.outcome for result in results]

    assert asyncio.run(main()) == [Outcome.COMPLETED] * 5
    # A loop that hears of an end before its leash is put aside has another made.
    assert 1 <= len(leashes) <= 3


@pytest.mark.parametrize("victim", ["leash", "guardian"])
def test_whoever_dies_between_two_of_a_batch_keeps_the_next_from_nothing(
    fleet: Fleet, victim: str
) -> None:
    killed: list[int] = []

    async def main() -> list[RunResult]:
        async with fleet.supervisor(max_agents=1) as sup:
            leash = await one(sup, fleet)
            guardian = guardian_of(leash)

            def kill() -> None:
                if killed:
                    return
                killed.append(leash if victim == "leash" else guardian)
                os.kill(killed[0], signal.SIGKILL)
                assert eventually(lambda: has_ended(leash))

            with at_the_end(kill):
                return await sup.run([fleet.config(f"echo {n}") for n in range(3)])

    results = asyncio.run(main())
    assert killed
    assert [(one.outcome, one.error) for one in results] == [(Outcome.COMPLETED, None)] * 3
    assert [one.result for one in results] == [f"echo {n}" for n in range(3)]


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes somebody else")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the call's number is x86-64's")
def test_a_thread_with_rights_of_its_own_is_heard_by_its_leashes(fleet: Fleet) -> None:
    """Not by way of the reactor, whose thread has others."""
    libc = ctypes.CDLL(None, use_errno=True)
    outcomes: list[tuple[Outcome, str | None]] = []

    async def main() -> None:
        config = AgentConfig(adapter="raw", program="/bin/true")
        async with fleet.supervisor(max_agents=1) as sup:
            results = await sup.run([config] * 4)
            outcomes.extend((result.outcome, result.error) for result in results)

    def live_as_nobody() -> None:
        # By the bare call: the C library would make everybody nobody.
        assert libc.syscall(117, 65534, 65534, 65534) == 0
        asyncio.run(main())

    asyncio.run(main())  # from now on the reactor is there, with the rights of this thread
    thread = threading.Thread(target=live_as_nobody)
    thread.start()
    thread.join(30)
    assert outcomes == [(Outcome.COMPLETED, None)] * 8


def test_free_leashes_end_with_their_guardian_and_another_makes_new_ones(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            guardian = guardian_of(first)
            os.kill(guardian, signal.SIGKILL)
            assert await asyncio.to_thread(eventually, lambda: has_ended(first))
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
        own = oom_score_of(os.getpid())
        async with fleet.supervisor() as sup:
            await one(sup, fleet)
            agent = await sup.spawn(fleet.config())
            assert oom_score_of(agent.info().pid) == 500
            assert oom_score_of(leash_of(agent)) == own

    asyncio.run(main())


def test_a_leash_gives_way_to_who_wakes_it_and_its_agents_do_not(fleet: Fleet) -> None:
    """sched(7): an agent is scheduled as its host is, also the second one of a leash."""
    own = policy_of(os.getpid())
    given = os.SCHED_BATCH if own == os.SCHED_OTHER else own

    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await one(sup, fleet)
            for nice in (None, 5):
                agent = await sup.spawn(fleet.config(limits={"nice": nice}))
                pid, leash = agent.info().pid, leash_of(agent)
                assert pid is not None
                assert leash == first
                assert policy_of(pid) == own
                assert os.getpriority(os.PRIO_PROCESS, pid) == max(nice or 0, os.nice(0))
                assert policy_of(leash) == given
                assert os.getpriority(os.PRIO_PROCESS, leash) == os.nice(0)
                await agent.shutdown()
                await asyncio.sleep(0.05)
            tree = AgentConfig(
                adapter="raw", program="/bin/sh", args=("-c", "sleep 60 & echo x; wait")
            )
            agent = await sup.spawn(tree)
            async for _ in agent:
                break
            assert leash_of(agent) == first
            agent.kill()
            assert (await agent.result()).orphans_reaped == 1
            await asyncio.sleep(0.05)
            assert is_free(first)
            assert policy_of(first) == given

    asyncio.run(main())


# How a host is scheduled that has chosen it: so are its leashes, and so are its agents.
SCHEDULED = """
import asyncio, os, sys
import vespera_agent_spawner as spawner

policy = int(sys.argv[1])
os.sched_setscheduler(0, policy, os.sched_param(0))

async def main():
    config = {"adapter": "raw", "program": sys.executable,
              "args": ["-c", "import os; print(os.sched_getscheduler(0))"]}
    async with spawner.Supervisor({"backend": "rust", "memory_reserve": 0}) as sup:
        for _ in range(2):
            [result] = await sup.run([config])
            assert result.result == str(policy), result
        agent = await sup.spawn({"adapter": "raw", "program": "/bin/cat"})
        assert agent._session.leash > 0
        assert os.sched_getscheduler(agent._session.leash) == policy
        agent.kill()
        await agent.result()

asyncio.run(main())
"""


def may_choose(policy: int) -> bool:
    """musl's functions refuse."""
    code = f"import os; os.sched_setscheduler(0, {policy}, os.sched_param(0))"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0


@pytest.mark.skipif(not may_choose(os.SCHED_BATCH), reason="nobody may choose a policy here")
@pytest.mark.parametrize("policy", [os.SCHED_BATCH, os.SCHED_IDLE], ids=["batch", "idle"])
def test_a_policy_that_the_host_has_chosen_is_kept(policy: int) -> None:
    subprocess.run([sys.executable, "-c", SCHEDULED, str(policy)], check=True, timeout=60)
