"""Limits of time: each ends what it is for, is named, and counts no time but the agent's."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import Agents, eventually
from fleets import Fleet, until
from hosts import Host
from vespera_agent_spawner import AgentConfig, Outcome, RunResult, State

BIG = "x" * (2 * 1024 * 1024)


def run(fleet: Fleet, config: AgentConfig) -> RunResult:
    async def main() -> RunResult:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([config])
        return result

    return asyncio.run(main())


# -- write ----------------------------------------------------------------------------------------


def test_an_agent_that_does_not_take_its_input_is_ended_and_named(fleet: Fleet) -> None:
    result = run(fleet, fleet.config("echo " + BIG, how="plugged", timeouts={"write": 0.3}))
    assert result.outcome is Outcome.TIMED_OUT
    assert "took none of its input for 0.3 s (timeouts.write)" in str(result.error)
    assert result.exit is not None
    assert result.exit.by == "kill"
    assert fleet.gone()


def test_a_greeting_that_is_not_taken_is_a_failed_start(fleet: Fleet) -> None:
    agents = {"helper": {"description": "d", "prompt": BIG}}

    async def main() -> None:
        async with fleet.supervisor() as sup:
            config = fleet.config(how="silent", agents=agents, timeouts={"write": 0.3})
            with pytest.raises(spawner.AgentTimeout, match=r"timeouts\.write") as caught:
                await sup.spawn(config)
            assert caught.value.which == "write"

    asyncio.run(main())
    assert fleet.gone()


def test_a_slow_reader_has_its_time_for_each_piece(fleet: Fleet) -> None:
    # Taking it all lasts longer than the limit, no piece of it does.
    script = "for i in 1 2 3 4 5 6 7 8; do head -c 65536 > /dev/null; sleep 0.15; done; cat | wc -c"
    config = AgentConfig(
        adapter="raw",
        program="sh",
        args=("-c", script),
        prompt=BIG,
        environment={"FAKE_TRACE": fleet.trace},
        timeouts={"write": 0.8},
    )
    result = run(fleet, config)
    assert result.outcome is Outcome.COMPLETED, result.error
    assert result.duration > 0.8


def test_a_program_that_reads_nothing_is_ended_and_named(fleet: Fleet) -> None:
    config = AgentConfig(
        adapter="raw",
        program="sleep",
        args=("60",),
        prompt=BIG,
        environment={"FAKE_TRACE": fleet.trace},
        timeouts={"write": 0.3},
    )
    result = run(fleet, config)
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.write" in str(result.error)


# -- permission -----------------------------------------------------------------------------------


async def slowly(name: str, given: Mapping[str, Any]) -> bool:
    await asyncio.sleep(1.0)
    return True


@pytest.mark.parametrize("timeouts", [{"turn": 0.7}, {"idle": 0.7}], ids=["turn", "idle"])
def test_the_time_of_whoever_decides_is_not_the_agents(
    fleet: Fleet, timeouts: Mapping[str, Any]
) -> None:
    result = run(fleet, fleet.config("ask 0.1", on_permission=slowly, timeouts=timeouts))
    assert (result.outcome, result.error) == (Outcome.COMPLETED, None)
    assert result.duration > 1.0


def test_after_the_decision_only_the_rest_of_the_turns_time_is_left(fleet: Fleet) -> None:
    began = time.monotonic()
    config = fleet.config("ask 30", on_permission=slowly, timeouts={"turn": 0.7})

    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(config)
            await until(lambda: agent.state is State.WAITING_FOR_PERMISSION)
            await until(lambda: agent.state is State.IN_TURN)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(agent.result(), 3)
            agent.kill()
            assert (await agent.result()).outcome is Outcome.TIMED_OUT

    asyncio.run(main())
    assert time.monotonic() - began > 1.0


def test_a_withdrawn_ask_gives_the_turn_its_clock_back(fleet: Fleet) -> None:
    config = fleet.config("withdraw", on_permission=slowly, timeouts={"turn": 0.5})
    result = run(fleet, config)
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.turn" in str(result.error)


def test_a_limit_on_the_decision_itself_is_kept(fleet: Fleet) -> None:
    config = fleet.config("ask 0", on_permission=slowly, timeouts={"idle": {"permission": 0.2}})
    result = run(fleet, config)
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.idle.permission" in str(result.error)


# -- total ----------------------------------------------------------------------------------------


def test_a_background_task_without_end_is_ended_by_the_limit_of_the_run(fleet: Fleet) -> None:
    result = run(fleet, fleet.config("endless", timeouts={"total": 1.0}))
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.total" in str(result.error)


def test_what_is_said_before_the_limit_of_the_run_stands(fleet: Fleet) -> None:
    timeouts = {"total": 1.5, "after_result": 2.5}
    result = run(fleet, fleet.config("echo done", how="term", timeouts=timeouts))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo done")
    assert result.exit is not None
    assert result.exit.by == "terminate"


def test_an_agent_that_stays_after_its_result_is_made_to_leave(fleet: Fleet) -> None:
    result = run(fleet, fleet.config("echo done", how="stubborn", timeouts={"after_result": 0.1}))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo done")
    assert result.exit is not None
    assert result.exit.by == "kill"


@pytest.mark.parametrize(
    ("timeouts", "which"), [({"idle": 0.3}, "idle.model"), ({"total": 0.6}, "total")]
)
def test_a_session_of_the_synchronous_api_has_them_too(
    agents: Agents, timeouts: Mapping[str, Any], which: str
) -> None:
    name = agents.spawn(timeouts={"startup": 20, **timeouts})
    with pytest.raises((spawner.AgentTimeout, spawner.AgentFailed), match=r"total|idle"):
        agents.say(name, "hang")
    if which == "total":
        assert eventually(lambda: spawner.agent_status(name).state == "ended")


# -- whose fault a silence is ---------------------------------------------------------------------


def test_a_reader_that_does_not_read_makes_no_silence_of_the_agent(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            config = fleet.config("burst 192 65536", overflow="block", timeouts={"idle": 0.4})
            agent = await sup.spawn(config)
            events = aiter(agent)
            await asyncio.sleep(1.0)
            assert sum([1 async for _ in events]) == 194
            assert (await agent.result()).outcome is Outcome.COMPLETED

    asyncio.run(main())


def stopped_for(host: Host, seconds: float) -> None:
    host.signal(signal.SIGSTOP)
    time.sleep(seconds)
    host.signal(signal.SIGCONT)


def test_time_in_which_the_host_was_away_does_not_count(agents: Agents, tmp_path: Path) -> None:
    code = """
