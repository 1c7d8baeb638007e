"""The asyncio face: runs and sessions, who owns what, admission, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

import pytest

import vespera_agent_spawner as spawner
from fleets import Fleet, until
from vespera_agent_spawner import (
    Agent,
    AgentBusy,
    AgentConfig,
    ConfigError,
    Outcome,
    State,
)


def begun(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return asyncio.get_running_loop().create_task(work)


def test_a_run_streams_its_events_and_ends(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config("echo hello"))
            seen = [(event.kind, event.text) async for event in agent]
            result = await agent.result()
        assert seen == [("system", None), ("assistant", "echo hello"), ("result", "echo hello")]
        assert (result.outcome, result.result) == (Outcome.COMPLETED, "echo hello")
        assert result.exit is not None
        assert result.exit.code == 0
        assert result.backend == fleet.backend
        assert result.time_to_first_output is not None
        assert result.turns == 1

    asyncio.run(main())
    assert fleet.gone()


def test_a_session_takes_turns_until_its_shutdown(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            first, second = await chat.run("echo 1"), await chat.run("echo 2")
            assert (first.result, second.result) == ("echo 1", "echo 2")
            assert (first.exit, second.cost_usd) == (None, 0.25)
            assert chat.state is State.READY
            status = await chat.shutdown()
            assert (status.code, status.by) == (0, "shutdown")
            assert (await chat.result()).cost_usd == 0.5
            with pytest.raises(spawner.AgentFailed):
                await chat.run("echo 3")

    asyncio.run(main())


def test_whoever_tries_again_until_a_session_is_free_has_a_turn(fleet: Fleet) -> None:
    async def ask(chat: Agent, number: int) -> str | None:
        while True:
            try:
                return (await chat.run(f"echo {number}")).result
            except AgentBusy:
                await asyncio.sleep(0.001)

    async def main() -> list[str | None]:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            asked = asyncio.gather(*(ask(chat, number) for number in range(30)))
            return await asyncio.wait_for(asked, 30)

    assert asyncio.run(main()) == [f"echo {number}" for number in range(30)]


def test_the_next_turn_may_begin_at_the_result_of_the_last(fleet: Fleet) -> None:
    def completed() -> float:
        return spawner.metrics().get('vespera_runs_total{outcome="completed"}', 0.0)

    async def main() -> tuple[float, int]:
        before, turns, refused = completed(), 0, 0
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            await chat.send("echo 0")
            async for event in chat:
                if event.kind != "result":
                    continue
                turns += 1
                if turns == 50:
                    break
                while True:
                    try:
                        await chat.send(f"echo {turns}")
                        break
                    except AgentBusy:
                        refused += 1
                        await asyncio.sleep(0)
            # What the last turn was is known when another begins.
            await chat.run("echo last")
        return completed() - before, refused

    counted, refused = asyncio.run(asyncio.wait_for(main(), 40))
    assert counted == 51
    if fleet.backend == "python":
        assert refused == 0


WRONG: dict[str, tuple[str, Callable[[Agent], Coroutine[Any, Any, object]]]] = {
    "no prompt": ("prompt", lambda chat: chat.run(cast("Any", None))),
    "a prompt of bytes": ("prompt", lambda chat: chat.run(cast("Any", b"echo a"))),
    "an empty prompt": ("prompt", lambda chat: chat.send("")),
    "half a character": ("prompt", lambda chat: chat.run("echo \ud800")),
    "no time at all": ("timeout", lambda chat: chat.run("echo a", timeout=0)),
    "less than no time": ("timeout", lambda chat: chat.run("echo a", timeout=-1)),
    "no duration": ("timeout", lambda chat: chat.run("echo a", timeout="soon")),
    "no model": ("model", lambda chat: chat.set_model(cast("Any", 5))),
    "no mode": ("mode", lambda chat: chat.set_permission_mode(cast("Any", object()))),
    "another mode": ("mode", lambda chat: chat.set_permission_mode("planned")),
    "no number": ("grace", lambda chat: chat.shutdown(float("nan"))),
    "for ever": ("grace", lambda chat: chat.shutdown(float("inf"))),
    "less than none": ("grace", lambda chat: chat.cancel(-1)),
}


def test_what_cannot_be_is_refused_by_name_and_harms_nothing(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            for what, (field, call) in WRONG.items():
                with pytest.raises(ConfigError) as caught:
                    await asyncio.wait_for(call(chat), 5)
                assert (what, caught.value.field) == (what, field)
                assert caught.value.remedy
            assert (await chat.run("echo on", timeout="5m")).result == "echo on"
            for ending in (sup.shutdown(cast("Any", None)), sup.drain(-1)):
                with pytest.raises(ConfigError):
                    await ending
            another = await sup.spawn(fleet.config())
            assert another.state is State.READY

    asyncio.run(main())


def test_a_turn_that_the_host_fails_has_an_end(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fleet.backend == "rust":
        pytest.skip("its turns are the engine's")

    def fails(*_: object) -> None:
        raise ValueError("no such frame")

    async def main() -> None:
        frames = "vespera_agent_spawner.adapters.claude_frames"
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            with monkeypatch.context() as patch:
                patch.setattr(f"{frames}.control_request", fails)
                with pytest.raises(spawner.AgentFailed, match="no such frame"):
                    await asyncio.wait_for(chat.set_model("opus"), 5)
                patch.setattr(f"{frames}.user_frame", fails)
                result = await asyncio.wait_for(chat.run("echo a"), 5)
            assert "no such frame" in str(result.error)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_who_has_ended_answers_no_request(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            await chat.shutdown(0)
            with pytest.raises(spawner.AgentFailed, match="has ended: killed"):
                await asyncio.wait_for(chat.set_model("opus"), 5)
            with pytest.raises(spawner.AgentFailed):
                await asyncio.wait_for(chat.set_permission_mode("plan"), 5)

    asyncio.run(main())


def test_results_come_in_the_order_of_the_configurations(fleet: Fleet) -> None:
    async def main() -> None:
        prompts = [f"echo {n}" for n in range(12)]
        async with fleet.supervisor(max_agents=3) as sup:
            results = await sup.run([fleet.config(prompt) for prompt in prompts])
        assert [result.result for result in results] == prompts

    asyncio.run(main())


def test_a_failure_is_a_result_and_names_its_kind(fleet: Fleet) -> None:
    async def main() -> None:
        cases: list[tuple[AgentConfig, Outcome, str]] = [
            (fleet.config("die"), Outcome.FAILED, "the disk is on fire"),
            (fleet.config("crash"), Outcome.KILLED, "SIGSEGV"),
            (fleet.config("midline"), Outcome.INCOMPLETE, "without a result"),
            (fleet.config("x", how="exit"), Outcome.SPAWN_FAILED, "Not logged in"),
            (fleet.config("fail"), Outcome.AUTH_FAILED, "the model said no"),
        ]
        async with fleet.supervisor(on_auth_failure="continue") as sup:
            results = await sup.run([config for config, _, _ in cases])
        for result, (config, outcome, words) in zip(results, cases, strict=True):
            assert result.outcome is outcome, (config, result)
            assert words in str(result.error), (config, result)

    asyncio.run(main())


def test_as_completed_gives_the_fast_one_first(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            configs = [fleet.config("task"), fleet.config("echo fast")]
            results = [result.result async for result in sup.as_completed(configs)]
        assert results == ["echo fast", "the task is done"]

    asyncio.run(main())


def test_a_run_ends_after_the_result_of_its_background_task(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([fleet.config("task")])
        assert (result.outcome, result.result) == (Outcome.COMPLETED, "the task is done")

    asyncio.run(main())


def test_no_more_agents_live_than_there_are_places(fleet: Fleet) -> None:
    async def main() -> int:
        most = 0
        async with fleet.supervisor(max_agents=2) as sup:
            work = begun(sup.run([fleet.config("echo a") for _ in range(8)]))
            while not work.done():
                most = max(most, sum(a.state is not State.QUEUED for a in sup.agents()))
                await asyncio.wait({work}, timeout=0.001)
        return most

    assert asyncio.run(main()) == 2


def test_a_full_house_refuses_after_the_queue_limit(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(max_agents=1) as sup:
            first = await sup.spawn(fleet.config())
            with pytest.raises(spawner.AgentTimeout, match="max_agents=1") as caught:
                await sup.spawn(fleet.config(timeouts={"queue": 0.05}))
            assert caught.value.which == "queue"
            assert first.state is State.READY

    asyncio.run(main())


def test_the_higher_priority_goes_first(fleet: Fleet) -> None:
    async def main() -> list[str | None]:
        order: list[str | None] = []

        async def one(config: AgentConfig) -> None:
            [result] = await sup.run([config])
            order.append(result.result)

        async with fleet.supervisor(max_agents=1) as sup:
            blocker = await sup.spawn(fleet.config())
            async with asyncio.TaskGroup() as group:
                for prompt, priority in (("echo low", 0), ("echo high", 5)):
                    group.create_task(one(fleet.config(prompt, priority=priority)))
                await until(lambda: sup.waiting == 2)
                await blocker.shutdown()
        return order

    assert asyncio.run(main()) == ["echo high", "echo low"]


def test_cancelling_the_owner_ends_the_work(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            work = begun(sup.run([fleet.config("hang") for _ in range(3)]))
            await until(lambda: [a.state for a in sup.agents()] == [State.IN_TURN] * 3)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            assert sup.agents() == []
            assert fleet.gone()

    asyncio.run(main())


def test_cancelling_a_watcher_ends_nothing(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config("hang"))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(agent.result(), 0.1)
            assert agent.state is State.IN_TURN
            await agent.interrupt()
            assert (await agent.result()).outcome is Outcome.CANCELLED

    asyncio.run(main())


def test_cancelling_a_turn_interrupts_it_and_the_session_lives(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(chat.run("hang"), 0.1)
            await until(lambda: chat.state is State.READY)
            assert (await chat.run("echo on")).result == "echo on"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("prompt", "timeouts", "which"),
    [
        ("hang", {"turn": 0.2}, "timeouts.turn"),
        ("hang", {"idle": 0.2}, "timeouts.idle.model"),
        ("tool Bash", {"idle": {"tool": 0.2}}, "timeouts.idle.tool"),
        ("tool mcp__a__b", {"idle": {"mcp": 0.2, "model": 60}}, "timeouts.idle.mcp"),
        ("deaf", {"total": 0.5}, "timeouts.total"),
    ],
)
def test_a_hang_is_ended_and_named(
    fleet: Fleet, prompt: str, timeouts: Mapping[str, Any], which: str
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([fleet.config(prompt, timeouts=timeouts)])
        assert result.outcome is Outcome.TIMED_OUT
        assert which in str(result.error)

    asyncio.run(main())
    assert fleet.gone()


def test_leaving_ends_everything(fleet: Fleet) -> None:
    class Boom(Exception):
        pass

    async def main() -> None:
        async with fleet.supervisor() as sup:
            owned = [await sup.spawn(fleet.config()), await sup.spawn(fleet.config("hang"))]
            assert len(sup.agents()) == len(owned)
            raise Boom

    with pytest.raises(Boom):
        asyncio.run(main())
    assert fleet.gone()


def test_a_closed_supervisor_starts_nothing(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            pass
        config = fleet.config("hi")
        with pytest.raises(spawner.SupervisorClosed):
            await sup.spawn(config)
        with pytest.raises(spawner.SupervisorClosed, match="closed and starts nothing"):
            await sup.run([config])
        with pytest.raises(spawner.SupervisorClosed):
            [result async for result in sup.as_completed([config])]

    asyncio.run(main())


def test_draining_waits_for_the_work_and_takes_no_more(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config("task"))
            assert await sup.drain(10)
            assert agent.state is State.ENDED
            with pytest.raises(spawner.SupervisorClosed, match="draining"):
                await sup.spawn(fleet.config())
            with pytest.raises(spawner.SupervisorClosed, match="draining"):
                await sup.run([fleet.config("hi")])

    asyncio.run(main())


def test_an_authentication_failure_stops_the_fleet(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(max_agents=1) as sup:
            configs = [fleet.config("fail"), fleet.config("echo a"), fleet.config("echo b")]
            first, *others = await sup.run(configs)
        assert first.outcome is Outcome.AUTH_FAILED
        assert {result.outcome for result in others} == {Outcome.AUTH_FAILED}
        assert all("nothing more is started" in str(result.error) for result in others)

    asyncio.run(main())


def test_ids_are_unique_while_an_agent_lives(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            agent = await sup.spawn(fleet.config(agent_id="docs"))
            with pytest.raises(spawner.AgentExists, match="docs"):
                await sup.spawn(fleet.config(agent_id="docs"))
            await agent.shutdown()
            again = await sup.spawn(fleet.config(agent_id="docs"))
            assert again.state is State.READY

    asyncio.run(main())


def test_an_agent_that_is_dropped_warns_and_is_ended(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []

    # Not by pytest.warns: what it keeps has the agent, and without a GIL so have all callbacks that
    # are made meanwhile (sys.flags.context_aware_warnings).
    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        warned.append(str(message))

    async def main() -> None:
        async with fleet.supervisor() as sup:

            async def spawn_and_forget() -> None:
                await sup.spawn(fleet.config())
                gc.collect()

            with warnings.catch_warnings():
                warnings.simplefilter("always")
                monkeypatch.setattr(warnings, "showwarning", note)
                await spawn_and_forget()
            assert ["without shutdown" in text for text in warned] == [True]
            assert sup.agents() == []
            assert await asyncio.to_thread(fleet.gone)

    asyncio.run(main())


def allow(name: str, given: Mapping[str, Any]) -> Any:
    return {**given, "command": "echo safe"}


async def deny_with_reason(name: str, given: Mapping[str, Any]) -> Any:
    await asyncio.sleep(0)
    return f"{name} is not for you"


def broken(name: str, given: Mapping[str, Any]) -> Any:
    raise RuntimeError("handler broke")


@pytest.mark.parametrize(
    ("handler", "behavior", "words"),
    [
        (allow, "allow", "echo safe"),
        (deny_with_reason, "deny", "Bash is not for you"),
        (broken, "deny", "handler broke"),
    ],
)
def test_a_permission_ask_is_answered(
    fleet: Fleet, handler: Callable[..., Any], behavior: str, words: str
) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([fleet.config("permission", on_permission=handler)])
        [known, _] = json.loads(result.result or "")
        assert known["response"]["behavior"] == behavior
        assert words in json.dumps(known)

    asyncio.run(main())


def test_model_and_mode_can_change_in_a_session(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            await chat.set_model("haiku")
            await chat.set_permission_mode("plan")
            told = json.loads((await chat.run("model")).result or "")
        assert {"subtype": "set_model", "model": "haiku"} in told
        assert {"subtype": "set_permission_mode", "mode": "plan"} in told

    asyncio.run(main())


def test_a_list_of_runs_needs_prompts(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            with pytest.raises(ConfigError, match="run and as_completed need one"):
                await sup.run([fleet.config()])

    asyncio.run(main())


def test_a_second_loop_has_its_own_supervisor(fleet: Fleet) -> None:
    async def main() -> str | None:
        async with fleet.supervisor() as sup:
            [result] = await sup.run([fleet.config("echo a")])
        return result.result

    assert asyncio.run(main()) == "echo a"
    assert asyncio.run(main()) == "echo a"


def test_an_agent_is_asked_on_its_own_loop_and_costs_nothing_elsewhere(fleet: Fleet) -> None:
    calls: list[Callable[[Agent], Coroutine[Any, Any, Any]]] = [
        lambda agent: agent.run("hi"),
        lambda agent: agent.send("hi"),
        lambda agent: agent.result(),
        lambda agent: agent.interrupt(),
        lambda agent: agent.set_model(None),
        lambda agent: agent.cancel(),
        lambda agent: agent.shutdown(),
        lambda agent: cast("Any", aiter(agent)).__anext__(),
    ]

    def elsewhere(agent: Agent) -> None:
        for call in calls:
            with pytest.raises(
                ConfigError, match="belongs to the event loop that started"
            ) as caught:
                asyncio.run(asyncio.wait_for(call(agent), 10))
            assert "run_coroutine_threadsafe" in caught.value.remedy

    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            await asyncio.to_thread(elsewhere, chat)
            assert chat.info().turns == 0
            assert (await chat.run("echo here")).result == "echo here"
            await chat.shutdown()
        # Its end may be asked from anywhere.
        ended = await asyncio.to_thread(asyncio.run, chat.result())
        assert ended.exit is not None

    asyncio.run(main())


def test_events_that_wait_are_not_lost_to_another_loop(fleet: Fleet) -> None:
    async def kinds(agent: Agent) -> list[str]:
        return [event.kind async for event in agent]

    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            await chat.send("echo a")
            await until(lambda: chat.info().turns == 1)
            with pytest.raises(ConfigError, match="belongs to the event loop that started"):
                await asyncio.to_thread(asyncio.run, kinds(chat))
            await chat.shutdown()
            assert "result" in await kinds(chat)

    asyncio.run(main())


def test_usage_is_of_the_whole_tree(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chat = await sup.spawn(fleet.config())
            alone = chat.usage().processes
            await chat.run("leave")
            assert (alone, chat.usage().processes) == (1, 2)
            await chat.shutdown()
            assert chat.usage().processes == 0
            assert (await chat.result()).orphans_reaped == 1

    asyncio.run(main())
    assert fleet.gone()
