"""What agents and fleets may spend: counted by difference, stopped in the middle, told in words."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fleets import Fleet
from vespera_agent_spawner import Agent, AgentConfig, Budget, Outcome, RunResult
from vespera_agent_spawner.errors import AgentBusy, BudgetExceeded, ConfigError
from vespera_agent_spawner.results import TurnResult
from vespera_agent_spawner.spending import Meter, Purse, tokens_of


def runs(fleet: Fleet, configs: list[AgentConfig], **supervisor: Any) -> list[RunResult]:
    async def main() -> list[RunResult]:
        async with fleet.supervisor(**supervisor) as sup:
            return await sup.run(configs)

    return asyncio.run(main())


def test_an_agent_is_stopped_in_the_middle_of_its_turn(fleet: Fleet) -> None:
    (result,) = runs(fleet, [fleet.config("spend 500", budget={"tokens": 1000})])
    assert result.outcome is Outcome.BUDGET_EXCEEDED
    assert "the agent's budget.tokens=1000 are used (1000)" in str(result.error)
    assert result.duration < 8


def test_what_stays_within_its_budget_is_not_touched(fleet: Fleet) -> None:
    (result,) = runs(fleet, [fleet.config("spend 5", budget={"tokens": 501, "usd": 1})])
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "spent")


def test_a_result_that_spends_the_last_of_it_is_a_result(fleet: Fleet) -> None:
    (result,) = runs(fleet, [fleet.config("echo a", budget={"usd": 0.25, "tokens": 8})])
    assert (result.outcome, result.cost_usd) == (Outcome.COMPLETED, 0.25)


def test_a_session_takes_no_turn_that_nothing_is_left_for(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(budget={"usd": 0.5}))
            assert (await chat.run("echo a")).outcome is Outcome.COMPLETED
            assert (await chat.run("echo b")).outcome is Outcome.COMPLETED
            with pytest.raises(BudgetExceeded, match=r"budget.usd=0.5 is spent \(0.5000 USD\)"):
                await chat.run("echo c")
            await chat.shutdown()
            chat = await sup.spawn(fleet.config(budget={"tokens": 300}))
            stopped = await chat.run("spend 500")
            assert stopped.outcome is Outcome.BUDGET_EXCEEDED
            assert "tokens=300" in str(stopped.error)
            with pytest.raises(BudgetExceeded):
                await chat.send("echo d")
            await chat.shutdown()

    asyncio.run(main())


@pytest.mark.parametrize("budget", [{"usd": 0}, {"tokens": 0}])
def test_where_nothing_may_be_spent_nothing_starts(fleet: Fleet, budget: dict[str, int]) -> None:
    spent = f"budget.{next(iter(budget))}=0 "

    async def main() -> None:
        before = spawns()
        async with fleet.supervisor() as sup:
            config = fleet.config("echo a", budget=budget)
            results = await sup.run([config, config])
            with pytest.raises(BudgetExceeded, match=spent):
                await sup.spawn(fleet.config(budget=budget))
        async with fleet.supervisor(budget=budget) as sup:
            results += await sup.run([fleet.config("echo a"), fleet.config("echo b")])
            with pytest.raises(BudgetExceeded, match=spent):
                await sup.spawn(fleet.config())
        assert [result.outcome for result in results] == [Outcome.BUDGET_EXCEEDED] * 4
        assert all(spent in str(result.error) for result in results)
        assert spawns() == before

    def spawns() -> float:
        told = spawner.metrics()
        return sum(told[name] for name in told if name.startswith("vespera_spawns_total"))

    asyncio.run(main())


def test_a_session_that_goes_on_at_each_result_stays_within_its_budget(fleet: Fleet) -> None:
    async def main() -> tuple[int, float | None]:
        turns = 0
        async with fleet.supervisor(budget={"usd": 1}) as sup:
            chat = await sup.spawn(fleet.config())
            await chat.send("echo a")
            async for event in chat:
                if event.kind != "result":
                    continue
                turns += 1
                if turns == 9:
                    break
                try:
                    await sent(chat)
                except BudgetExceeded:
                    break
            return turns, chat.info().cost_usd

    async def sent(chat: Agent) -> None:
        while True:
            try:
                return await chat.send("echo b")
            except AgentBusy:
                await asyncio.sleep(0)

    assert asyncio.run(asyncio.wait_for(main(), 30)) == (4, 1.0)


def test_a_fleet_that_has_spent_its_budget_stops_and_starts_nothing(fleet: Fleet) -> None:
    configs = [fleet.config("spend 500") for _ in range(3)] + [fleet.config("echo a")]
    results = runs(fleet, configs, budget={"tokens": 2000}, max_agents=3)
    assert [result.outcome for result in results] == [Outcome.BUDGET_EXCEEDED] * 4
    assert all("budget.tokens=2000" in str(result.error) for result in results)
    assert results[3].session_id == ""


def test_a_fleet_spends_dollars_by_results_and_tells_each_cli_what_is_left(fleet: Fleet) -> None:
    configs = [fleet.config("echo a"), fleet.config("argv"), fleet.config("echo b")]
    first, second, third = runs(fleet, configs, budget={"usd": 0.5}, max_agents=1)
    assert first.outcome is second.outcome is Outcome.COMPLETED
    assert "--max-budget-usd=0.25" in json.loads(second.result or "")
    assert third.outcome is Outcome.BUDGET_EXCEEDED


def test_retries_are_paid_from_one_budget(fleet: Fleet) -> None:
    retry = {"attempts": 5, "backoff": 0.01, "on": ["failed"]}
    config = fleet.config("speak-and-die", budget={"usd": 9, "tokens": 7}, retry=retry)
    (result,) = runs(fleet, [config])
    assert (result.attempts, result.outcome) == (2, Outcome.COMPLETED)


@pytest.mark.parametrize(
    ("how", "fork", "costs"),
    [("restores", False, 0.25), ("restores", True, 0.25), ("restores-silently", False, 1.25)],
)
def test_what_a_session_has_cost_before_is_not_spent_again(
    fleet: Fleet, how: str, fork: bool, costs: float
) -> None:
    """The CLI's total goes on with the session. One that does not say counts too much."""
    resumed = {"resume": str(uuid.uuid4()), "fork_session": fork}
    before = spawner.metrics().get("vespera_cost_usd_total", 0.0)

    async def main() -> None:
        async with fleet.supervisor(budget={"usd": 9}) as sup:
            (result,) = await sup.run([fleet.config("echo a", how, **resumed)])
            assert (result.cost_usd, result.total_cost_usd) == (costs, 1.25)
            chat = await sup.spawn(fleet.config(None, how, **resumed))
            turns = [(await chat.run("echo a")).cost_usd for _ in range(2)]
            assert turns == [costs, 0.25]
            assert (chat.info().cost_usd, chat.info().total_cost_usd) == (costs + 0.25, 1.5)
            assert sup._purse is not None
            assert sup._purse.usd == 2 * costs + 0.25
            await chat.shutdown()

    asyncio.run(main())
    assert spawner.metrics()["vespera_cost_usd_total"] - before == 2 * costs + 0.25