spawn("a")
threading.Timer(0.2, lambda: tell(now=True)).start()
try:
    tell(said=say("a", "later 3.2", timeout=2)["result"])
except spawner.AgentTimeout as error:
    tell(said=str(error))
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        stopped_for(host, 2.5)
        assert host.news() == {"said": "later"}
        host.ends()


@pytest.mark.parametrize("limit", ["turn", "idle", "total"])
def test_it_does_not_count_for_a_fleet_on_the_hosts_loop_either(
    agents: Agents, tmp_path: Path, limit: str
) -> None:
    code = f"""
import asyncio

async def main():
    async with spawner.Supervisor({{"memory_reserve": 0, "backend": BACKEND}}) as fleet:
        agent = await fleet.spawn(spawner.AgentConfig(
            program=sys.executable, args=(FAKE,), prompt="later 3.2",
            environment={{"FAKE_TRACE": TRACE}}, timeouts={{"startup": 20, "{limit}": 2.4}}))
        threading.Timer(0.2, lambda: tell(now=True)).start()
        result = await agent.result()
        tell(said=result.result, outcome=result.outcome)

asyncio.run(main())
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        stopped_for(host, 2.5)
        assert host.news() == {"said": "later", "outcome": "completed"}
        host.ends()


def test_what_was_said_in_time_is_read_before_the_limit_is_judged(
    agents: Agents, tmp_path: Path
) -> None:
    code = """
spawn("a")
threading.Timer(0.2, lambda: tell(now=True)).start()
try:
    tell(said=say("a", "later 0.6", timeout=0.9)["result"])
except spawner.AgentTimeout as error:
    tell(said=str(error))
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        # Less than the gap that is forgiven, so that the limit has passed when it goes on.
        stopped_for(host, 0.9)
        assert host.news() == {"said": "later"}
        host.ends()
