"""What hosts do to themselves and what is done to them; the table in docs/containment.md.

Each host is a program of its own. The oracle is the same everywhere: the agent works, or a clear
error says why not, and when the host has ended no process of the test is left.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_agents import Agents, eventually, traced
from hosts import Host, unshared

ROOT = os.geteuid() == 0
HERE = str(Path(__file__).parent)

root_only = pytest.mark.skipif(not ROOT, reason="only root may change its user or unshare")
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter's numbers are x86-64's")


def rust_only(agents: Agents) -> None:
    if agents.backend != "rust":
        pytest.skip("the Python backend has no guardian")


def works(agents: Agents, folder: Path, code: str) -> dict[str, object]:
    """Run a host to its end; what it told last."""
    with Host(agents.backend, agents.trace, code, folder) as host:
        told = host.news()
        host.ends()
        assert eventually(lambda: not traced(agents.trace))
    return told


# -- signals and children of the host -------------------------------------------------------------


@pytest.mark.parametrize(
    "habit",
    [
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        """
def reap():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.001)
threading.Thread(target=reap, daemon=True).start()
""",
        "signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGINT})",
    ],
    ids=["SIGCHLD ignored", "waitpid(-1) in a thread", "all signals blocked"],
)
def test_hosts_that_take_children_and_signals_for_themselves(
    agents: Agents, tmp_path: Path, habit: str
) -> None:
    told = works(
        agents,
        tmp_path,
        habit
        + """
spawn("a")
said = say("a", "echo a")["result"]
say("a", "leave")
status = spawner.shutdown_claude_agent("a")
spawn("b")
tell(said=said, again=say("b", "echo b")["result"], by=status.by, reason=status.reason)
""",
    )
    assert (told["said"], told["again"]) == ("echo a", "echo b")
    assert told["by"] in ("shutdown", "unknown")


def test_a_stopped_host_goes_on_where_it_was(agents: Agents, tmp_path: Path) -> None:
    code = """
spawn("a")
tell(ready=True)
sys.stdin.readline()
tell(said=say("a", "echo a")["result"])
"""
    with Host(agents.backend, agents.trace, code, tmp_path, stdin=subprocess.PIPE) as host:
        host.news()
        host.signal(signal.SIGSTOP)
        assert eventually(lambda: state(host.process.pid) == "T")
        assert traced(agents.trace), "a stopped host is not a dead one"
        host.signal(signal.SIGCONT)
        assert host.process.stdin is not None
        host.process.stdin.write("go\n")
        host.process.stdin.flush()
        assert host.news() == {"said": "echo a"}
        host.ends()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGSEGV, signal.SIGQUIT])
def test_a_host_that_a_signal_ends_leaves_nothing(
    agents: Agents, tmp_path: Path, number: signal.Signals
) -> None:
    rust_only(agents)
    code = "import resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
    # A shell starts what runs in its background with SIGINT and SIGQUIT ignored.
    code += f"signal.signal({int(number)}, signal.SIG_DFL)\n"
    code += 'spawn("a"); say("a", "orphan"); tell(ready=True); time.sleep(60)\n'
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        host.signal(number)
        assert host.process.wait(30) == -number
        assert eventually(lambda: not traced(agents.trace))


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_once_and_twice(agents: Agents, tmp_path: Path, times: int) -> None:
    code = """
spawn("a")
def told_later():
    while spawner.agent_status("a").state != "in_turn":
        time.sleep(0.001)
    tell(ready=True)
threading.Thread(target=told_later, daemon=True).start()
try:
    say("a", "deaf")
except KeyboardInterrupt:
    tell(interrupted=True)
    raise
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        host.signal(signal.SIGINT)
        assert host.news() == {"interrupted": True}
        if times == 2:
            host.signal(signal.SIGINT)
        host.process.communicate(timeout=30)
        assert host.process.returncode != 0
        assert eventually(lambda: not traced(agents.trace))


# -- forks ----------------------------------------------------------------------------------------


