"""A CLI that somebody else speaks with: what passes, what it comes to, and what it may not."""

from __future__ import annotations

import asyncio
import functools
import json

import pytest

from fleets import Fleet, until
from vespera_agent_spawner import (
    Agent,
    AgentError,
    AgentFailed,
    ConfigError,
    Outcome,
    RunResult,
    State,
    Supervisor,
    metrics,
)


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
