"""Who is listed for `vespera ps`: as told, while it lives, and never a stranger with its number."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest

from fake_agents import eventually, traced
from fleets import Fleet, until
from hosts import Host as Program
from vespera_agent_spawner import Supervisor, _registrar, register
from vespera_agent_spawner.backends.python import proc
from vespera_agent_spawner.register import Host, Listed, Process

HOST = """
import asyncio

async def main():
    fields = {"memory_reserve": 0, "backend": BACKEND, "register": True}
    async with spawner.Supervisor(spawner.SupervisorConfig.from_mapping(fields)) as sup:
        agent = await sup.spawn({
            "agent_id": "a", "program": sys.executable, "args": [FAKE],
            "environment": {"FAKE_CLAUDE": "", "FAKE_TRACE": TRACE}})
        tell(pid=agent.pid)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(_registrar, "_EVERY", 0.02)
    return tmp_path / "state" / "vespera" / "hosts"


def agents() -> list[Listed]:
    return [agent for host in register.hosts() for agent in host.agents]


def files(listing: Path) -> list[Path]:
    return list(listing.iterdir())


def own() -> Process:
    started = proc.start_time(os.getpid())
    assert started is not None
    return Process(os.getpid(), started)


def write(listing: Path, host: Host, name: str | None = None) -> Path:
    listing.mkdir(parents=True, exist_ok=True)
    path = listing / (name or register.file_name(Process(host.pid, host.start_time)))
    path.write_text(json.dumps(register.to_json(host)))
    return path


def host_of(process: Process, *agents: Listed) -> Host:
    now = time.time()
    return Host(process.pid, process.start_time, now, now, "0.1.0", "/", agents)


def listed(leader: Process) -> Listed:
    return Listed("a", "in_turn", "python", "pgroup", time.time(), leader=leader)


def test_a_registered_supervisor_is_listed_while_it_is_open(fleet: Fleet, listing: Path) -> None:
    async def main() -> None:
        async with fleet.supervisor(register=True) as sup:
            (host,) = register.hosts()
            assert (host.pid, host.is_alive, host.agents) == (os.getpid(), True, ())
            agent = await sup.spawn(fleet.config(agent_id="docs", model="opus"))
            await until(lambda: [agent.state for agent in agents()] == ["ready"])
            (told,) = agents()
            assert (told.agent_id, told.model) == ("docs", "opus")
            assert told.leader is not None
            assert (told.leader.pid, told.backend) == (agent.pid, fleet.backend)
            assert told.is_alive
            # Under the Rust backend the tree hangs on its leash.
            assert (told.leash is None) == (fleet.backend == "python")
            await agent.run("echo 1")
            await until(lambda: agents()[0].turns == 1)
            await agent.shutdown()
            await until(lambda: not agents())
        await until(lambda: not files(listing))

    asyncio.run(main())