def test_a_forked_child_keeps_none_of_our_descriptors(agents: Agents, tmp_path: Path) -> None:
    told = works(
        agents,
        tmp_path,
        """
def descriptors():
    return {int(n): os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{n}") or os.path.islink(f"/proc/self/fd/{n}")}
before = set(descriptors())
spawn("a")
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.close(reader)
    left = {n: name for n, name in descriptors().items()
            if n not in before and n != writer and "/proc/" not in name}
    os.write(writer, json.dumps(left).encode())
    os._exit(0)
os.close(writer)
with os.fdopen(reader) as stream:
    left = json.loads(stream.read())
os.waitpid(child, 0)
tell(left=left, said=say("a", "echo a")["result"])
""",
    )
    assert told["said"] == "echo a"
    left = told["left"]
    assert isinstance(left, dict)
    # The Python backend's event loop keeps its own wake-up sockets: no agent hangs on them.
    of_agents = [name for name in left.values() if agents.backend == "rust" or "pipe" in name]
    assert of_agents == []


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(agents: Agents, tmp_path: Path, method: str) -> None:
    told = works(
        agents,
        tmp_path,
        f"""
import multiprocessing
def work(number):
    name = f"child-{{number}}"
    spawn(name)
    return say(name, f"echo {{number}}")["result"]

if __name__ == "__main__":
    spawn("a")
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        said = pool.map(work, range(3))
        pool.close()
        pool.join()
    tell(said=said, own=say("a", "echo own")["result"])
""",
    )
    assert told == {"said": ["echo 0", "echo 1", "echo 2"], "own": "echo own"}


def test_a_worker_that_holds_on_does_not_keep_agents_of_a_dead_host(
    agents: Agents, tmp_path: Path
) -> None:
    rust_only(agents)
    code = """
spawn("a")
child = os.fork()
if child == 0:
    time.sleep(20)
    os._exit(0)
tell(child=child)
time.sleep(60)
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        child = host.news()["child"]
        host.process.kill()
        host.process.wait()
        try:
            assert eventually(lambda: not traced(agents.trace))
        finally:
            os.kill(child, signal.SIGKILL)


# -- rights ---------------------------------------------------------------------------------------

TELL_RIGHTS = """
def rights(name):
    spawn(name)
    return json.loads(say(name, "limits")["result"])
# Its leash has the rights of before, and no agent any more.
rights("over")
spawner.shutdown_claude_agent("over", 5)
"""


@root_only
def test_a_host_that_drops_its_group_spawns_without_it(agents: Agents, tmp_path: Path) -> None:
    # Its user stays: the interpreter may be one that only its owner can run.
    told = works(
        agents,
        tmp_path,
        TELL_RIGHTS
        + """
before = rights("a")
os.setgroups([12345])
os.setresgid(65534, 65534, 65534)
os.umask(0o077)
after = rights("b")
keys = ("user", "group", "groups", "umask")
tell(before=before["group"], after=[after[key] for key in keys],
     first=say("a", "echo still")["result"])
""",
    )
    assert told == {"before": 0, "after": [0, 65534, [12345], 0o077], "first": "echo still"}


def test_no_new_privs_of_the_host_reaches_its_next_agent(agents: Agents, tmp_path: Path) -> None:
    if agents.backend == "python":
        pytest.skip("prctl(2) is the calling thread's, and that backend starts agents in another")
    told = works(
        agents,
        tmp_path,
        TELL_RIGHTS
        + """
import ctypes
before = rights("a")["no_new_privs"]
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
tell(before=before, after=rights("b")["no_new_privs"], first=say("a", "echo still")["result"])
""",
    )
    assert told == {"before": False, "after": True, "first": "echo still"}


def test_an_agent_has_no_descriptor_of_the_host(agents: Agents, tmp_path: Path) -> None:
    told = works(
        agents,
        tmp_path,
        TELL_RIGHTS
        + """
leaky = os.open("/dev/null", os.O_RDONLY)
os.set_inheritable(leaky, True)
tell(descriptors=rights("a")["descriptors"])
""",
    )
    # stdin, stdout, stderr and the directory that is being read.
    assert told == {"descriptors": 4}


# -- kernels and containers -----------------------------------------------------------------------


@x86
@pytest.mark.parametrize(
    "calls",
    [
        ("pidfd_open", "pidfd_send_signal"),
        ("memfd_create",),
        ("pidfd_open", "pidfd_send_signal", "memfd_create", "clone3"),
    ],
    ids=" ".join,
)
def test_kernels_and_filters_that_refuse_calls(
    agents: Agents, tmp_path: Path, calls: tuple[str, ...]
) -> None:
    code = f"""
