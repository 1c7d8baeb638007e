"""Hosts as users have them: threads, a running loop, a fork, an exit with agents still living."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

import vespera_agent_spawner as spawner
from fake_agents import Agents, eventually, traced
from hosts import Host
from vespera_agent_spawner import AgentConfig, _registry
from vespera_agent_spawner.backends.python import PythonBackend
from vespera_agent_spawner.backends.python.owner_loop import OwnerLoop
from vespera_agent_spawner.fleet_settings import ownership_of

LIVES = {
    "starting": """
threading.Thread(target=lambda: spawn("a", "silent"), daemon=True).start()
while not spawner.list_agents():
    time.sleep(0.005)
""",
    "ready": 'spawn("a")\n',
    "in_turn": """
spawn("a")
threading.Thread(target=lambda: say("a", "deaf"), daemon=True).start()
while spawner.agent_status("a").state != "in_turn":
    time.sleep(0.005)
""",
    "stubborn": 'spawn("a", "stubborn")\n',
    "with a process left behind": 'spawn("a"); say("a", "leave")\n',
}


@pytest.mark.parametrize("life", LIVES)
def test_nothing_is_left_when_the_interpreter_exits(
    agents: Agents, tmp_path: Path, life: str
) -> None:
    with Host(agents.backend, agents.trace, LIVES[life] + "tell(ready=True)\n", tmp_path) as host:
        host.news()
        host.ends(within=15)
        assert eventually(lambda: not traced(agents.trace))


def test_nothing_starts_beside_the_interpreters_exit(tmp_path: Path) -> None:
    # Of a thread that asks for an agent while those that there are have been ended already.
    backend = PythonBackend()
    trace = tmp_path / "started"
    config = AgentConfig(agent_id="a", adapter="raw", program="touch", args=[str(trace)])
    backend.close(0.0)
    with pytest.raises(spawner.SpawnError, match="interpreter is exiting") as caught:
        backend.spawn(config)
    assert caught.value.stage == "exit"

    async def main() -> None:
        owned = ownership_of(spawner.SupervisorConfig(), backend)
        with pytest.raises(spawner.SpawnError, match="interpreter is exiting"):
            backend.start(config, lambda: True, listening=False, ownership=owned)

    asyncio.run(main())
    assert not trace.exists()


def test_nothing_starts_on_a_loop_that_comes_beside_the_interpreters_exit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = PythonBackend()
    trace = tmp_path / "started"
    config = AgentConfig(agent_id="a", adapter="raw", program="touch", args=[str(trace)])

    def closed_meanwhile(loop: asyncio.AbstractEventLoop) -> OwnerLoop:
        home = OwnerLoop(loop)
        backend.close(0.0)
        return home

    async def main() -> None:
        owned = ownership_of(spawner.SupervisorConfig(), backend)
        with pytest.raises(spawner.SpawnError, match="interpreter is exiting"):
            backend.start(config, lambda: True, listening=False, ownership=owned)

    monkeypatch.setattr("vespera_agent_spawner.backends.python.OwnerLoop", closed_meanwhile)
    asyncio.run(main())
    assert not trace.exists()


def test_a_call_on_a_thread_with_a_loop_works_and_warns_once(
    agents: Agents, tmp_path: Path
) -> None:
    code = """
import asyncio
async def main():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        spawn("a")
        text = say("a", "echo hi")["result"]
        spawner.shutdown_claude_agent("a")
    tell(text=text, warnings=[[w.category.__name__, str(w.message)] for w in seen])
asyncio.run(main())
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        told = host.news()
        assert told["text"] == "echo hi"
        [[category, message]] = told["warnings"]
        assert category == "RuntimeWarning"
        assert "blocks" in message
        assert "to_thread" in message
        host.ends()


def test_a_call_from_a_worker_thread_of_a_loop_warns_of_nothing(agents: Agents) -> None:
    async def main() -> str | None:
        name = await asyncio.to_thread(agents.spawn)
        return (await asyncio.to_thread(agents.say, name, "echo a"))["result"]

    assert asyncio.run(main()) == "echo a"


