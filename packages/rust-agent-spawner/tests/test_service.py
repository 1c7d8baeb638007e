"""What the service refuses: retries are judged, limits pause the fleet, credentials stop it."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import Agents
from fleets import Fleet, until
from vespera_agent_spawner import Outcome, RunResult, State, Supervisor


def run(fleet: Fleet, prompt: str, **fields: Any) -> RunResult:
    async def main() -> RunResult:
        async with fleet.supervisor(on_auth_failure="continue") as sup:
            [result] = await sup.run([fleet.config(prompt, **fields)])
        return result

    return asyncio.run(main())


def test_credentials_that_are_refused_again_and_again_end_the_run(fleet: Fleet) -> None:
    result = run(fleet, "retry 401 3 500")
    assert result.outcome is Outcome.AUTH_FAILED
    assert "authentication_failed (HTTP 401), try 3 of 10" in str(result.error)
    assert fleet.gone()


def test_a_refused_run_that_hears_no_interrupt_is_ended_and_named(fleet: Fleet) -> None:
    result = run(fleet, "retry 401 3 500 deaf")
    assert result.outcome is Outcome.AUTH_FAILED
    assert "the service said: authentication_failed (HTTP 401)" in str(result.error)
    assert result.exit is not None
    assert result.exit.by == "kill"


def test_a_time_out_while_credentials_are_refused_names_them(fleet: Fleet) -> None:
    result = run(fleet, "retry 401 2 500", timeouts={"turn": 0.5})
    assert result.outcome is Outcome.AUTH_FAILED
    assert "timeouts.turn" in str(result.error)
    assert "the CLI was retrying: authentication_failed" in str(result.error)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(429, Outcome.RATE_LIMITED), (529, Outcome.RATE_LIMITED), (500, Outcome.TIMED_OUT)],
)
def test_a_time_out_among_retries_names_the_service(
    fleet: Fleet, status: int, outcome: Outcome
) -> None:
    result = run(fleet, f"retry {status} 4 500", timeouts={"turn": 0.5})
    assert result.outcome is outcome
    assert "timeouts.turn" in str(result.error)
    assert f"(HTTP {status}), try 4 of 10" in str(result.error)


def test_a_wait_for_the_end_of_a_limit_is_no_backoff(fleet: Fleet) -> None:
    began = time.monotonic()
    result = run(fleet, "retry 429 1 7200000")
    assert result.outcome is Outcome.RATE_LIMITED
    assert "the next in 7200 s" in str(result.error)
    assert time.monotonic() - began < 60


def test_who_is_not_logged_in_is_told_apart_without_a_status(fleet: Fleet, agents: Agents) -> None:
    result = run(fleet, "loggedout")
    assert result.outcome is Outcome.AUTH_FAILED
    assert result.error == "the service said: Not logged in · Please run /login"
    name = agents.spawn()
    assert agents.say(name, "loggedout")["outcome"] == "auth_failed"
    # It holds for that turn only.
    assert agents.say(name, "echo hi")["outcome"] == "completed"
    assert agents.say(name, "loggedout")["outcome"] == "auth_failed"


def test_a_turn_of_a_session_ends_and_the_session_lives_on(agents: Agents) -> None:
    name = agents.spawn()
    turn = agents.say(name, "retry 401 5 500")
    assert (turn["outcome"], turn["is_error"]) == ("auth_failed", True)
    assert "HTTP 401" in str(turn.get("error"))
    assert spawner.agent_status(name).outcome == "auth_failed"
    assert agents.say(name, "echo on")["outcome"] == "completed"


def test_a_refused_turn_of_a_session_stops_the_fleet_at_once(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            assert (await chat.run("fail")).outcome is Outcome.AUTH_FAILED
            with pytest.raises(spawner.AgentError, match="nothing more is started") as caught:
                await sup.spawn(fleet.config())
            assert caught.value.code == "auth_failed"
            assert chat.state is State.READY

    asyncio.run(main())


def test_a_refused_turn_that_hears_no_interrupt_stops_the_fleet_too(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            result = await chat.run("retry 401 3 500 deaf")
            assert result.outcome is Outcome.AUTH_FAILED
            with pytest.raises(spawner.AgentError, match="nothing more is started") as caught:
                await sup.spawn(fleet.config())
            assert caught.value.code == "auth_failed"
            assert str(result.error) in str(caught.value)

    asyncio.run(main())


async def told(sup: Supervisor, fleet: Fleet, **info: Any) -> None:
    [result] = await sup.run([fleet.config("limit " + json.dumps(info))])
    assert result.result == "told"


def test_a_limit_of_the_service_pauses_the_fleet_until_it_ends(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            ends = time.time() + 2.5
            with caplog.at_level(logging.WARNING, "vespera"):
                await told(sup, fleet, status="rejected", resetsAt=ends, rateLimitType="five_hour")
            assert "five_hour rate limit" in str(sup.obstacle)
            with pytest.raises(spawner.AgentTimeout, match="five_hour rate limit") as caught:
                await sup.spawn(fleet.config(timeouts={"queue": 0.05}))
            assert caught.value.which == "queue"
            [after] = await sup.run([fleet.config("echo after")])
            assert after.result == "echo after"
            assert time.time() >= ends
            assert sup.obstacle is None

    asyncio.run(main())
    assert any("no agent starts before" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "info",
    [
        {"status": "allowed_warning", "resetsAt": 4e9},
        {"status": "rejected", "resetsAt": 4e9, "overageStatus": "allowed"},
        {"status": "rejected", "resetsAt": 1000},
        {"status": "rejected"},
        {"status": ["odd"], "resetsAt": "soon"},
        {"status": "rejected", "resetsAt": 1e20},
    ],
    ids=["warning", "paid for beyond it", "over already", "no end told", "odd", "no time"],
)
def test_a_limit_that_hinders_nobody_pauses_nobody(fleet: Fleet, info: Any) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            await told(sup, fleet, **info)
            assert sup.obstacle is None

    asyncio.run(main())


def test_a_failure_over_one_agents_words_silences_nobody(fleet: Fleet) -> None:
    def fails(agent: object, frame: object) -> None:
        raise ValueError("no such time")

    async def main() -> list[str]:
        reported: list[str] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(repr(context["exception"])))
        async with fleet.supervisor() as sup:
            chats = [await sup.spawn(fleet.config()) for _ in range(3)]
            chats[0]._on_service = fails
            limit = json.dumps({"status": "rejected", "resetsAt": time.time() + 9})
            asked = [chat.run(f"limit {limit}" if chat is chats[0] else "echo a") for chat in chats]
            turns = asyncio.gather(*asked)
            await asyncio.sleep(0)
            time.sleep(0.5)  # noqa: ASYNC251 - the news of all are told at once
            results = await asyncio.wait_for(turns, 10)
            assert [result.result for result in results] == ["told", "echo a", "echo a"]
        return reported

    assert asyncio.run(main()) == ["ValueError('no such time')"]


def test_an_end_of_a_turn_that_cannot_be_read_is_its_end(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            session = type(chat._live)
            take_turn = session.take_turn

            def too_deep(self: Any) -> Any:
                if take_turn(self) is not None:
                    raise RecursionError("too deep")

            with monkeypatch.context() as patch:
                patch.setattr(session, "take_turn", too_deep)
                result = await asyncio.wait_for(chat.run("echo a"), 10)
            assert result.outcome is Outcome.INCOMPLETE
            assert "too deep" in str(result.error)
            assert (await chat.run("echo b")).result == "echo b"

    asyncio.run(main())


def test_a_conversation_that_begins_anew_has_another_id(fleet: Fleet) -> None:
    new = "11111111-2222-4333-8444-555555555555"

    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            before = chat.session_id
            events = aiter(chat)
            await chat.run(f"forget {new}")
            seen = [(await anext(events)).kind for _ in range(3)]
            assert seen == ["system", "conversation_reset", "result"]
            assert before != new
            assert chat.session_id == chat.info().session_id == new
            assert (await chat.run("echo on")).session_id == new

    asyncio.run(main())


def test_the_state_says_that_somebody_decides(fleet: Fleet) -> None:
    async def main() -> None:
        decide = asyncio.Event()

        async def decided(name: str, given: Any) -> bool:
            await decide.wait()
            return True

        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config(on_permission=decided))
            await chat.send("ask 0.1")
            await until(lambda: chat.state is State.WAITING_FOR_PERMISSION)
            with pytest.raises(spawner.AgentBusy):
                await chat.run("echo a")
            await chat.interrupt()
            decide.set()
            await until(lambda: chat.state is State.READY)
            assert (await chat.run("echo b")).result == "echo b"

    asyncio.run(main())


def test_who_does_not_answer_an_ask_in_time_denies(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vespera_agent_spawner.handlers.PERMISSION_DEADLINE", 0.2)

    async def never(name: str, given: Any) -> bool:
        await asyncio.sleep(60)
        return True

    result = run(fleet, "ask 0", on_permission=never)
    assert "did not answer within 0.2 s" in str(result.result)
    assert '"deny"' in str(result.result)


def test_who_blocks_while_deciding_stops_nobody_and_has_the_same_time(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vespera_agent_spawner.handlers.PERMISSION_DEADLINE", 0.5)
    asked, decide = threading.Event(), threading.Event()

    def blocks(name: str, given: Any) -> bool:
        asked.set()
        decide.wait(20)
        return True

    async def main() -> None:
        async with fleet.supervisor() as sup:
            asking = await sup.spawn(fleet.config("ask 0", on_permission=blocks))
            other = await sup.spawn(fleet.config())
            await until(asked.is_set)
            assert (await other.run("echo b")).result == "echo b"
            result = await asking.result()
            assert "did not answer within 0.5 s" in str(result.result)
            assert '"deny"' in str(result.result)

    try:
        asyncio.run(main())
    finally:
        decide.set()
