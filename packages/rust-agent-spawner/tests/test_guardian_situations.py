"""What is done to guardian and leashes, and what they cannot do; rows of docs/containment.md.

Rust only: the Python backend has neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_agents import Agents, eventually, policy_of, traced
from fleets import Fleet
from hosts import Host, unshared
from vespera_agent_spawner import AgentConfig, Outcome, Timeouts

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may unshare")


@pytest.fixture(autouse=True)
def rust_only(backend: str) -> None:
    if backend != "rust":
        pytest.skip("the Python backend has no guardian")


CHILDREN = """
import subprocess
from pathlib import Path

def status(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

def named(name):
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == name:
                found.append(int(entry.name))
        except OSError:
            pass
    return found
"""


# -- whose /proc it is ----------------------------------------------------------------------------


@root_only
def test_a_proc_of_another_namespace_is_said_and_no_stranger_is_hit(
    agents: Agents, tmp_path: Path
) -> None:
    told = unshared(
        agents,
        tmp_path,
        "",
        CHILDREN
        + """
strangers = [subprocess.Popen(["sleep", "30"]) for _ in range(6)]
spawn("a")
agent = spawner.agent_status("a").pid
# Inside, the leash has the number before its agent's.
os.kill(agent - 1, signal.SIGKILL)
while spawner.agent_status("a").state not in ("ended", "spawn_failed"):
    time.sleep(0.01)
spawn("b")
time.sleep(0.3)
tell(tier=spawner.containment(), hit=[s.poll() for s in strangers if s.poll() is not None])
spawner.shutdown_claude_agent("b")
for stranger in strangers:
    stranger.kill()
""",
        "--pid",
        "--fork",
    )
    assert json.loads(told) == {"tier": "pgroup", "hit": []}


@root_only
def test_without_proc_limits_of_the_tree_are_refused(agents: Agents, tmp_path: Path) -> None:
    told = unshared(
        agents,
        tmp_path,
        "mount -t tmpfs none /proc;",
        """
try:
    spawn("a", limits={"memory": "1GiB"})
    said = say("a", "echo a")["error"]
except spawner.AgentError as error:
    said = str(error)
tell(tier=spawner.containment(), said=said)
""",
        "--mount",
    )
    news = json.loads(told)
    assert news["tier"] == "pgroup"
    assert "/proc does not show" in news["said"]


@root_only
def test_without_proc_the_group_is_ended_and_the_leash_goes_with_the_last(
    agents: Agents, tmp_path: Path
) -> None:
    # Afterwards the fixture finds nobody: neither what was in the group, nor a leash that waits.
    began = time.monotonic()
    told = unshared(
        agents,
        tmp_path,
        "mount -t tmpfs none /proc;",
        """
import asyncio
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig
async def main():
    async with Supervisor(SupervisorConfig(backend=BACKEND, memory_reserve=0)) as sup:
        script = "sleep 60 >/dev/null 2>&1 & setsid sleep 7 >/dev/null 2>&1 &"
        [result] = await sup.run([AgentConfig(
            adapter="raw", program="/bin/sh", args=("-c", script + " sleep 0.5; echo said"),
            environment={"FAKE_TRACE": TRACE})])
        left = "1 more" in result.exit.reason
        tell(outcome=result.outcome, said=result.result, left=left, host=os.getpid())
asyncio.run(main())
""",
        "--mount",
    )
    news = json.loads(told)
    host = news.pop("host")
    assert news == {"outcome": "completed", "said": "said", "left": True}
    assert time.monotonic() - began < 30
    assert eventually(lambda: not owners_for(host)), "they outlived the last process"


def owners_for(host: int) -> list[int]:
    """Guardian and leashes of a host, which is named on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            if line.split(b"\0")[:2] == [b"vespera-guardian", str(host).encode()]:
                found.append(int(entry.name))
    return found


# -- starts that hang -----------------------------------------------------------------------------


@pytest.fixture
def leased(tmp_path: Path) -> Iterator[Path]:
    """A program that the kernel does not open: somebody may write to it (fcntl(2), leases)."""
    program = tmp_path / "leased"
    shutil.copy("/bin/true", program)
    asked = signal.signal(signal.SIGIO, signal.SIG_IGN)
    descriptor = os.open(program, os.O_RDWR)
    try:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            pytest.skip(f"no leases here: {error}")
        yield program
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, asked)


