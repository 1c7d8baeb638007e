"""A CLI that somebody else speaks with: what passes, what it comes to, and what it may not.

Those that the pool keeps have booted, and were told nothing.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from pathlib import Path
from typing import Any

import pytest

from fake_agents import FAKE, eventually
from fleets import Fleet, filled, pids, spares, until
from hosts import Host
from vespera_agent_spawner import (
    Agent,
    AgentConfig,
    AgentError,
    AgentFailed,
    ConfigError,
    Event,
    Outcome,
    RunResult,
    State,
    Supervisor,
    metrics,
    pool,
)
from vespera_agent_spawner.pool import key_of


def prompt(text: str) -> bytes:
    user = {"type": "user", "message": {"role": "user", "content": text}}
    return json.dumps(user).encode() + b"\n"


async def relayed(sup: Supervisor, fleet: Fleet) -> Agent:
    return await sup.spawn(fleet.config()._with(adapter="relay"))


def test_lines_of_a_relayed_cli_pass_as_they_are(fleet: Fleet) -> None:
    async def main(sup: Supervisor) -> None:
        runs = 'vespera_runs_total{outcome="completed"}'
        before = metrics()
        agent = await sup.spawn(fleet.config()._with(adapter="relay"))
        assert agent.state is State.READY
        hello = {"type": "control_request", "request_id": "mine", "request": {}}
        hello["request"] = {"subtype": "initialize"}
        user = {"type": "user", "uuid": "u1", "message": {"role": "user", "content": "permission"}}
        agent.write(f"{json.dumps(hello)}\n{json.dumps(user)}\n".encode())
        seen = []
        async for event in agent:
            seen.append((event.kind, event.data.get("request_id")))
            if event.kind == "control_request":
                inside = {"subtype": "success", "response": {}}
                inside["request_id"] = event.data["request_id"]
                frame = {"type": "control_response", "response": inside}
                agent.write(json.dumps(frame).encode() + b"\n")
            if event.kind == "result":
                agent.end_input()
        kinds = [kind for kind, _ in seen]
        assert kinds[0] == "control_response"
        assert kinds.count("control_request") == 2
        result = await agent.result()
        assert (result.outcome, result.turns) == (Outcome.COMPLETED, 1)
        assert metrics()[runs] == before.get(runs, 0.0) + 1

    async def outer() -> None:
        async with fleet.supervisor() as sup:
            await main(sup)

    asyncio.run(outer())


def test_a_relayed_cli_has_no_turns_of_ours(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config()._with(adapter="relay"))
            with pytest.raises(AgentFailed, match="relayed"):
                await agent.run("hello")
            with pytest.raises(AgentFailed, match="answers no requests"):
                await agent.set_model("m")
            with pytest.raises(ConfigError, match="prompt"):
                await sup.spawn(fleet.config("hello")._with(adapter="relay", agent_id="other"))
            chat = await sup.spawn(fleet.config())
            with pytest.raises(AgentFailed, match="adapter 'relay'"):
                chat.write(b"{}\n")

    asyncio.run(main())


def test_a_relayed_cli_pays_from_the_fleets_budget(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(budget={"usd": 0.2}) as sup:
            agent = await sup.spawn(fleet.config()._with(adapter="relay"))
            agent.write(prompt("echo hello"))
            agent.end_input()
            assert (await agent.result()).cost_usd == 0.25
            with pytest.raises(AgentError, match=r"budget\.usd"):
                await sup.spawn(fleet.config())

    asyncio.run(main())


def test_limits_of_time_hold_for_a_relayed_cli(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            config = fleet.config()._with(adapter="relay", timeouts={"total": 0.3})
            agent = await sup.spawn(config)
            result = await agent.result()
            assert result.exit is not None
            assert "total time-out" in result.exit.reason
            assert result.outcome is Outcome.TIMED_OUT
            assert "timeouts.total" in str(result.error)

    asyncio.run(main())


def has_answered(agent: Agent, times: int) -> bool:
    return agent.info().turns == times


def says(fleet: Fleet, *prompts: str) -> RunResult:
    """The result of a CLI that is told these, one after the other."""

    async def main() -> RunResult:
        async with fleet.supervisor(on_auth_failure="continue") as sup:
            agent = await relayed(sup, fleet)
            for number, text in enumerate(prompts, 1):
                agent.write(prompt(text))
                await until(functools.partial(has_answered, agent, number))
            agent.end_input()
            result = await agent.result()
            assert result.outcome is agent.info().outcome
            return result

    return asyncio.run(main())


def test_its_result_is_the_last_that_it_told(fleet: Fleet) -> None:
    counted = ("vespera_cost_usd_total", 'vespera_tokens_total{direction="output"}')
    before = [metrics().get(name, 0.0) for name in counted]
    result = says(fleet, "fail", "echo a")
    assert (result.outcome, result.result, result.error) == (Outcome.COMPLETED, "echo a", None)
    assert (result.turns, result.cost_usd) == (2, 0.5)
    assert result.usage == {"input_tokens": 3, "output_tokens": 5}
    after = [metrics()[name] for name in counted]
    assert [one - other for one, other in zip(after, before, strict=True)] == [0.5, 10.0]


def test_a_refusal_that_it_told_is_its_outcome(fleet: Fleet) -> None:
    result = says(fleet, "echo a", "fail")
    assert result.outcome is Outcome.AUTH_FAILED
    assert result.error == "the model said no (HTTP 401)"
    result = says(fleet, "loggedout")
    assert result.outcome is Outcome.AUTH_FAILED
    assert result.error == "the service said: Not logged in · Please run /login"


def test_its_refusal_stops_the_fleet(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await relayed(sup, fleet)
            agent.write(prompt("fail"))
            places = sup._places
            await until(lambda: places.closed is not None)
            assert agent.state is State.READY
            with pytest.raises(AgentError, match="could not authenticate") as caught:
                await relayed(sup, fleet)
            assert caught.value.code == "auth_failed"

    asyncio.run(main())


def test_an_earlier_result_is_not_that_of_a_turn_that_was_cut_off(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await relayed(sup, fleet)
            agent.write(prompt("echo a"))
            await until(lambda: agent.info().turns == 1)
            agent.write(prompt("hang"))
            await asyncio.sleep(0.2)
            agent.kill()
            result = await agent.result()
            assert (result.outcome, result.result) == (Outcome.KILLED, None)
            assert (result.turns, result.cost_usd) == (1, 0.25)

    asyncio.run(main())


# -- from the pool ---------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake has booted after some milliseconds."""
    monkeypatch.setattr(pool, "_BOOT", 0.2)


