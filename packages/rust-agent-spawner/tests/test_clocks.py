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
from fleets import ASK, DONE, TASK, Fleet, play, until
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


# For the start of an interpreter too, on a machine that has other things to do.
SHORT = 0.9


async def slowly(name: str, given: Mapping[str, Any]) -> bool:
    await asyncio.sleep(1.2)
    return True


@pytest.mark.parametrize("which", ["turn", "idle", "total"])
def test_the_time_of_whoever_decides_is_not_the_agents(fleet: Fleet, which: str) -> None:
    config = fleet.config("ask 0.1", on_permission=slowly, timeouts={which: SHORT})
    result = run(fleet, config)
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


def test_after_the_decision_only_the_rest_of_the_runs_time_is_left(fleet: Fleet) -> None:
    config = fleet.config("ask 30", on_permission=slowly, timeouts={"total": SHORT})
    result = run(fleet, config)
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.total" in str(result.error)
    assert 1.2 + SHORT / 2 < result.duration < 10


def test_the_run_waits_for_a_background_tasks_ask_too(fleet: Fleet) -> None:
    prompt = play(TASK, "echo first", ASK, "hear", DONE)
    config = fleet.config(prompt, on_permission=slowly, timeouts={"total": SHORT})
    # The quiet after the task is as long as any.
    result = run(fleet, config)
    assert result.outcome is Outcome.TIMED_OUT
    assert 1.2 + SHORT / 2 < result.duration < 10


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


# -- silence --------------------------------------------------------------------------------------

KEEP_ALIVE = {"type": "keep_alive"}


def test_a_keep_alive_is_no_sign_of_life(fleet: Fleet) -> None:
    alive = [KEEP_ALIVE, 0.2] * 20
    result = run(fleet, fleet.config(play(*alive, "echo late"), timeouts={"idle": 0.8}))
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.idle.model" in str(result.error)


def test_a_keep_alive_does_not_put_off_the_end_of_a_run(fleet: Fleet) -> None:
    prompt = play(TASK, DONE, "echo done", *[KEEP_ALIVE, 0.5] * 16)
    result = run(fleet, fleet.config(prompt, timeouts={"after_result": 0.2}))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo done")
    assert result.duration < 7


def using(**tools: str) -> dict[str, Any]:
    used = [{"type": "tool_use", "id": of, "name": tools[of], "input": {}} for of in tools]
    return {"type": "assistant", "message": {"content": used}}


@pytest.mark.parametrize("order", [("zz", "aa"), ("aa", "zz")])
def test_of_several_tools_the_most_patient_limit_counts(
    fleet: Fleet, order: tuple[str, str]
) -> None:
    slow, fast = order
    for tools in ({slow: "Bash", fast: "mcp__x__y"}, {fast: "mcp__x__y", slow: "Bash"}):
        limits = {"model": 0.8, "tool": 1.3, "mcp": 0.4}
        config = fleet.config(play(using(**tools), "hang"), timeouts={"idle": limits})
        result = run(fleet, config)
        assert "within 1.3 s (timeouts.idle.tool)" in str(result.error)
        del limits["tool"]
        config = fleet.config(play(using(**tools), 1.2, "echo done"), timeouts={"idle": limits})
        result = run(fleet, config)
        assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo done")


def test_a_limit_for_the_model_alone_leaves_tools_their_time(fleet: Fleet) -> None:
    prompt = play(using(aa="Bash"), 1.4, "echo done")
    result = run(fleet, fleet.config(prompt, timeouts={"idle": {"model": 0.8}}))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo done")


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


def test_it_does_not_count_for_who_waits_for_a_place_either(agents: Agents, tmp_path: Path) -> None:
    code = """
import asyncio

def config(**fields):
    return spawner.AgentConfig(program=sys.executable, args=(FAKE,),
        environment={"FAKE_TRACE": TRACE}, **fields)

async def main():
    fields = {"memory_reserve": 0, "backend": BACKEND, "max_agents": 1}
    async with spawner.Supervisor(fields) as fleet:
        first = await fleet.spawn(config())
        waiting = asyncio.ensure_future(fleet.spawn(config(timeouts={"queue": 2.4})))
        await asyncio.sleep(0.2)
        threading.Timer(0.2, lambda: tell(now=True)).start()
        await asyncio.sleep(1.0)
        await first.shutdown(1)
        try:
            await waiting
            tell(said="a place")
        except spawner.AgentTimeout as error:
            tell(said=str(error))

asyncio.run(main())
"""
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        stopped_for(host, 3.5)
        assert host.news() == {"said": "a place"}
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
