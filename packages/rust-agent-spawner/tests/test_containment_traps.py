"""Traps that cost others their guarantee, each with the case that would show it again.

`tests/repo/traps.toml` says which test stands for which trap; here are those that belong nowhere
else.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import Agents, eventually, traced
from fleets import Fleet
from hosts import Host
from vespera_agent_spawner import AgentConfig, Outcome


def shell(fleet: Fleet, script: str, **fields: Any) -> AgentConfig:
    return AgentConfig(
        adapter="raw",
        program="sh",
        args=("-c", script),
        environment={"FAKE_TRACE": fleet.trace},
        **fields,
    )


def test_reports_that_nobody_read_do_not_hide_the_hosts_death(
    agents: Agents, tmp_path: Path
) -> None:
    """A socket with unread data ends with ECONNRESET instead of an end of file."""
    if agents.backend == "python":
        pytest.skip("the Python backend cannot act once its host is killed")
    code = """
for name in ("a", "b", "c"):
    spawn(name)
    say(name, "orphan")
tell(pids=[spawner.agent_status(name).pid for name in ("a", "b", "c")])
time.sleep(60)
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        first, second, _ = host.news()["pids"]
        host.signal(signal.SIGSTOP)
        # Their leashes report to a host that does not read.
        for pid in (first, second):
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not Path(f"/proc/{first}").exists())
        host.process.kill()
        host.process.wait()
        assert eventually(lambda: not traced(agents.trace))


def test_an_agent_outlives_the_thread_that_started_it(agents: Agents) -> None:
    """PDEATHSIG fires when the thread that forked ends, not the process."""
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.append(agents.spawn()))
    thread.start()
    thread.join(30)
    [name] = names
    thread = threading.Thread(
        target=lambda: names.append(str(agents.say(name, "echo a")["result"]))
    )
    thread.start()
    thread.join(30)
    assert names == [name, "echo a"]
    assert agents.say(name, "echo still")["result"] == "echo still"


def test_an_agent_has_a_session_and_a_group_of_its_own(agents: Agents) -> None:
    """`killpg` on a group that nobody made answers ESRCH, or hits the host."""
    pid = spawner.agent_status(agents.spawn()).pid
    assert pid is not None
    assert os.getpgid(pid) == os.getsid(pid) == pid
    assert os.getpgid(pid) != os.getpgid(0)


def test_hundreds_of_starts_at_once(fleet: Fleet) -> None:
    """Too many descriptors in flight, a full socket, a pipe of one page: later, not never."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2048
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"ulimit -n cannot be raised to {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    async def main() -> list[spawner.RunResult]:
        async with fleet.supervisor(max_agents=300, max_starting=300) as sup:
            return await sup.run([shell(fleet, f"echo {n}") for n in range(300)])

    try:
        results = asyncio.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [result.result for result in results] == [str(n) for n in range(300)]


def test_memory_and_processes_are_not_limited_by_what_breaks_programs(fleet: Fleet) -> None:
    """RLIMIT_AS breaks Node, Bun and the JVM; RLIMIT_NPROC counts the whole user."""

    async def main() -> str | None:
        limits = {"memory": "1GiB", "processes": 50}
        async with fleet.supervisor() as sup:
            config = shell(fleet, "echo $(ulimit -v) $(cat /proc/self/limits | grep processes)")
            [result] = await sup.run([config.to_mapping() | {"limits": limits}])
        return result.result

    told = (asyncio.run(main()) or "").split()
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    assert told[0] == "unlimited"
    assert told[3] == ("unlimited" if soft == resource.RLIM_INFINITY else str(soft))


@pytest.mark.parametrize("script", ["echo last; sleep 60 &", "sleep 60 & echo last", "echo last"])
def test_finished_is_exited_and_a_bounded_drain(fleet: Fleet, script: str) -> None:
    """Never the pipe's end alone: a grandchild holds it. Never the exit alone: lines follow."""

    async def main() -> spawner.RunResult:
        async with fleet.supervisor() as sup:
            return (await asyncio.wait_for(sup.run([shell(fleet, script)]), 30))[0]

    result = asyncio.run(main())
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "last")
    assert fleet.gone()


def test_a_forked_worker_does_not_keep_an_agents_input_open(agents: Agents, tmp_path: Path) -> None:
    """A pipe's write end that a worker inherited keeps the agent waiting for its end."""
    code = """
spawn("a")
child = os.fork()
if child == 0:
    time.sleep(20)
    os._exit(0)
status = spawner.shutdown_claude_agent("a", 10)
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
tell(by=status.by, code=status.code)
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert host.news() == {"by": "shutdown", "code": 0}
        host.ends()