def test_a_program_that_cannot_be_opened_is_given_up_in_time(fleet: Fleet, leased: Path) -> None:
    asked = AgentConfig(adapter="raw", program=str(leased), timeouts=Timeouts(total=1))

    async def main() -> None:
        async with fleet.supervisor() as sup:
            began = time.monotonic()
            [result] = await sup.run([asked])
            # The limit, three tries to have the leash report, and the sweep.
            assert time.monotonic() - began < 8
            assert result.outcome is Outcome.TIMED_OUT
            [after] = await sup.run([AgentConfig(adapter="raw", program="/bin/true")])
            assert after.outcome is Outcome.COMPLETED

    asyncio.run(main())


# -- signals and descriptors of the host at the guardian's start ----------------------------------


def test_a_host_with_a_fast_timer_starts_its_guardian(agents: Agents, tmp_path: Path) -> None:
    code = """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
tell(tier=spawner.containment())
spawn("a")
signal.setitimer(signal.ITIMER_REAL, 0)
tell(said=say("a", "echo a")["result"])
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert host.news() == {"tier": "subreaper"}
        assert host.news() == {"said": "echo a"}
        host.ends()
    assert eventually(lambda: not traced(agents.trace))


@pytest.mark.parametrize("room", [0, 1, 2, 3, 60])
def test_few_descriptors_before_the_first_guardian(
    agents: Agents, tmp_path: Path, room: int
) -> None:
    code = f"""
import resource
free = os.dup(0)
os.close(free)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (free + {room}, hard))
try:
    spawn("a")
    said = say("a", "echo a")["result"]
except spawner.AgentError as error:
    said = str(error)
resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
spawn("b")
tell(said=said, later=say("b", "echo b")["result"])
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        news = host.news()
        assert news["later"] == "echo b"
        assert news["said"] == "echo a" or "ulimit -n" in news["said"]
        host.ends()


# -- deaths ---------------------------------------------------------------------------------------


@root_only
@pytest.mark.parametrize("killed", ["vespera-guard", "vespera-guard vespera-leash"])
def test_process_1_reaps_what_they_left(agents: Agents, tmp_path: Path, killed: str) -> None:
    told = unshared(
        agents,
        tmp_path,
        "",
        CHILDREN
        + f"""
spawn("a")
say("a", "orphan")
victims = [pid for name in {killed!r}.split() for pid in named(name)]
for number in (signal.SIGSTOP, signal.SIGKILL):
    for pid in victims:
        os.kill(pid, number)
while spawner.agent_status("a").state not in ("ended", "spawn_failed"):
    time.sleep(0.01)
end = time.monotonic() + 15
def left():
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != "1":
            try:
                found.append((entry / "comm").read_text().strip())
            except OSError:
                pass
    return found
while left() and time.monotonic() < end:
    time.sleep(0.02)
tell(left=left())
""",
        "--pid",
        "--fork",
        "--mount-proc",
    )
    assert json.loads(told) == {"left": []}


# A host whose agent does not hear SIGTERM.
DEAF = """
import asyncio
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig
async def main():
    config = SupervisorConfig(backend=BACKEND, memory_reserve=0, host_death_grace="60d")
    async with Supervisor(config) as sup:
        script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
        agent = await sup.spawn(AgentConfig(
            adapter="raw", program="/bin/sh", args=("-c", script),
            environment={"FAKE_TRACE": TRACE}))
        async for event in agent:
            tell(pid=agent.pid)
asyncio.run(main())
"""


