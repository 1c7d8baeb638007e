"""Traps of agent CLIs: what their frames say between the lines, and what their users suffered.

`tests/repo/traps.toml` says which test stands for which trap; here are those that belong nowhere
else.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest

from fleets import ASK, DONE, TASK, Fleet, play, said_to, until
from vespera_agent_spawner import AgentConfig, Event, Outcome, RunResult, State
from vespera_agent_spawner.errors import SpawnError


def run(fleet: Fleet, *configs: AgentConfig, **fleet_wide: Any) -> list[RunResult]:
    async def main() -> list[RunResult]:
        async with fleet.supervisor(**fleet_wide) as sup:
            results = await asyncio.wait_for(sup.run(configs), 60)
        assert await asyncio.to_thread(fleet.gone)
        return results

    return asyncio.run(main())


# -- results, and what comes after them ---------------------------------------------------------


def test_a_second_result_and_a_second_init_belong_to_the_run(fleet: Fleet) -> None:
    [result] = run(fleet, fleet.config("twice"))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "second")
    assert result.turns == 2
    # Both results tell the total so far.
    assert result.cost_usd == 0.5


def test_a_background_task_without_a_result_of_its_own_ends_the_run_too(fleet: Fleet) -> None:
    [result] = run(fleet, fleet.config("quiet-task"))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "the only one")


def test_a_result_that_answers_another_prompt_does_not_end_a_run(fleet: Fleet) -> None:
    prompt = play(said_to("somebody-else", "of a background task"), 1.0, "echo mine")
    [result] = run(fleet, fleet.config(prompt, timeouts={"after_result": 0.3}))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo mine")
    assert result.turns == 1


def test_stdin_stays_open_for_the_asks_of_a_background_task(fleet: Fleet) -> None:
    denied, allowed = run(
        fleet,
        fleet.config("late-ask"),
        fleet.config("late-ask", on_permission=lambda *_: True),
    )
    assert (denied.outcome, denied.result) == (Outcome.COMPLETED, "deny")
    assert (allowed.outcome, allowed.result) == (Outcome.COMPLETED, "allow")


async def slowly(*_: object) -> bool:
    await asyncio.sleep(0.4)
    return True


def test_an_ask_that_is_open_at_the_result_is_answered_all_the_same(fleet: Fleet) -> None:
    ends = [DONE, said_to("of-the-task", "the task is done")]
    prompt = play(TASK, ASK, "echo first", "hear", *ends)
    config = fleet.config(prompt, on_permission=slowly, timeouts={"total": 20})
    [result] = run(fleet, config)
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "the task is done")


def test_an_ask_that_is_open_at_the_result_does_not_hold_the_next_turns_clock(
    fleet: Fleet,
) -> None:
    async def main() -> None:
        decide = asyncio.Event()

        async def decided(tool: str, given: Mapping[str, Any]) -> bool:
            await (asyncio.sleep(0) if given else decide.wait())
            return True

        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(on_permission=decided))
            await chat.run(play(ASK, "echo first"))
            other: dict[str, Any] = {**ASK, "request_id": "ask-2"}
            other["request"] = {**other["request"], "input": {"command": "id"}}
            late = await chat.run(play(other, "hear", "hang"), timeout=0.5)
            assert (late.outcome, chat.state) == (Outcome.TIMED_OUT, State.READY)
            heard = asyncio.ensure_future(chat.run(play("hear", "echo heard")))
            await asyncio.sleep(0.1)
            decide.set()
            assert (await heard).result == "echo heard"

    asyncio.run(main())


def test_an_answer_that_comes_after_the_end_of_the_input_harms_nobody(fleet: Fleet) -> None:
    # It takes its time to leave, and is let.
    [result] = run(fleet, fleet.config(play(ASK, "echo done", 3.2), on_permission=slowly))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo done")
    assert result.exit is not None
    assert (result.exit.by, result.exit.code) == ("agent", 0)


@pytest.mark.parametrize("prompt", ["stay", "over-and-over"])
def test_a_process_that_stays_after_its_result_is_ended(fleet: Fleet, prompt: str) -> None:
    [result] = run(fleet, fleet.config(prompt, timeouts={"after_result": 0.2}))
    assert result.outcome is Outcome.COMPLETED
    assert result.exit is not None
    assert result.exit.by in ("terminate", "kill")


def test_a_budget_that_trips_in_a_subagent_hangs_nobody(fleet: Fleet) -> None:
    [result] = run(fleet, fleet.config("over-budget", timeouts={"after_result": 0.2}))
    assert result.outcome is Outcome.BUDGET_EXCEEDED


# -- a service that says no ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (401, Outcome.AUTH_FAILED),
        (403, Outcome.AUTH_FAILED),
        (429, Outcome.RATE_LIMITED),
        (529, Outcome.RATE_LIMITED),
        (500, Outcome.TIMED_OUT),
    ],
)
def test_endless_retries_end_at_the_turns_limit_and_say_why(
    fleet: Fleet, status: int, outcome: Outcome
) -> None:
    config = fleet.config(f"retry {status} 2 500", timeouts={"turn": 0.3})
    [result] = run(fleet, config, on_auth_failure="continue")
    assert result.outcome is outcome
    assert f"HTTP {status}" in str(result.error)
    assert "timeouts.turn" in str(result.error)


# -- asks ---------------------------------------------------------------------------------------


def test_the_time_of_whoever_decides_is_not_the_agents(fleet: Fleet) -> None:
    async def think(*_: object) -> bool:
        await asyncio.sleep(0.8)
        return True

    config = fleet.config("permission", timeouts={"turn": 0.5}, on_permission=think)
    [result] = run(fleet, config)
    assert result.outcome is Outcome.COMPLETED


def test_a_withdrawn_ask_leaves_the_turn_its_limit(fleet: Fleet) -> None:
    async def think(*_: object) -> bool:
        await asyncio.sleep(30)
        return True

    config = fleet.config("withdraw", timeouts={"turn": 0.3}, on_permission=think)
    [result] = run(fleet, config)
    assert result.outcome is Outcome.TIMED_OUT


@pytest.mark.parametrize("overflow", ["spill", "drop_oldest"])
def test_a_consumer_that_stops_reading_does_not_keep_the_agents_asks(
    fleet: Fleet, overflow: str
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(overflow=overflow))
            events = aiter(chat)
            # Eight megabytes that nobody reads, an ask behind each.
            result = await asyncio.wait_for(chat.run("pester 128 65536"), 60)
            assert result.result == "all answered"
            turn = asyncio.ensure_future(chat.run("hang"))
            await until(lambda: chat.state is State.IN_TURN)
            await chat.interrupt()
            assert (await asyncio.wait_for(turn, 30)).outcome is Outcome.CANCELLED
            del events

    asyncio.run(main())


# -- pipes --------------------------------------------------------------------------------------


def test_both_sides_may_say_more_than_a_pipe_holds_at_once(fleet: Fleet) -> None:
    prompt = "both-ways " + "p" * (4 << 20)
    results = run(fleet, fleet.config(prompt), fleet.config(prompt, how="gabby"))
    assert [result.result for result in results] == [str(len(prompt))] * 2


def test_an_agent_that_reads_nothing_is_ended_at_the_write_limit(fleet: Fleet) -> None:
    prompt = "echo " + "p" * (4 << 20)
    [result] = run(fleet, fleet.config(prompt, how="unread", timeouts={"write": 0.3}))
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.write" in str(result.error)


# -- frames that look unlike any that were seen -------------------------------------------------

ODD: list[tuple[str, Mapping[str, Any]]] = [
    ('{"type":"assistant","subtype":7,"uuid":[],"session_id":{}}', {"kind": "assistant"}),
    ('{"type":"assistant","uuid":"u","uuid":"v"}', {"kind": "assistant", "uuid": "v"}),
    ('{"type":"system","task_id":5,"subtype":"task_started"}', {"subtype": "task_started"}),
    ('{"type":"system","patch":"x","subtype":"task_updated","task_id":"t"}', {"kind": "system"}),
    ('{"type":"user","message":null}', {"kind": "user"}),
    ('{"type":"user","message":"text"}', {"kind": "user"}),
    ('{"type":"user","message":{"content":{"a":1}}}', {"kind": "user"}),
    ('{"type":"tomorrow","request":"x","response":[1],"request_id":9}', {"kind": "tomorrow"}),
    ('{"type":"control_response","response":null}', {}),
    ('{"type":"control_cancel_request","request_id":4}', {"kind": "control_cancel_request"}),
    ('{"type":"conversation_reset","new_conversation_id":3}', {"kind": "conversation_reset"}),
    ('{"type":"rate_limit_event","rate_limit_info":7}', {"kind": "rate_limit_event"}),
    (
        (
            '{"type":"assistant","message":{"content":[{"type":"text","text":"a"},5,'
            '{"type":"text","text":7},{"type":"text","text":"b"}]}}'
        ),
        {"text": "ab"},
    ),
    (
        (
            '{"type":"assistant","message":{"content":[{"type":"tool_use","name":"Bash"},'
            '{"type":3,"name":"no"}]}}'
        ),
        {"tool_name": "Bash"},
    ),
    (
        (
            '{"type":"user","message":{"content":[{"type":"tool_result","is_error":"yes"},'
            '{"type":"tool_result","is_error":true}]}}'
        ),
        {"is_error": True},
    ),
    ('{"type":["assistant"]}', {"kind": "output"}),
    ('{"type":null}', {"kind": "output"}),
]
NAMES = ("kind", "subtype", "text", "tool_name", "uuid", "session_id", "is_error")


def program(fleet: Fleet, lines: list[str]) -> AgentConfig:
    """A run whose CLI says these lines in its turn."""
    return fleet.config("say " + json.dumps(lines))


async def events_of(fleet: Fleet, lines: list[str]) -> tuple[list[Event], RunResult]:
    said = json.dumps({"type": "result", "subtype": "success", "result": "said"})
    lines = [*lines, said]
    async with fleet.supervisor() as sup:
        agent = await sup.spawn(program(fleet, lines))
        events = [event async for event in agent]
        return events, await agent.result()


def test_fields_of_an_unexpected_type_cost_no_frame(fleet: Fleet) -> None:
    events, result = asyncio.run(events_of(fleet, [line for line, _ in ODD]))
    assert (result.outcome, result.result) == (Outcome.COMPLETED, "said")
    told = {event.raw.decode(): event for event in events}
    for line, expected in ODD:
        if not expected:
            assert line not in told
            continue
        event = told[line]
        seen = {name: getattr(event, name) for name in NAMES}
        assert expected.items() <= seen.items(), (line, seen)
        if expected.get("kind") == "output":
            continue
        assert event.data == json.loads(line)


def test_half_a_character_costs_no_frame(fleet: Fleet) -> None:
    """A CLI in JavaScript may cut a text between the two halves of a character."""
    lines = [
        r'{"type":"assistant","message":{"content":[{"type":"text","text":"cut \ud83d"}]}}',
        r'{"type":"assistant","message":{"content":[{"type":"tool_use","id":"\udc00","name":"B"}]}}',
    ]
    events, result = asyncio.run(events_of(fleet, lines))
    assert result.outcome is Outcome.COMPLETED
    texts = [event for event in events if event.kind == "assistant"]
    assert len(texts) == 2
    assert (texts[0].text or "").startswith("cut ")
    assert texts[1].tool_name == "B"


@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"api_error_status": 529, "is_error": True}, Outcome.RATE_LIMITED),
        ({"api_error_status": 401}, Outcome.COMPLETED),
        ({"api_error_status": "401", "is_error": True}, Outcome.FAILED),
        ({"terminal_reason": "aborted_tools", "is_error": True}, Outcome.CANCELLED),
        ({"subtype": "error_max_turns", "api_error_status": 429}, Outcome.LIMIT_EXCEEDED),
        ({"is_error": None, "num_turns": None, "usage": None}, Outcome.COMPLETED),
        ({"total_cost_usd": "much", "num_turns": "x", "duration_ms": -1.5}, Outcome.COMPLETED),
    ],
    ids=str,
)
def test_status_and_result_tell_one_outcome(
    fleet: Fleet, fields: Mapping[str, Any], outcome: Outcome
) -> None:
    frame = {"type": "result", "subtype": "success", "is_error": False, "result": "r", **fields}

    async def main() -> None:
        async with fleet.supervisor(on_auth_failure="continue") as sup:
            agent = await sup.spawn(program(fleet, [json.dumps(frame)]))
            result = await agent.result()
            assert result.outcome is outcome
            assert agent.info().outcome is outcome

    asyncio.run(main())


# -- starts -------------------------------------------------------------------------------------


def test_starts_keep_their_distance(fleet: Fleet) -> None:
    async def main() -> list[float]:
        began: list[float] = []
        async with fleet.supervisor(start_interval=0.3) as sup:
            agents = [
                asyncio.ensure_future(sup.spawn(fleet.config(agent_id=str(number))))
                for number in range(3)
            ]
            living = [await agent for agent in agents]
            began += [agent.info().started_at for agent in living]
        return began

    began = sorted(asyncio.run(main()))
    gaps = [later - sooner for sooner, later in itertools.pairwise(began)]
    # The wall clock of a start is read a little after its place was given.
    assert all(gap > 0.2 for gap in gaps), gaps


def test_an_argument_too_long_for_the_kernel_is_told_as_what_it_is(fleet: Fleet) -> None:
    """WinError 206 shown as "CLI not found": the name of the trouble is the remedy."""

    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(SpawnError) as caught:
                await sup.spawn(fleet.config(extra_args={"x": "y" * 200_000}))
        assert not isinstance(caught.value, FileNotFoundError)
        assert caught.value.errno == 7
        assert "rgument list too long" in str(caught.value)

    asyncio.run(main())


def test_nothing_of_ours_chooses_what_belongs_to_the_user(fleet: Fleet) -> None:
    async def main() -> list[str]:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([fleet.config("argv")])
        words = json.loads(result.result or "")
        assert isinstance(words, list)
        return words

    line = " ".join(asyncio.run(main()))
    assert "dangerously" not in line
    assert "bypassPermissions" not in line
    assert "--permission-mode" not in line


def test_a_reason_on_stderr_comes_long_before_the_startup_limit(fleet: Fleet) -> None:
    async def main() -> float:
        began = time.monotonic()
        async with fleet.supervisor() as sup:
            with pytest.raises(SpawnError, match="Not logged in"):
                await sup.spawn(fleet.config(how="exit", timeouts={"startup": 60}))
        return time.monotonic() - began

    assert asyncio.run(main()) < 30


def test_a_limit_of_a_turn_ends_the_tree_and_not_just_its_first_process(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            await chat.run("leave")
            await chat.run("orphan")
            assert chat.usage().processes == 3
            result = await chat.run("deaf", timeout=0.2)
            assert result.outcome is Outcome.TIMED_OUT
            assert chat.state is State.ENDED
            assert await asyncio.to_thread(fleet.gone)

    asyncio.run(main())


def test_a_total_limit_that_passes_while_it_starts_is_told_as_that(fleet: Fleet) -> None:
    [result] = run(fleet, fleet.config("echo", how="silent", timeouts={"total": 0.1}))
    assert result.outcome is Outcome.TIMED_OUT
    assert "timeouts.total" in str(result.error)


def test_a_session_knows_where_it_moved(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            before = chat.session_id
            result = await chat.run("reset")
            assert before != chat.session_id == "moved"
            assert result.session_id == chat.info().session_id == "moved"

    asyncio.run(main())
