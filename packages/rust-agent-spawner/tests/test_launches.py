"""What is settled before a process starts: runs of a list share what they have in common, and
nothing else."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from fleets import Fleet
from vespera_agent_spawner import AgentConfig, ConfigError, Hook, ProgramNotFound
from vespera_agent_spawner._ids import random_uuid
from vespera_agent_spawner.adapters.launch import Launch, prepare
from vespera_agent_spawner.adapters.lookups import Lookups
from vespera_agent_spawner.backends import Ownership

OWNERSHIP = Ownership()


def config(agent_id: str = "a", **fields: Any) -> AgentConfig:
    return AgentConfig(**{"agent_id": agent_id, "program": "/bin/true", **fields})


def both(first: AgentConfig, second: AgentConfig) -> tuple[Launch, Launch]:
    """Two of one list, one after the other."""
    lookups = Lookups()
    return prepare(first, (), OWNERSHIP, lookups), prepare(second, (), OWNERSHIP, lookups)


def alone(one: AgentConfig) -> Launch:
    return prepare(one, (), OWNERSHIP, Lookups())


def without_id(launch: Launch) -> list[str]:
    return [word.replace(launch.session_id, "ID") for word in launch.argv]


def test_a_run_like_the_one_before_it_differs_in_its_ids_alone() -> None:
    first, second = both(config("a", prompt="x"), config("b", prompt="y", priority=3))
    assert (first.agent_id, second.agent_id) == ("a", "b")
    assert first.session_id != second.session_id
    assert f"--session-id={second.session_id}" in second.argv
    assert without_id(first) == without_id(second)
    assert second.environment is first.environment
    first.argv.append("--mine")
    assert "--mine" not in second.argv


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "haiku"},
        {"program": "/bin/false"},
        {"args": ("-x",)},
        {"args": ("-x", "-y")},
        {"environment": {"A": "2"}},
        {"inherit_environment": False},
        {"working_directory": "/"},
        {"max_turns": 1},
        {"include_partial_messages": True},
        {"extra_args": {"a": "b"}},
        {"extra_args": {"a": None}},
        {"extra_args": {"a": "1"}},
        {"allowed_tools": ("Bash",)},
        {"disallowed_tools": ("Bash",)},
        {"adapter": "raw"},
        {"resume": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"},
        {"session_id": "3f2504e0-4f89-41d3-9a0c-0305e82c3301"},
        {"budget": {"usd": 1.0}},
        {"agents": {"one": {"description": "d", "prompt": "p"}}},
        {"settings": {"a": 1}},
        {"system_prompt": "be kind"},
    ],
    ids=str,
)
def test_whoever_differs_in_more_shares_nothing(fields: dict[str, Any]) -> None:
    for first, second in [(config(), config(**fields)), (config(**fields), config())]:
        launches = both(first, second)
        for launch, one in zip(launches, (first, second), strict=True):
            wanted = alone(one)
            shown = [word for word in without_id(launch) if "vespera-" not in word]
            assert shown == [word for word in without_id(wanted) if "vespera-" not in word]
            assert launch.environment == wanted.environment
            assert launch.working_directory == wanted.working_directory
            assert launch.initialize == wanted.initialize
            wanted.discard()
            launch.discard()


def test_equal_values_of_different_types_stay_different() -> None:
    lookups = Lookups()
    for value, text in ((1, "1"), (True, "true"), (1.0, "1.0")):
        one = config(output_schema={"const": value})
        assert f'--json-schema={{"const":{text}}}' in prepare(one, (), OWNERSHIP, lookups).argv


def test_a_configuration_of_an_older_pickle_shares_nothing() -> None:
    old = [config(), config(program="/bin/false")]
    for one in old:
        del vars(one)["_named"]
    first, second = both(old[0], old[1])
    assert (first.program, second.program) == ("/bin/true", "/bin/false")


def test_a_home_directory_is_that_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = Lookups()
    for name in ("one", "two"):
        (tmp_path / name / "work").mkdir(parents=True)
        monkeypatch.setenv("HOME", str(tmp_path / name))
        launch = prepare(config(working_directory="~/work"), (), OWNERSHIP, lookups)
        assert launch.working_directory == str(tmp_path / name / "work")


def test_what_the_adapter_does_not_know_is_refused_of_each() -> None:
    lookups = Lookups()
    prepare(config(adapter="relay"), (), OWNERSHIP, lookups)
    with pytest.raises(ConfigError, match="prompt"):
        prepare(config(adapter="relay", prompt="x"), (), OWNERSHIP, lookups)
    prepare(config(adapter="raw"), (), OWNERSHIP, lookups)
    with pytest.raises(ConfigError, match="on_permission"):
        prepare(config(adapter="raw", on_permission=lambda *_: True), (), OWNERSHIP, lookups)


def test_each_has_private_files_of_its_own() -> None:
    servers = {"mcpServers": {"one": {"command": "x"}}}
    first, second = both(config(mcp_config=servers), config(mcp_config=servers))
    try:
        assert first.private_directory != second.private_directory
        assert first.private_directory is not None
        first.discard()
        assert Path(second.private_directory or "").is_dir()
    finally:
        first.discard()
        second.discard()


def test_hooks_are_each_ones_own() -> None:
    def one(event: dict[str, Any]) -> None: ...

    def two(event: dict[str, Any]) -> None: ...

    first = config(hooks={"PreToolUse": Hook(one, matcher="A")})
    second = config(hooks={"PreToolUse": Hook(two, matcher="B")})
    launches = both(first, second)
    assert launches[0].initialize != launches[1].initialize
    alike = both(config(hooks={"PreToolUse": one}), config(hooks={"PreToolUse": two}))
    assert alike[0].initialize == alike[1].initialize


def test_the_hosts_environment_is_that_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = Lookups()
    monkeypatch.setenv("VESPERA_TEST_MOOD", "calm")
    first = prepare(config(), (), OWNERSHIP, lookups)
    monkeypatch.setenv("VESPERA_TEST_MOOD", "wild")
    second = prepare(config(), (), OWNERSHIP, lookups)
    assert first.environment["VESPERA_TEST_MOOD"] == "calm"
    assert second.environment["VESPERA_TEST_MOOD"] == "wild"


def test_another_owner_has_another_grace() -> None:
    lookups = Lookups()
    first = prepare(config(), (), Ownership(1.0), lookups)
    second = prepare(config(), (), Ownership(2.0, cgroup="/x"), lookups)
    assert (first.host_death_grace, first.cgroup) == (1.0, None)
    assert (second.host_death_grace, second.cgroup) == (2.0, "/x")


def test_a_configuration_that_was_changed_in_place_is_read_again() -> None:
    shared = config(environment={"A": "1"}, extra_args={"a": "1"})
    lookups = Lookups()
    first = prepare(shared, (), OWNERSHIP, lookups)
    dict.__setitem__(shared.environment, "A", "2")
    dict.__setitem__(shared.extra_args, "a", "2")
    second = prepare(shared, (), OWNERSHIP, lookups)
    assert (first.environment["A"], second.environment["A"]) == ("1", "2")
    assert ("--a=1" in first.argv, "--a=2" in second.argv) == (True, True)


def test_what_was_found_is_looked_up_again(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    lookups = Lookups(fresh=0.0)
    prepare(config(program=str(program)), (), OWNERSHIP, lookups)
    program.unlink()
    with pytest.raises(ProgramNotFound):
        prepare(config(program=str(program)), (), OWNERSHIP, lookups)


def test_a_relative_directory_is_that_of_where_the_host_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[Any, tuple[float, object]] = {}
    for name in ("one", "two"):
        (tmp_path / name / "work").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / name)
        launch = prepare(
            config(working_directory="work"), (), OWNERSHIP, Lookups(found, fresh=60.0)
        )
        assert launch.working_directory == str(tmp_path / name / "work")
        here = prepare(config(), (), OWNERSHIP, Lookups(found, fresh=60.0))
        assert here.working_directory == str(tmp_path / name)


def test_a_list_of_strangers_keeps_little() -> None:
    found: dict[Any, tuple[float, object]] = {}
    lookups = Lookups(found)
    for number in range(300):
        prepare(config(model=f"m{number}"), (), OWNERSHIP, lookups)
    assert len(found) <= 70


def test_an_agent_without_an_id_is_refused() -> None:
    with pytest.raises(ConfigError, match="agent_id"):
        prepare(AgentConfig(program="/bin/true"), (), OWNERSHIP, Lookups())


def test_runs_of_a_list_each_get_their_own_session(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as supervisor:
            results = await supervisor.run([fleet.config(f"echo {n}") for n in range(12)])
        assert len({result.session_id for result in results}) == 12
        assert {result.outcome for result in results} == {"completed"}
        assert {result.result for result in results} == {f"echo {n}" for n in range(12)}

    asyncio.run(main())


def test_ids_are_nobody_elses_in_threads_and_forks() -> None:
    drawn: list[list[str]] = []

    def draw() -> None:
        drawn.append([random_uuid() for _ in range(1000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [one for some in drawn for one in some]
    assert len(set(ids)) == 4000
    assert all(len(one) == 36 and one[14] == "4" and one[19] in "89ab" for one in ids)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "".join(random_uuid() for _ in range(50)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        theirs = stream.read()
    os.waitpid(child, 0)
    ours = {random_uuid() for _ in range(500)}
    assert not ours & {theirs[at : at + 36] for at in range(0, len(theirs), 36)}