def test_the_longest_grace_is_kept_and_waited_for_asleep(agents: Agents, tmp_path: Path) -> None:
    with Host(agents.backend, agents.trace, DEAF, tmp_path) as host:
        leader = host.news()["pid"]
        leash = int(Path(f"/proc/{leader}/stat").read_text().rpartition(")")[2].split()[1])
        host.process.kill()
        host.process.wait(30)
        # The margin after the longest grace is one second.
        time.sleep(2.5)
        assert Path(f"/proc/{leader}").exists()
        used = Path(f"/proc/{leash}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert sum(map(int, used)) < 0.5 * os.sysconf("SC_CLK_TCK"), "a dead host is readable"
        os.kill(leash, signal.SIGKILL)
        assert eventually(lambda: not traced(agents.trace)), "the guardian still owns it"


# -- what force does not end ----------------------------------------------------------------------


class Freezer:
    """A cgroup whose processes do not even hear SIGKILL until they are thawed."""

    def __init__(self, group: Path) -> None:
        self._group = group

    def freeze(self, *pids: int) -> None:
        for pid in pids:
            (self._group / "cgroup.procs").write_text(str(pid))
        (self._group / "freezer.state").write_text("FROZEN")

    def thaw(self) -> None:
        (self._group / "freezer.state").write_text("THAWED")


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    # In the second version of cgroups whoever is frozen can be killed.
    group = Path("/sys/fs/cgroup/freezer") / f"vespera-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no freezer here: {error}")
    made = Freezer(group)
    try:
        yield made
    finally:
        made.thaw()
        assert eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.parametrize("leader", [False, True], ids=["children", "leader"])
def test_survivors_are_named_and_counted(fleet: Fleet, freezer: Freezer, leader: bool) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10; do setsid sleep 60 & done; echo ready; wait"
    asked = AgentConfig(
        adapter="raw",
        program="/bin/sh",
        args=("-c", script),
        environment={"FAKE_TRACE": fleet.trace},
    )

    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(asked)
            async for _ in agent:
                break
            assert agent.pid is not None
            children = children_of(agent.pid)
            assert len(children) == 10
            freezer.freeze(*children, *([agent.pid] if leader else []))
            leash = int(agent._session.leash)  # type: ignore[union-attr]
            assert leash > 0
            agent.kill()
            # Who forks must not be faster than who kills (sched(7)).
            assert eventually(lambda: policy_of(leash) == policy_of(os.getpid()))
            result = await agent.result()
            assert result.exit is not None
            assert f"{agent.pid if leader else children[0]} (" in result.exit.reason
            assert f"{len(children) + leader - 8} more" in result.exit.reason
            assert result.orphans_reaped == 0
            # Who lives has no exit.
            assert (result.exit.signal is None) is leader
            freezer.thaw()
            assert fleet.gone()

    asyncio.run(main())


def test_a_guardian_that_does_not_answer_is_replaced(
    freezer: Freezer, agents: Agents, tmp_path: Path
) -> None:
    # In a host of its own: this one's other tests keep their guardian.
    code = """
import asyncio
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig, Timeouts
async def main():
    async with Supervisor(SupervisorConfig(backend=BACKEND, memory_reserve=0)) as sup:
        true = AgentConfig(adapter="raw", program="/bin/true", timeouts=Timeouts(total=1))
        spawner.containment()
        tell(ready=True)
        sys.stdin.readline()
        began = time.monotonic()
        outcomes = [(await sup.run([true]))[0].outcome for _ in range(2)]
        tell(outcomes=outcomes, soon=time.monotonic() - began < 10)
asyncio.run(main())
"""
    with Host(agents.backend, agents.trace, code, tmp_path, stdin=subprocess.PIPE) as host:
        host.news()
        freezer.freeze(*children_of(host.process.pid))
        assert host.process.stdin is not None
        host.process.stdin.write("go\n")
        host.process.stdin.flush()
        assert host.news() == {"outcomes": ["timed_out", "completed"], "soon": True}
        freezer.thaw()
        host.ends()
