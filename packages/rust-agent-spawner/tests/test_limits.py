"""Limits of an agent's tree: what is kept, and that a breach is told apart with its figure."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fake_agents import FAKE, eventually
from fleets import Fleet
from vespera_agent_spawner import AgentConfig, ConfigError, Outcome, RunResult, SpawnError
from vespera_agent_spawner.errors import LimitExceeded

MIB = 1 << 20


def run(fleet: Fleet, prompt: str, limits: dict[str, Any], **fleet_wide: Any) -> RunResult:
    async def main() -> RunResult:
        async with fleet.supervisor(**fleet_wide) as sup:
            [result] = await asyncio.wait_for(
                sup.run([AgentConfig.from_mapping(mapping(fleet, prompt, limits))]), 60
            )
        assert fleet.gone()
        return result

    return asyncio.run(main())


def mapping(fleet: Fleet, prompt: str, limits: dict[str, Any]) -> dict[str, Any]:
    return {
        "program": sys.executable,
        "args": [str(FAKE)],
        "prompt": prompt,
        "environment": {"FAKE_TRACE": fleet.trace},
        "limits": limits,
    }


@pytest.mark.parametrize(
    ("prompt", "limits", "words"),
    [
        ("eat 200", {"memory": "100MiB"}, "limits.memory: the tree used"),
        ("breed 20", {"processes": 10}, "limits.processes: the tree had"),
        ("burn", {"cpu_seconds": 1}, "limits.cpu_seconds"),
        ("burn child", {"cpu_seconds": 0.5}, "limits.cpu_seconds: the tree used"),
        ("grow 100 {path}", {"file_size": "64KiB"}, "limits.file_size: a file would have grown"),
    ],
)
def test_a_breach_ends_the_agent_and_names_the_figure(
    fleet: Fleet, tmp_path: Path, prompt: str, limits: dict[str, Any], words: str
) -> None:
    result = run(fleet, prompt.format(path=tmp_path / "file"), limits)
    assert result.outcome is Outcome.LIMIT_EXCEEDED
    assert result.error is not None
    assert words in result.error
    assert result.exit is not None
    assert result.exit.by in ("kill", "limit")


def test_who_waited_long_and_grows_is_ended_at_the_next_look(fleet: Fleet) -> None:
    async def main() -> tuple[RunResult, float]:
        async with fleet.supervisor() as sup:
            # As many as are looked at together.
            chats = [await sup.spawn(fleet.config(limits={"memory": "100MiB"})) for _ in range(8)]
            await asyncio.sleep(1)
            await chats[3].send("eat 200")
            began = time.monotonic()
            result = await asyncio.wait_for(chats[3].result(), 30)
            took = time.monotonic() - began
            assert len(sup.agents()) == 7
            return result, took

    result, took = asyncio.run(main())
    assert result.outcome is Outcome.LIMIT_EXCEEDED
    # Not when everybody is read anyway, after ten seconds.
    assert took < 5


def test_an_agent_within_its_limits_is_left_alone(fleet: Fleet) -> None:
    limits = {
        "memory": "4GiB",
        "processes": 1000,
        "open_files": 99,
        "cpu_seconds": 77,
        "file_size": "1GiB",
        "nice": 5,
    }
    result = run(fleet, "limits", limits)
    assert result.outcome is Outcome.COMPLETED
    told = json.loads(result.result or "")
    assert (told["open_files"], told["cpu"], told["file_size"]) == (99, 77, 1 << 30)
    assert told["nice"] == os.nice(0) + 5 if os.nice(0) == 0 else told["nice"] == 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may lower any nice value")
def test_a_limit_that_the_kernel_refuses_is_an_error(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(SpawnError, match="limits"):
                await sup.spawn(AgentConfig.from_mapping(mapping(fleet, "echo a", {"nice": -10})))

    asyncio.run(main())


def test_a_kill_from_outside_is_no_breach(fleet: Fleet) -> None:
    async def main() -> RunResult:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(
                AgentConfig.from_mapping(mapping(fleet, "hang", {"memory": "4GiB"}))
            )
            assert agent.pid is not None
            os.kill(agent.pid, signal.SIGKILL)
            return await agent.result()

    result = asyncio.run(main())
    assert result.outcome is Outcome.KILLED
    assert result.exit is not None
    assert result.exit.by == "outside"
    assert "SIGKILL" in result.exit.reason


def remove(group: Path) -> None:
    assert eventually(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@contextlib.contextmanager
def small_memory() -> Iterator[Path]:
    """A cgroup whose processes share 96 MiB, made by whoever may."""
    for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        group = root / f"vespera-test-{uuid.uuid4()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            for name in ("memory.limit_in_bytes", "memory.max"):
                if (group / name).exists():
                    (group / name).write_text(str(96 * MIB))
                    try:
                        yield group
                    finally:
                        remove(group)
                    return
            group.rmdir()
    pytest.skip("no cgroup with a memory controller may be made here")


def test_out_of_memory_is_told_from_a_kill(fleet: Fleet) -> None:
    code = f"""
import asyncio, json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_limits import mapping
from fleets import Fleet
from vespera_agent_spawner import AgentConfig

async def main():
    fleet = Fleet({fleet.backend!r}, {fleet.trace!r})
    async with fleet.supervisor() as sup:
        [result] = await sup.run([AgentConfig.from_mapping(mapping(fleet, "eat 300", {{}}))])
    print(json.dumps([result.outcome, result.exit.by, result.error]))