def test_a_forked_child_starts_empty_and_ends_nothing_of_its_parent(
    agents: Agents, tmp_path: Path
) -> None:
    code = """
spawn("a")
child = os.fork()
if child == 0:
    told = {"list": len(spawner.list_agents())}
    try:
        spawner.agent_status("a")
    except spawner.AgentNotFound:
        told["known"] = False
    spawn("b")
    told["own"] = say("b", "echo child")["result"]
    tell(**told)
    sys.exit(0)
_, status = os.waitpid(child, 0)
tell(status=status, parent=say("a", "echo parent")["result"])
tell(code=spawner.shutdown_claude_agent("a").code)
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert host.news() == {"list": 0, "known": False, "own": "echo child"}
        assert host.news() == {"status": 0, "parent": "echo parent"}
        assert host.news() == {"code": 0}
        host.ends()


def test_threads_see_the_same_agents(agents: Agents) -> None:
    name = agents.spawn()
    refused: list[BaseException] = []
    started = threading.Barrier(4)

    def take() -> None:
        started.wait()
        try:
            agents.spawn(agent_id="contended")
        except spawner.AgentExists as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(refused) == 3
    assert {info.agent_id for info in spawner.list_agents()} >= {name, "contended"}


def test_shutdowns_at_once_give_one_answer(agents: Agents) -> None:
    name = agents.spawn()
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(spawner.shutdown_claude_agent(name)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 4
    assert len(set(answers)) == 1


def test_a_library_prints_nothing(agents: Agents, tmp_path: Path) -> None:
    """Warnings of our own logger included: without a handler Python would print them."""
    code = """
import logging
spawn("a")
say("a", "permission")
spawner.shutdown_claude_agent("a")
try:
    spawn("b", "exit")
except spawner.SpawnError:
    pass
handlers = [type(handler).__name__ for handler in logging.getLogger("vespera").handlers]
tell(handlers=handlers, root=len(logging.getLogger().handlers))
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert host.news() == {"handlers": ["NullHandler"], "root": 0}
        assert host.ends() == ""


def test_every_record_carries_the_agents_id(
    agents: Agents, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="vespera"):
        name = agents.spawn(agent_id="100% logged")
        agents.say(name, "permission")
        spawner.shutdown_claude_agent(name)
    mine = [record for record in caplog.records if record.name.startswith("vespera.")]
    assert mine
    for record in mine:
        assert getattr(record, "agent_id", None) == name
        assert f"agent '{name}'" in record.getMessage()


def test_the_last_1024_ended_answer_and_older_ones_do_not(backend: str, tmp_path: Path) -> None:
    assert _registry.KEPT_ENDED == 1024
    names = [f"past-{backend}-{number}" for number in range(1025)]
    for name in names:
        with pytest.raises(spawner.SpawnError):
            spawner.spawn_claude_agent(name, str(tmp_path / "nothing"), backend=backend)
    for name in names[1:]:
        assert spawner.agent_status(name).state == "spawn_failed"
    with pytest.raises(spawner.AgentNotFound):
        spawner.agent_status(names[0])


def test_metrics_are_numbers_by_their_contract_names(agents: Agents, tmp_path: Path) -> None:
    code = """
before = spawner.metrics()
spawn("a")
say("a", "echo hi")
living = spawner.metrics()
try:
    spawn("b", "exit")
except spawner.SpawnError:
    pass
spawner.shutdown_claude_agent("a")
tell(before=before, living=living, after=spawner.metrics())
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        told = host.news()
        host.ends()
    before, living, after = told["before"], told["living"], told["after"]
    assert before['vespera_agents{state="ready"}'] == 0
    assert living['vespera_agents{state="ready"}'] == 1
    assert after['vespera_agents{state="ready"}'] == 0
    assert after['vespera_spawns_total{outcome="completed"}'] == 1
    assert after['vespera_spawns_total{outcome="spawn_failed"}'] == 1
    assert after['vespera_runs_total{outcome="completed"}'] == 1
    assert after["vespera_run_seconds_count"] == 1
    assert after["vespera_run_seconds_sum"] > 0
    assert after["vespera_cost_usd_total"] == 0.25
    assert after['vespera_tokens_total{direction="input"}'] == 3
    assert after['vespera_tokens_total{direction="output"}'] == 5
    assert after["vespera_event_bytes_total"] > 0
    assert after['vespera_events_total{kind="result"}'] >= 1
    assert after['vespera_kills_total{rung="eof"}'] == 1
    assert after["vespera_orphans_reaped_total"] == 0
    assert all(name.startswith("vespera_") for name in after)