def relay(fleet: Fleet, how: str = "", *args: str, **fields: Any) -> AgentConfig:
    command = (str(FAKE), "--input-format", "stream-json", *args)
    return fleet.config(None, how)._with(adapter="relay", args=command, **fields)


def lines(*frames: Any) -> bytes:
    return b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)


def said(text: str) -> dict[str, Any]:
    return {"type": "user", "uuid": "u", "message": {"role": "user", "content": text}}


GREETING = {"type": "control_request", "request_id": "mine", "request": {"subtype": "initialize"}}


async def told(agent: Agent, *frames: Any) -> list[Event]:
    """Says these, ends the input and hears everything."""
    agent.write(lines(*frames))
    agent.end_input()
    return [event async for event in agent]


async def warmed(sup: Supervisor, config: AgentConfig, count: int = 1) -> set[int]:
    await told(await sup.spawn(config))
    await filled(sup, count)
    return pids(sup)


@pytest.mark.usefixtures("quick")
def test_a_claimed_relayed_cli_is_like_one_that_started_cold(fleet: Fleet) -> None:
    runs = 'vespera_runs_total{outcome="completed"}'

    async def one(sup: Supervisor, agent_id: str) -> tuple[Any, int | None]:
        before = metrics().get(runs, 0.0)
        agent = await sup.spawn(relay(fleet, agent_id=agent_id))
        assert agent.state is State.READY
        info = agent.info()
        assert (agent.agent_id, info.agent_id, info.turns) == (agent_id, agent_id, 0)
        assert abs(time.time() - info.started_at) < 0.5
        events = await told(agent, GREETING, said("echo a"), said("fail"), said("echo b"))
        result = await agent.result()
        assert metrics()[runs] == before + 1
        assert result.time_to_first_output is not None
        assert result.time_to_first_output < result.duration
        # Nobody waits for a turn of ours, so that none has failed.
        assert agent._live.take_turn() is None
        kinds = [(event.kind, event.text) for event in events]
        words = (result.outcome, result.result, result.turns, result.cost_usd, result.usage)
        return (kinds, words, agent.info().outcome, result.exit), agent.pid

    async def main() -> None:
        async with fleet.supervisor(warm=1, on_auth_failure="continue") as sup:
            cold, _ = await one(sup, "cold")
            await filled(sup, 1)
            waiting = pids(sup)
            # It waits a little, as its clock would show.
            await asyncio.sleep(0.6)
            warm, pid = await one(sup, "warm")
            assert pid in waiting
            assert warm == cold
            assert warm[1][:3] == (Outcome.COMPLETED, "echo b", 3)

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("how", "begins"),
    [("hooked", ["system", "control_request", "system"]), ("gabby", ["system"] * 64)],
)
def test_what_a_relayed_cli_says_of_its_start_is_its_owners(
    fleet: Fleet, how: str, begins: list[str]
) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            waiting = await warmed(sup, relay(fleet, how))
            (spare,) = spares(sup)
            await until(lambda: spare.session.backlog()[0] == len(begins))
            agent = await sup.spawn(relay(fleet, how))
            assert agent.pid in waiting
            kinds = [event.kind for event in await told(agent, GREETING, said("echo a"))]
            assert kinds == [*begins, "control_response", "system", "assistant", "result"]
            if how == "hooked":
                assert "a hook was slow" in agent.stderr_tail

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_a_relayed_cli_that_speaks_unasked_is_not_handed_out(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=2) as sup:
            await (await sup.spawn(relay(fleet, "noise"))).shutdown()
            assert sup._pool is not None
            kept = sup._pool
            await until(lambda: bool(kept._broken) and spares(sup) == [])
            agent = await sup.spawn(relay(fleet, "noise"))
            kinds = [event.kind for event in await told(agent, GREETING, said("echo a"))]
            assert kinds[:4] == ["output", "output", "system", "control_response"]
            assert spares(sup) == []

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_a_relayed_cli_that_spoke_while_the_loop_was_busy_is_not_handed_out(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            waiting = await warmed(sup, relay(fleet))
            (spare,) = spares(sup)
            if fleet.backend == "python":
                spare.session.event("output", b"hello", 5, None)
            else:
                # What it reads is answered; the loop hears of nothing meanwhile.
                spare.session.write(lines(GREETING))
                assert eventually(lambda: spare.session.backlog()[0] == 1)
            agent = await sup.spawn(relay(fleet))
            assert agent.pid not in waiting

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_the_limit_of_a_relayed_cli_begins_with_its_owner(fleet: Fleet) -> None:
    async def main() -> None:
        config = relay(fleet, timeouts={"total": 0.8})
        async with fleet.supervisor(warm=1) as sup:
            waiting = await warmed(sup, config)
            await asyncio.sleep(1.2)
            agent = await sup.spawn(config)
            assert agent.pid in waiting
            agent.write(lines(GREETING, said("hang")))
            result = await agent.result()
            assert result.outcome is Outcome.TIMED_OUT
            assert 0.7 < result.duration < 8

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("prompt", ["die", "crash", "leave"])
def test_a_claimed_relayed_cli_that_misbehaves_ends_like_any_other(
    fleet: Fleet, prompt: str
) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            ends = []
            for _ in range(2):
                agent = await sup.spawn(relay(fleet))
                await told(agent, GREETING, said(prompt))
                result = await agent.result()
                ends.append((result.outcome, result.exit, result.error, result.orphans_reaped))
                await filled(sup, 1)
            assert ends[0] == ends[1]

    asyncio.run(main())
    assert fleet.gone()


@pytest.mark.usefixtures("quick")
def test_relayed_clis_are_started_ahead_for_those_who_wait(fleet: Fleet) -> None:
    async def main() -> None:
        # Dollars are counted at its end and change nothing of its command line.
        async with fleet.supervisor(warm=1, max_agents=1, budget={"usd": 9}) as sup:
            first = await sup.spawn(relay(fleet))
            waits = asyncio.ensure_future(sup.spawn(relay(fleet, environment={"OTHER": "1"})))
            await until(lambda: sup.waiting == 1)
            ((config, _, counting),) = sup._next_ones(1)
            key = key_of(config, counting=counting)
            await until(lambda: [spare.key for spare in spares(sup)] == [key])
            await filled(sup, 1)
            waiting = pids(sup)
            await first.shutdown()
            agent = await waits
            assert agent.pid in waiting
            await told(agent, GREETING, said("echo a"))
            assert (await agent.result()).cost_usd == 0.25
            assert sup._purse is not None
            assert sup._purse.left_usd == 8.75

    asyncio.run(main())
    assert fleet.gone()


KILLED = """
import asyncio
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig

async def main():
    config = AgentConfig(
        adapter="relay",
        program=sys.executable,
        args=(FAKE, "--input-format", "stream-json"),
        environment={"FAKE_TRACE": TRACE},
    )
    async with Supervisor(SupervisorConfig(backend=BACKEND, memory_reserve=0, warm=2)) as sup:
        await (await sup.spawn(config)).shutdown()
        while len(sup._pool) < 2 or not all(one.session.pid for one in sup._pool._spares):
            await asyncio.sleep(0.02)
        tell(pids=[one.session.pid for one in sup._pool._spares])
        await asyncio.sleep(60)

asyncio.run(main())
"""


def test_a_killed_host_leaves_none_that_waits(fleet: Fleet, tmp_path: Path) -> None:
    if fleet.backend == "python":
        pytest.skip("the Python backend cannot act once its host is killed")
    with Host(fleet.backend, fleet.trace, KILLED, tmp_path) as host:
        assert len(host.news()["pids"]) == 2
        host.process.kill()
        host.process.wait()
        assert fleet.gone()
