"""SIGKILL of host, guardian and leash while adversarial trees run: nothing may be left.

The trees hold processes with sessions of their own, double forks, one that ignores SIGTERM and
one that is stopped. Every process of them carries a mark in its environment and ends itself after
a minute.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vespera_agent_spawner as spawner
from fake_agents import FAKE, eventually, has_ended, traced
from vespera_agent_spawner import backends

pytestmark = pytest.mark.skipif(
    backends.rust_problem() is not None, reason="only the Rust backend survives its host"
)

HOST = f"""
import json, os, signal, sys
import vespera_agent_spawner as spawner

def start(name, how, turn):
    environment = {{"FAKE_CLAUDE": how, "FAKE_TRACE": sys.argv[1]}}
    config = {{"args": [{str(FAKE)!r}], "environment": environment}}
    spawner.spawn_claude_agent(name, sys.executable, config=config, backend="rust")
    if turn:
        spawner.execute_claude_json(name, {{"prompt": turn}})

start("leaver", "", "leave")
start("orphaner", "", "orphan")
start("stubborn", "stubborn", "leave")
start("stopped", "", "orphan")
os.kill(spawner.agent_status("stopped").pid, signal.SIGSTOP)
print("ready", flush=True)
for line in sys.stdin:
    word = line.strip()
    if word == "again":
        try:
            start("again", "", "echo a")
            print("spawned", flush=True)
        except spawner.AgentError as error:
            print(repr(error), flush=True)
    elif word == "where":
        print(os.path.dirname(spawner.__file__), flush=True)
    elif word == "end":
        print(spawner.shutdown_claude_agent("leaver", 0).by, flush=True)
    elif word == "states":
        ids = ("leaver", "orphaner", "stubborn", "stopped")
        print(json.dumps([spawner.agent_status(i).state.value for i in ids]), flush=True)
"""


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def named(pids: list[int], name: str) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text().strip() == name]


class Host:
    """A host process with four adversarial agents."""

    def __init__(self, trace: str, **environment: str) -> None:
        self.trace = trace
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOST, trace],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        # The guardian's other children wait for nobody: they are of no agent any more.
        [self.guardian] = named(children(self.process.pid), "vespera-guard")
        self.leashes = named(children(self.guardian), "vespera-leash")
        assert len(self.leashes) == 4

    def ask(self, word: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def nothing_left(self) -> bool:
        return bool(eventually(lambda: not traced(self.trace), within=10))


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    made = Host(f"{request.node.name}-{os.getpid()}")
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()
        for pid in traced(made.trace):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_the_host_is_killed(host: Host) -> None:
    assert eventually(lambda: len(traced(host.trace)) >= 8)
    host.process.kill()
    host.process.wait()
    assert host.nothing_left()
    assert eventually(lambda: all(map(has_ended, (host.guardian, *host.leashes))))


def test_a_stopped_host_is_killed(host: Host) -> None:
    host.process.send_signal(signal.SIGSTOP)
    host.process.kill()
    host.process.wait()
    assert host.nothing_left()
    assert eventually(lambda: has_ended(host.guardian))


def test_the_guardian_is_killed_and_the_host_goes_on(host: Host) -> None:
    os.kill(host.guardian, signal.SIGKILL)
    assert host.nothing_left()
    assert eventually(lambda: host.ask("states") == '["ended", "ended", "ended", "ended"]')
    assert host.ask("again") == "spawned"


def test_a_leash_is_killed_and_the_others_live(host: Host) -> None:
    before = len(traced(host.trace))
    victim = host.leashes[0]
    theirs = len(children(victim))
    os.kill(victim, signal.SIGKILL)
    assert eventually(lambda: len(traced(host.trace)) <= before - theirs)
    states = eventually(lambda: (s := host.ask("states")).count("ended") == 1 and s)
    assert states.count("ready") == 3
    assert host.ask("again") == "spawned"


def test_guardian_and_leashes_are_killed_together(host: Host) -> None:
    for pid in (host.guardian, *host.leashes):
        os.kill(pid, signal.SIGSTOP)
    for pid in (host.guardian, *host.leashes):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: host.ask("states").count("ended") == 4)
    assert host.ask("again") == "spawned"
    assert eventually(lambda: len(traced(host.trace)) == 1, within=10)


@pytest.mark.parametrize("seed", range(int(os.environ.get("VESPERA_KILL_TRIALS", "8"))))
def test_the_host_and_one_of_its_own_are_killed(host: Host, seed: int) -> None:
    # All three at once is outside of the promise: nobody is left who knows of the tree.
    chosen = random.Random(seed).choice([host.guardian, *host.leashes])
    for pid in random.Random(seed).sample([host.process.pid, chosen], k=2):
        # Whoever outlives the host may have done its work and left by now.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    host.process.kill()
    host.process.wait()
    assert host.nothing_left(), f"seed {seed}: killed {chosen}"


def test_a_leash_that_was_stopped_is_made_to_end_its_tree(host: Host) -> None:
    for leash in host.leashes:
        os.kill(leash, signal.SIGSTOP)
    assert host.ask("end") == "kill"
    assert eventually(lambda: host.ask("states").count("ended") == 1)


def test_a_guardian_that_was_stopped_is_made_to_start_agents(host: Host) -> None:
    os.kill(host.guardian, signal.SIGSTOP)
    assert host.ask("again") == "spawned"
    assert host.ask("states").count("ended") == 0


def test_an_upgrade_under_a_living_host_breaks_nothing(tmp_path: Path) -> None:
    """The wheel's files are overwritten and deleted, the guardian is killed: it starts another."""
    installed = Path(spawner.__file__).parent
    copy = Path(shutil.copytree(installed, tmp_path / "site" / installed.name))
    made = Host(f"upgrade-{os.getpid()}", PYTHONPATH=str(tmp_path / "site"))
    try:
        assert made.ask("where") == str(copy)
        for file in copy.rglob("*.so"):
            # As an installer does it: the running host keeps the old one mapped.
            file.unlink()
            file.write_bytes(b"another build")
        shutil.rmtree(copy)
        os.kill(made.guardian, signal.SIGKILL)
        assert eventually(lambda: made.ask("states").count("ended") == 4)
        assert made.ask("again") == "spawned"
    finally:
        made.process.kill()
        made.process.communicate()
    assert made.nothing_left()