asyncio.run(main())
"""
    with small_memory() as group:
        done = subprocess.run(
            [
                "sh",
                "-c",
                f'echo $$ > {group}/cgroup.procs; exec "$@"',
                "-",
                sys.executable,
                "-c",
                code,
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    outcome, by, words = json.loads(done.stdout)
    assert (outcome, by) == (Outcome.OUT_OF_MEMORY, "oom")
    assert "no memory left" in words


# -- the delegated cgroup -----------------------------------------------------------------------


@pytest.fixture
def delegated() -> Iterator[Path]:
    """An empty cgroup2 directory, where this user may make one."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    for _, place, kind, *_ in mounts:
        if kind == "cgroup2":
            group = Path(place) / f"vespera-test-{uuid.uuid4()}"
            try:
                group.mkdir()
            except OSError:
                continue
            try:
                yield group
            finally:
                left = [entry for entry in group.iterdir() if entry.is_dir()]
                for entry in left:
                    (entry / "cgroup.kill").write_text("1")
                    remove(entry)
                group.rmdir()
            assert not left, f"cgroups outlived the test: {left}"
            return
    pytest.skip("no cgroup2 that this user may write to")


def rust_only(fleet: Fleet) -> None:
    if fleet.backend != "rust":
        pytest.skip("only the Rust backend uses cgroups")


def test_an_agent_gets_a_cgroup_of_its_own_and_leaves_none(fleet: Fleet, delegated: Path) -> None:
    rust_only(fleet)
    result = run(fleet, "limits", {}, cgroup=str(delegated))
    assert result.containment == "cgroup"
    assert f"/{delegated.name}/vespera_" in json.loads(result.result or "")["cgroup"]
    assert eventually(lambda: not [entry for entry in delegated.iterdir() if entry.is_dir()])


@pytest.mark.parametrize("prompt", ["leave", "orphan"])
def test_the_kernel_ends_all_of_a_cgroup(fleet: Fleet, delegated: Path, prompt: str) -> None:
    rust_only(fleet)
    result = run(fleet, prompt, {}, cgroup=str(delegated))
    assert result.outcome is Outcome.COMPLETED
    assert result.orphans_reaped >= 1


def test_limits_that_a_cgroup_cannot_keep_are_watched(fleet: Fleet, delegated: Path) -> None:
    rust_only(fleet)
    result = run(fleet, "eat 200", {"memory": "100MiB"}, cgroup=str(delegated))
    assert result.outcome is Outcome.LIMIT_EXCEEDED
    assert "limits.memory" in (result.error or "")


def parent_of(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_killed_leash_leaves_no_cgroup(fleet: Fleet, delegated: Path) -> None:
    rust_only(fleet)

    async def main() -> None:
        async with fleet.supervisor(cgroup=str(delegated)) as sup:
            agent = await sup.spawn(AgentConfig.from_mapping(mapping(fleet, "hang", {})))
            os.kill(parent_of(agent.pid), signal.SIGKILL)
            assert (await agent.result()).outcome is Outcome.KILLED

    asyncio.run(main())
    assert fleet.gone()
    assert eventually(lambda: not [entry for entry in delegated.iterdir() if entry.is_dir()])


def test_groups_that_an_agent_made_in_its_own_are_removed(fleet: Fleet, delegated: Path) -> None:
    rust_only(fleet)
    slot = 'slot=$(env | sed -n "s/^VESPERA_[0-9]*_[0-9]*=//p")'
    script = (
        f"{slot}; own=$(echo {delegated}/vespera_*_$slot); mkdir -p $own/inner/most && echo made"
    )
    asked = AgentConfig(adapter="raw", program="/bin/sh", args=("-c", script))

    async def main() -> None:
        async with fleet.supervisor(cgroup=str(delegated)) as sup:
            [result] = await sup.run([asked])
            assert result.result == "made", result.error

    asyncio.run(main())
    assert eventually(lambda: not [entry for entry in delegated.iterdir() if entry.is_dir()])


@pytest.mark.parametrize("name", ["/nowhere", "/tmp"])
def test_a_directory_that_is_no_cgroup_is_refused(fleet: Fleet, name: str) -> None:
    with pytest.raises(ConfigError, match="cgroup") as caught:
        fleet.supervisor(cgroup=name)
    assert caught.value.field == "cgroup"


def test_a_cgroup_with_processes_is_refused(fleet: Fleet, delegated: Path) -> None:
    rust_only(fleet)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (delegated / "cgroup.procs").write_text(str(sleeper.pid))
        with pytest.raises(ConfigError, match="has processes"):
            fleet.supervisor(cgroup=str(delegated))
    finally:
        sleeper.kill()
        sleeper.wait()


FATAL = "import signal as s; s.signal(s.SIGXFSZ, s.SIG_DFL)"
EARLY: list[tuple[dict[str, Any], str]] = [
    ({"memory": "50MB"}, "import time; x = bytearray(200 << 20); time.sleep(20)"),
    ({"cpu_seconds": 1}, "while True: pass"),
    ({"processes": 2}, "import os, time; [os.fork() for _ in range(3)]; time.sleep(20)"),
    ({"file_size": 1000}, f"{FATAL}; f = open('x', 'wb', 0); [f.write(b'x' * 900) for _ in 'abc']"),
]


@pytest.mark.parametrize(("limits", "program"), EARLY, ids=lambda value: str(value)[:20])
def test_a_limit_that_is_reached_before_the_start_is_over_is_named(
    fleet: Fleet, tmp_path: Path, limits: dict[str, Any], program: str
) -> None:
    config = AgentConfig(
        program=sys.executable,
        args=("-c", program),
        prompt="hi",
        limits=limits,
        working_directory=tmp_path,
    )

    async def main() -> None:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([config])
            assert (result.outcome, result.attempts) == ("limit_exceeded", 1)
            assert f"limits.{next(iter(limits))}: " in str(result.error)
            with pytest.raises(LimitExceeded, match=f"limits.{next(iter(limits))}: "):
                await sup.spawn(config)

    asyncio.run(main())