sys.path.insert(0, {HERE!r})
from situations import forbid
forbid(*{calls!r})
spawn("a")
say("a", "leave")
spawner.shutdown_claude_agent("a")
spawn("b")
say("b", "orphan")
tell(said=say("b", "echo b")["result"])
for _ in range(600):  # a signal just before a long sleep would not wake it
    time.sleep(0.1)
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert host.news() == {"said": "echo b"}
        if agents.backend == "rust":
            host.process.kill()
        else:
            host.signal(signal.SIGINT)
        host.process.wait(30)
        assert eventually(lambda: not traced(agents.trace))


@root_only
def test_a_host_that_is_pid_1_of_a_container(agents: Agents, tmp_path: Path) -> None:
    told = unshared(
        agents,
        tmp_path,
        "",
        """
assert os.getpid() == 1
for number in range(3):
    spawn(f"a{number}")
    say(f"a{number}", "leave")
    spawner.shutdown_claude_agent(f"a{number}")
spawn("b"); say("b", "orphan"); spawner.shutdown_claude_agent("b")
def zombies():
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = open(f"/proc/{name}/stat").read()
            except OSError:
                continue
            if stat.rpartition(")")[2].split()[0] == "Z":
                found.append(stat)
    return found
end = time.monotonic() + 5
while zombies() and time.monotonic() < end:
    time.sleep(0.01)
tell(zombies=zombies())
""",
        "--pid",
        "--fork",
        "--mount-proc",
    )
    assert told.strip() == '{"zombies": []}'


@root_only
def test_a_root_that_is_read_only_and_a_tmp_without_programs(
    agents: Agents, tmp_path: Path
) -> None:
    told = unshared(
        agents,
        tmp_path,
        "mount -t tmpfs -o noexec none /var/tmp && export TMPDIR=/var/tmp && "
        "mount -o remount,bind,ro / &&",
        """
try:
    open("/vespera-probe", "w")
except OSError as error:
    refused = error.errno == 30
spawn("a")
tell(refused=refused, said=say("a", "echo a")["result"])
""",
        "--mount",
    )
    assert told.strip() == '{"refused": true, "said": "echo a"}'


@x86
@root_only
def test_no_place_to_run_the_guardian_from_is_a_clear_error(agents: Agents, tmp_path: Path) -> None:
    rust_only(agents)
    told = unshared(
        agents,
        tmp_path,
        "mount -t tmpfs -o noexec none /var/tmp && mount -t tmpfs -o noexec none /dev/shm && "
        "export TMPDIR=/var/tmp HOME=/var/tmp && unset XDG_RUNTIME_DIR &&",
        f"""
import asyncio
sys.path.insert(0, {HERE!r})
from situations import forbid
forbid("memfd_create")
try:
    spawn("a")
except spawner.SpawnError as error:
    spawner.shutdown_claude_agent("a")
    text = str(error)

async def runs():
    configs = [spawner.AgentConfig(adapter="raw", program="/bin/true")] * 2
    async with spawner.Supervisor(spawner.SupervisorConfig(backend=BACKEND)) as sup:
        return await sup.run(configs) + [one async for one in sup.as_completed(configs)]

tell(text=text, outcomes=[[one.outcome, one.containment] for one in asyncio.run(runs())])
""",
        "--mount",
    )
    assert "the guardian could not be run" in told
    assert "TMPDIR" in told
    # What it means for a list of runs is each one's result.
    assert told.count('["spawn_failed", ""]') == 4