def test_what_is_told_is_its_owners_alone_and_holds_no_prompt(
    fleet: Fleet, listing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-not-for-the-register")

    async def main() -> None:
        async with fleet.supervisor(register=True) as sup:
            agent = await sup.spawn(fleet.config("hang on my secret prompt"))
            await until(lambda: bool(agents()))
            (path,) = files(listing)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            for directory in (path.parent, path.parent.parent):
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            text = path.read_text()
            assert "secret prompt" not in text
            assert "not-for-the-register" not in text
            agent.kill()

    asyncio.run(main())


def test_without_register_nothing_is_written(fleet: Fleet, listing: Path) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            await (await sup.spawn(fleet.config())).shutdown()

    asyncio.run(main())
    assert not listing.exists()


def test_one_that_waits_for_a_place_is_listed_as_queued(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(register=True, max_agents=1) as sup:
            first = await sup.spawn(fleet.config())
            second = asyncio.ensure_future(sup.spawn(fleet.config(agent_id="second")))
            await until(lambda: "second" in {agent.agent_id for agent in agents()})
            told = {agent.agent_id: agent for agent in agents()}["second"]
            assert (told.state, told.leader) == ("queued", None)
            second.cancel()
            await first.shutdown()

    asyncio.run(main())


def test_two_supervisors_share_one_file_and_the_last_one_takes_it_away(
    fleet: Fleet, listing: Path
) -> None:
    async def main() -> None:
        async with fleet.supervisor(register=True) as first:
            async with fleet.supervisor(register=True) as second:
                same = fleet.config(agent_id="same")
                kept = await first.spawn(same), await second.spawn(same)
                await until(lambda: len(agents()) == 2)
                assert len({agent.supervisor for agent in agents()}) == 2
                assert len(files(listing)) == 1
            await until(lambda: len(agents()) == 1)
            await kept[0].shutdown()
        await until(lambda: not files(listing))

    asyncio.run(main())


def test_a_place_that_cannot_be_written_is_a_warning_and_the_work_goes_on(
    fleet: Fleet, listing: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listing.parent.mkdir(parents=True)
    listing.write_text("in the way")

    async def main() -> None:
        async with fleet.supervisor(register=True) as sup:
            agent = await sup.spawn(fleet.config())
            assert (await agent.run("echo 1")).result == "echo 1"

    asyncio.run(main())
    assert "'vespera ps' does not see this process" in caplog.text


def test_a_host_that_is_killed_is_listed_no_more(
    backend: str, listing: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With the Rust backend its agents go with it; with the Python one they stay listed."""
    trace = f"{os.getpid()}-{request.node.name}"
    with Program(backend, trace, HOST, tmp_path, stdin=-1) as program:
        assert program.process.stdout is not None
        pid = json.loads(program.process.stdout.readline())["pid"]
        assert eventually(agents)
        (host,) = register.hosts()
        assert host.pid == program.process.pid
        os.kill(pid, signal.SIGSTOP)  # it would leave by itself when its input ends
        program.process.kill()
        program.process.wait()
        if backend == "python":
            (host,) = register.hosts()
            assert (host.is_alive, host.agents[0].agent_id) == (False, "a")
            os.kill(pid, signal.SIGKILL)
        assert eventually(lambda: not register.hosts())
        assert not files(listing)
    assert eventually(lambda: not traced(trace))


def test_a_forked_child_neither_tells_of_nor_takes_away_what_is_its_parents(
    fleet: Fleet, listing: Path
) -> None:
    async def main() -> None:
        async with fleet.supervisor(register=True) as sup:
            agent = await sup.spawn(fleet.config())
            child = os.fork()
            if child == 0:
                # As a child leaves that runs its exit handlers.
                import atexit

                atexit._run_exitfuncs()
                os._exit(0)
            await asyncio.to_thread(os.waitpid, child, 0)
            (host,) = register.hosts()
            assert host.pid == os.getpid()
            await agent.shutdown()

    asyncio.run(main())


def test_a_number_that_was_given_again_is_nobody_we_know(listing: Path) -> None:
    reused = Process(own().pid, own().start_time - 1)
    path = write(listing, host_of(reused, listed(reused)))
    assert register.hosts() == []
    assert not path.exists()


def test_a_dead_host_is_listed_while_an_agent_of_it_lives(listing: Path) -> None:
    dead = Process(own().pid, own().start_time - 1)
    write(listing, host_of(dead, listed(own()), listed(dead)))
    (host,) = register.hosts()
    assert host.is_alive is False
    assert [agent.leader for agent in host.agents] == [own()]


def test_a_torn_file_goes_with_its_process_and_not_before(listing: Path) -> None:
    listing.mkdir(parents=True)
    mine = listing / register.file_name(own())
    dead = listing / register.file_name(Process(own().pid, own().start_time - 1))
    half = dead.with_suffix(".new")  # killed while it wrote
    strange = listing / "some-thing-of-others.json"
    for path in (mine, dead, half, strange):
        path.write_text('{"vespera_register": 1, "pid')
    assert register.hosts() == []
    there = [path.exists() for path in (mine, dead, half, strange)]
    assert there == [True, False, False, True]


def test_a_host_of_another_machine_or_container_is_believed_for_a_while(listing: Path) -> None:
    elsewhere = f"0123456789ab-4026530000-{own().pid}-{own().start_time}.json"
    path = write(listing, host_of(own(), listed(own())), elsewhere)
    (host,) = register.hosts()
    assert host.is_alive is None
    for age, kept in ((4 * register.BEAT, True), (100 * register.BEAT, False)):
        os.utime(path, (time.time() - age,) * 2)
        assert register.hosts() == []
        assert path.exists() == kept


def test_a_supervisor_that_is_dropped_is_listed_no_more(fleet: Fleet, listing: Path) -> None:
    async def main() -> None:
        supervisor: Supervisor | None = fleet.supervisor(register=True)
        assert supervisor is not None
        await supervisor.__aenter__()
        assert len(register.hosts()) == 1
        supervisor = None
        await until(lambda: not files(listing))

    asyncio.run(main())