def test_a_retry_counts_what_it_has_cost_itself(fleet: Fleet) -> None:
    retry = {"attempts": 2, "backoff": 0.01, "on": ["failed"]}
    (result,) = runs(fleet, [fleet.config("speak-and-die", "restores", retry=retry)])
    assert (result.attempts, result.cost_usd, result.total_cost_usd) == (2, 0.25, 1.25)


def test_a_program_has_no_budget(fleet: Fleet) -> None:
    config = AgentConfig(adapter="raw", program="true", budget={"usd": 1})
    (result,) = runs(fleet, [config])
    assert result.outcome is Outcome.SPAWN_FAILED
    assert "budget: adapter 'raw' has no such setting" in str(result.error)
    (result,) = runs(fleet, [AgentConfig(adapter="raw", program="true")], budget={"usd": 1})
    assert result.outcome is Outcome.COMPLETED


def turn(tokens: int, usd: float) -> TurnResult:
    return {  # type: ignore[typeddict-item]
        "usage": {"input_tokens": tokens, "output_tokens": 0},
        "cost_usd": usd,
    }


def frame(name: str, tokens: Any) -> dict[str, Any]:
    return {"message": {"id": name, "usage": {"input_tokens": tokens}}}


def test_frames_of_one_message_count_once_and_the_result_has_the_last_word() -> None:
    purse = Purse(Budget(tokens=100), "budget", lambda words: None)
    meter = Meter([purse])
    for name, tokens in (("a", 10), ("a", 10), ("a", 12), ("b", 5)):
        assert meter.message(frame(name, tokens)) is None
    assert purse.tokens == 17
    # What the result tells includes requests whose frames were never shown.
    assert meter.turn(turn(40, 0.5)) is None
    assert (purse.tokens, purse.usd) == (40, 0.5)
    assert meter.message(frame("a", 59)) is None
    assert "tokens=100 are used (100)" in str(meter.message(frame("c", 1)))


@pytest.mark.parametrize("usage", [None, 3, "x", {}, {"input_tokens": "9"}, {"input_tokens": -4}])
def test_a_usage_that_is_none_counts_nothing(usage: Any) -> None:
    assert tokens_of(usage) == 0
    meter = Meter([Purse(Budget(tokens=1), "budget", lambda words: None)])
    assert meter.message({"message": {"usage": usage}}) is None
    assert meter.message({"message": usage}) is None


def test_fast_spending_is_told_once_in_its_window() -> None:
    now, told = [0.0], list[str]()
    purse = Purse(Budget(usd_per_hour=10), "budget", told.append, clock=lambda: now[0])
    for _ in range(60):
        now[0] += 10
        purse.spend(0.02, 0)  # 7.2 USD per hour
    assert told == []
    for _ in range(30):
        now[0] += 10
        purse.spend(0.2, 0)
    assert len(told) == 1
    assert "usd_per_hour=10" in told[0]
    now[0] += 600
    purse.spend(5, 0)
    assert len(told) == 2


def test_the_alarm_is_a_warning_and_stops_nothing(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "vespera"):
        results = runs(fleet, [fleet.config("echo a")] * 2, budget={"usd_per_hour": 1})
    assert [result.outcome for result in results] == [Outcome.COMPLETED] * 2
    assert caplog.text.count("more than budget.usd_per_hour=1") == 1


def test_a_budget_that_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ConfigError) as caught:
        AgentConfig(budget={"usd": -1})
    assert caught.value.field == "budget.usd"