@x86
@root_only
def test_a_stranger_with_a_used_number_is_never_hit(agents: Agents, tmp_path: Path) -> None:
    told = unshared(
        agents,
        tmp_path,
        "",
        f"""
sys.path.insert(0, {HERE!r})
from situations import start_with_pid

def children(pid):
    return [int(w) for t in os.listdir(f"/proc/{{pid}}/task")
            for w in open(f"/proc/{{pid}}/task/{{t}}/children").read().split()]

def below(pid):
    found = children(pid)
    return found + [one for child in found for one in below(child)]

spawn("a")
say("a", "leave")
numbers = set(below(os.getpid()))
guardian = [pid for pid in numbers if open(f"/proc/{{pid}}/comm").read() == "vespera-guard\\n"]
agent = spawner.agent_status("a").pid
spawner.shutdown_claude_agent("a")
for pid in guardian:
    os.kill(pid, signal.SIGKILL)
    while open(f"/proc/{{pid}}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)
    # Its host reaps it with the next request.
    spawn("next"); spawner.shutdown_claude_agent("next")
strangers = {{}}
for pid in numbers:
    for _ in range(200):
        try:
            strangers[pid] = start_with_pid(pid, "sleep", "50")
            break
        except FileExistsError:
            # Until whoever was given it by the kernel has reaped its dead.
            time.sleep(0.01)
assert agent in strangers, (agent, strangers, numbers)
spawn("b"); say("b", "orphan"); spawner.shutdown_claude_agent("b", 0)
spawner.shutdown_claude_agent("a")
for info in spawner.list_agents():
    spawner.shutdown_claude_agent(info.agent_id, 0)
alive = [pid for pid in strangers if os.waitpid(pid, os.WNOHANG) == (0, 0)]
for pid in strangers:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
tell(enough=len(strangers) >= (4 if guardian else 2), hit=len(strangers) - len(alive))
""",
        "--pid",
        "--fork",
        "--mount-proc",
    )
    assert told.strip() == '{"enough": true, "hit": 0}'


# -- nothing left to use --------------------------------------------------------------------------


def test_no_descriptor_left(agents: Agents, tmp_path: Path) -> None:
    told = works(
        agents,
        tmp_path,
        """
import resource
spawn("first")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for fd in held[-3:]:
    os.close(fd)
try:
    spawn("a")
    refused = None
except (spawner.AgentError, OSError) as error:
    refused = [type(error).__name__, getattr(error, "errno", None)]
for fd in held[:-3]:
    os.close(fd)
spawn("b")
tell(refused=refused, said=say("b", "echo b")["result"], first=say("first", "echo 1")["result"])
""",
    )
    assert told["refused"] == ["SpawnError", 24]
    assert (told["said"], told["first"]) == ("echo b", "echo 1")


@x86
def test_no_memory_for_a_process(agents: Agents, tmp_path: Path) -> None:
    told = works(
        agents,
        tmp_path,
        f"""
import errno
sys.path.insert(0, {HERE!r})
from situations import forbid
forbid("fork", "vfork", "clone", code=errno.ENOMEM)
try:
    spawn("a")
except (spawner.AgentError, OSError) as error:
    tell(refused=[type(error).__name__, getattr(error, "errno", None)])
""",
    )
    assert told == {"refused": ["SpawnError", 12]}


@pytest.fixture
def few_processes() -> Iterator[Path]:
    """A cgroup that limits processes, where this user may make one."""
    for root in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = root / f"vespera-test-{uuid.uuid4()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            if not (group / "pids.max").exists():
                group.rmdir()
                continue
            yield group
            assert eventually(lambda: not (group / "cgroup.procs").read_text())  # noqa: B023
            group.rmdir()
            return
    pytest.skip("no cgroup with a pids controller may be made here")


def test_no_process_left(agents: Agents, tmp_path: Path, few_processes: Path) -> None:
    told = works(
        agents,
        tmp_path,
        f"""
from pathlib import Path
group = Path({str(few_processes)!r})
(group / "cgroup.procs").write_text(str(os.getpid()))
spawn("first")
(group / "pids.max").write_text((group / "pids.current").read_text())
try:
    spawn("a")
except (spawner.AgentError, OSError) as error:
    refused = [type(error).__name__, getattr(error, "errno", None)]
(group / "pids.max").write_text("max")
spawn("b")
tell(refused=refused, said=say("b", "echo b")["result"], first=say("first", "echo 1")["result"])
""",
    )
    assert told == {"refused": ["SpawnError", 11], "said": "echo b", "first": "echo 1"}
