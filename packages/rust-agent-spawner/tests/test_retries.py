"""A run that fails is tried again: when, with what, and what its attempts come to."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fleets import Fleet, until
from vespera_agent_spawner import AgentConfig, Outcome, RetryPolicy, RunResult
from vespera_agent_spawner.errors import SpawnError
from vespera_agent_spawner.retries import Effort

ANY_FAILURE = ("failed", "killed", "incomplete", "spawn_failed", "timed_out")


def retries() -> float:
    return spawner.metrics().get("vespera_retries_total", 0.0)


def policy(**more: Any) -> dict[str, Any]:
    return {"attempts": 3, "backoff": 0.01, "on": ANY_FAILURE, **more}


def run(fleet: Fleet, prompt: str, how: str = "", **fields: Any) -> RunResult:
    async def main() -> RunResult:
        async with fleet.supervisor() as sup:
            (result,) = await sup.run([fleet.config(prompt, how, **{"retry": policy(), **fields})])
        return result

    return asyncio.run(main())


def test_a_session_that_has_spoken_goes_on(fleet: Fleet) -> None:
    result = run(fleet, "speak-and-die")
    assert (result.outcome, result.attempts, result.turns) == (Outcome.COMPLETED, 2, 1)
    told = json.loads(result.result or "")
    assert f"--resume={result.session_id}" in told["argv"]
    assert not any(word.startswith("--session-id") for word in told["argv"])
    assert "Look at what is done already" in told["prompt"]


@pytest.mark.parametrize("how", ["hesitant", "hesitant-turn"])
@pytest.mark.parametrize("forks", [False, True])
def test_an_attempt_without_a_word_does_not_begin_the_task_again(
    fleet: Fleet, tmp_path: Path, how: str, forks: bool
) -> None:
    """What the model did before it is done: the session in which it spoke goes on."""
    given = {"resume": str(uuid.uuid4()), "fork_session": True} if forks else {}
    result = run(fleet, "speak-and-die", how, working_directory=tmp_path, **given)
    assert (result.outcome, result.attempts) == (Outcome.COMPLETED, 3)
    told = json.loads(result.result or "")
    assert f"--resume={result.session_id}" in told["argv"]
    assert "--fork-session" not in told["argv"]
    assert "Look at what is done already" in told["prompt"]


def test_one_that_never_spoke_begins_afresh(fleet: Fleet, tmp_path: Path) -> None:
    result = run(fleet, f"die-until {tmp_path / 'tries'}")
    assert (result.outcome, result.attempts) == (Outcome.COMPLETED, 3)
    sessions = json.loads(result.result or "")
    assert len(set(sessions)) == 3
    assert sessions[-1] == result.session_id


def test_an_id_of_the_callers_is_used_once(fleet: Fleet, tmp_path: Path) -> None:
    chosen = str(uuid.uuid4())
    result = run(fleet, f"die-until {tmp_path / 'tries'}", session_id=chosen)
    sessions = json.loads(result.result or "")
    assert sessions[0] == chosen
    assert len(set(sessions)) == 3


def test_a_session_that_the_cli_does_not_know_begins_afresh_and_costs_no_attempt(
    fleet: Fleet,
) -> None:
    result = run(fleet, "speak-and-die", "forgetful", retry=policy(attempts=2))
    assert result.outcome is Outcome.FAILED
    # The first, and the one in a fresh session; what was refused is no attempt.
    assert result.attempts == 2


def test_the_last_attempt_is_the_result(fleet: Fleet) -> None:
    result = run(fleet, "die")
    assert (result.outcome, result.attempts) == (Outcome.FAILED, 3)
    assert "the disk is on fire" in str(result.error)


def test_only_what_the_policy_names_is_tried_again(fleet: Fleet) -> None:
    assert run(fleet, "die", retry=policy(on=("timed_out",))).attempts == 1
    assert run(fleet, "echo a").attempts == 1


def test_a_program_that_fails_is_tried_again(fleet: Fleet, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path / 'tries'}; test $(wc -l < {tmp_path / 'tries'}) = 2"
    config = AgentConfig(adapter="raw", program="sh", args=("-c", script), retry=policy())

    async def main() -> RunResult:
        async with fleet.supervisor() as sup:
            return (await sup.run([config]))[0]

    result = asyncio.run(main())
    assert (result.outcome, result.attempts) == (Outcome.COMPLETED, 2)


def test_the_fleets_policy_is_the_default_and_each_keeps_its_order(fleet: Fleet) -> None:
    async def main() -> list[RunResult]:
        async with fleet.supervisor(retry=policy(), max_agents=2) as sup:
            again = fleet.config("speak-and-die", agent_id="again")
            once = fleet.config("die", retry={"attempts": 1})
            return await sup.run([again, once, fleet.config("echo a")])

    results = asyncio.run(main())
    assert [result.attempts for result in results] == [2, 1, 1]
    assert [str(r.outcome) for r in results] == ["completed", "failed", "completed"]


def test_a_start_that_fails_is_tried_again_whoever_asks(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(retry=policy(backoff=0.2, jitter=0)) as sup:
            began = time.monotonic()
            with pytest.raises(SpawnError):
                await sup.spawn(fleet.config(how="exit"))
            assert time.monotonic() - began > 0.6
            (result,) = await sup.run([fleet.config("echo a", "exit")])
            assert (result.outcome, result.attempts) == (Outcome.SPAWN_FAILED, 3)

    asyncio.run(main())


def test_who_waits_for_the_next_attempt_is_cancelled_at_once(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(retry=policy(backoff=600)) as sup:
            work = asyncio.ensure_future(sup.run([fleet.config("die")]))
            await until(lambda: retries() > before)
            assert sup.agents() == []
            work.cancel()
            began = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert time.monotonic() - began < 2
            assert await sup.drain(1)

    before = retries()
    asyncio.run(main())


def test_a_supervisor_that_closes_meanwhile_gives_the_last_result(fleet: Fleet) -> None:
    async def main() -> RunResult:
        async with fleet.supervisor(retry=policy(backoff=600)) as sup:
            work = asyncio.ensure_future(sup.run([fleet.config("die")]))
            await until(lambda: retries() > before)
        return (await work)[0]

    before = retries()
    result = asyncio.run(main())
    assert (result.outcome, result.attempts) == (Outcome.FAILED, 1)


def test_draining_waits_for_no_further_attempt(fleet: Fleet) -> None:
    async def main() -> RunResult:
        async with fleet.supervisor(retry=policy(backoff=600)) as sup:
            work = asyncio.ensure_future(sup.run([fleet.config("die")]))
            await until(lambda: retries() > before)
            assert await sup.drain(5)
            return (await work)[0]

    before = retries()
    result = asyncio.run(main())
    assert (result.outcome, result.attempts) == (Outcome.FAILED, 1)


def ended(outcome: Outcome, **more: Any) -> RunResult:
    fields: dict[str, Any] = {
        "session_id": "",
        "exit": None,
        "turns": 1,
        "usage": {},
        "cost_usd": None,
    }
    return RunResult(
        outcome, None, **{**fields, "duration": 1.0, "time_to_first_output": None, **more}
    )


def test_waits_double_and_a_part_of_them_is_random() -> None:
    config = AgentConfig(prompt="hi")
    for drawn, waits in ((0.0, [2.0, 4.0, 8.0, None]), (1.0, [1.0, 2.0, 4.0, None])):
        effort = Effort(config, RetryPolicy(attempts=4, backoff=2, jitter=0.5), lambda d=drawn: d)  # type: ignore[misc]
        seen = [effort.again(ended(Outcome.RATE_LIMITED)) for _ in range(4)]
        assert seen == waits
        assert effort.attempts == 4


def test_what_the_attempts_took_is_added_up() -> None:
    effort = Effort(AgentConfig(prompt="hi"), RetryPolicy(attempts=3, on=("failed",)))
    first = ended(Outcome.FAILED, cost_usd=0.5, usage={"input_tokens": 3, "tier": "x"})
    last = ended(Outcome.COMPLETED, cost_usd=0.25, usage={"input_tokens": 4, "output_tokens": 1})
    assert effort.again(first) is not None
    assert effort.again(last) is None
    total = effort.settled(last)
    assert (total.cost_usd, total.turns, total.duration, total.attempts) == (0.75, 2, 2.0, 2)
    assert total.usage == {"input_tokens": 7, "output_tokens": 1}
