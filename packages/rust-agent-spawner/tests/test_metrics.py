"""The process's metrics: the contract's names, exact figures, both backends alike."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import FAKE, Agents
from fleets import Fleet, until
from hosts import Host
from vespera_agent_spawner import AgentConfig
from vespera_agent_spawner._counters import Bill, Counters
from vespera_agent_spawner._snapshot import snapshot
from vespera_agent_spawner.adapters.claude_frames import encode, user_frame

# The names that exist so far; those of the pool, of retries and of budgets come with them.
CONTRACT = {
    "vespera_agents",
    "vespera_spawn_seconds",
    "vespera_spawns_total",
    "vespera_events_total",
    "vespera_event_bytes_total",
    "vespera_event_lag_seconds",
    "vespera_queue_depth",
    "vespera_dropped_events_total",
    "vespera_spilled_bytes_total",
    "vespera_runs_total",
    "vespera_run_seconds",
    "vespera_tree_rss_bytes",
    "vespera_orphans_reaped_total",
    "vespera_kills_total",
    "vespera_cost_usd_total",
    "vespera_tokens_total",
    "vespera_retries_total",
    "vespera_pool_warm",
}

CODE = """
import asyncio
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig

def config(prompt=None, how="", **fields):
    return AgentConfig(program=sys.executable, args=(FAKE,), prompt=prompt,
        environment={"FAKE_CLAUDE": how, "FAKE_TRACE": TRACE}, **fields)

async def main():
    fleet = SupervisorConfig(memory_reserve=0, backend=BACKEND, on_auth_failure="continue")
    async with Supervisor(fleet) as sup:
"""


def told_by(agents: Agents, folder: Path, body: str) -> dict[str, Any]:
    """What a fresh process counts: the counters of this one know the other tests."""
    code = CODE + textwrap.indent(textwrap.dedent(body), "        ") + "\nasyncio.run(main())\n"
    with Host(agents.backend, agents.trace, code, folder) as host:
        told = host.news()
        host.ends()
    return told


def test_every_end_of_a_run_is_counted_once_by_its_outcome(agents: Agents, tmp_path: Path) -> None:
    told = told_by(
        agents,
        tmp_path,
        """
        prompts = ["echo a", "task", "die", "midline", "fail", "crash", "leave"]
        results = await sup.run([config(prompt) for prompt in prompts])
        results += await sup.run([config("hang", timeouts={"turn": 0.2})])
        results += await sup.run([config("x", how="exit")])
        retry = {"attempts": 3, "backoff": 0.01, "on": [results[2].outcome.value]}
        results += await sup.run([config("die", retry=retry)])
        chat = await sup.spawn(config())
        await chat.run("echo b")
        await chat.run("hang", timeout=0.2)
        await chat.shutdown()
        tell(outcomes=[result.outcome for result in results], metrics=spawner.metrics())
        """,
    )
    counted = told["metrics"]
    outcomes = [*told["outcomes"], "completed", "timed_out"]
    for outcome in set(outcomes):
        series = f'vespera_runs_total{{outcome="{outcome}"}}'
        assert counted[series] == outcomes.count(outcome), outcome
    assert counted["vespera_run_seconds_count"] == len(outcomes)
    assert counted['vespera_run_seconds_bucket{le="+Inf"}'] == len(outcomes)
    # Of the last run three.
    assert counted["vespera_retries_total"] == 2
    assert counted['vespera_spawns_total{outcome="completed"}'] == 12
    assert counted['vespera_spawns_total{outcome="spawn_failed"}'] == 1
    assert counted["vespera_spawn_seconds_count"] == 12
    assert counted["vespera_orphans_reaped_total"] == 1
    # echo, task twice, fail, leave, hang and, in the session, echo and hang: a turn that is
    # stopped for its time tells its cost all the same.
    assert counted["vespera_cost_usd_total"] == 0.25 * 8
    assert counted['vespera_tokens_total{direction="output"}'] == 5 * 8


def spent() -> tuple[float, ...]:
    told = spawner.metrics()
    tokens = [f'vespera_tokens_total{{direction="{way}"}}' for way in ("input", "output")]
    return tuple(told.get(name, 0.0) for name in ("vespera_cost_usd_total", *tokens))


def test_what_is_spent_is_what_a_budget_counts(fleet: Fleet) -> None:
    usage = {
        "input_tokens": 3,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 900,
        "output_tokens": 5,
    }
    frame = {"type": "result", "subtype": "success", "total_cost_usd": 0.5, "usage": usage}
    lines = json.dumps([json.dumps(frame)])

    async def main() -> None:
        before = spent()
        async with fleet.supervisor(budget={"usd": 9}) as sup:
            await sup.run([fleet.config(f"say {lines}")])
            agent = await sup.spawn(
                AgentConfig(
                    adapter="relay",
                    program=sys.executable,
                    args=(str(FAKE),),
                    environment={"FAKE_TRACE": fleet.trace},
                )
            )
            agent.write(encode(user_frame(f"say {lines}", "u")))
            agent.end_input()
            await agent.result()
            assert sup._purse is not None
            assert (sup._purse.usd, spent()[0] - before[0]) == (1.0, 1.0)
        now = spent()
        assert [now[at] - before[at] for at in range(3)] == [1.0, 46, 10]

    asyncio.run(main())


def test_what_cost_nothing_has_its_series_too() -> None:
    counters, bill = Counters(), Bill()
    counters.count_spent(bill, (0.0, 5, 7))
    assert counters.snapshot() == {
        "vespera_cost_usd_total": 0.0,
        'vespera_tokens_total{direction="input"}': 5.0,
        'vespera_tokens_total{direction="output"}': 7.0,
    }
    counters.count_spent(bill, (0.5, 3, 8))
    assert bill.counted == (0.5, 5, 8)
    assert counters.snapshot()["vespera_cost_usd_total"] == 0.5


def test_the_module_functions_count_a_turn_that_is_late(agents: Agents) -> None:
    before = spent()
    name = agents.spawn()
    with pytest.raises(spawner.AgentTimeout):
        agents.say(name, "hang", timeout=0.2)
    agents.say(name, "echo a")
    now = spent()
    assert [now[at] - before[at] for at in range(3)] == [0.5, 6, 10]


def test_all_names_of_the_contract_are_there_and_no_others(agents: Agents, tmp_path: Path) -> None:
    told = told_by(
        agents,
        tmp_path,
        """
        await sup.run([config("echo a")])
        chat = await sup.spawn(config(overflow="drop_oldest"))
        events, quiet = aiter(chat), await sup.spawn(config())
        await chat.run("burst 192 65536")
        waiting = spawner.metrics()
        seen = 0
        while chat._live.backlog()[0]:
            await anext(events)
            seen += 1
        reader, spilled = await sup.spawn(config()), None
        kept = aiter(reader)
        await reader.run("burst 192 65536")
        spilled = spawner.metrics()
        reader.kill()
        await reader.result()
        tell(waiting=waiting, seen=seen, after=spawner.metrics(), spilled=spilled)
        """,
    )
    after, waiting = told["after"], told["waiting"]
    names = {name.partition("{")[0] for name in after}
    for part in ("_bucket", "_count", "_sum"):
        names = {name.removesuffix(part) for name in names}
    others = {"vespera_guardian_spawn_requests_total", "vespera_guardian_restarts_total"}
    assert names - others == CONTRACT
    assert waiting["vespera_queue_depth"] > 0
    assert waiting["vespera_dropped_events_total"] > 0
    assert waiting["vespera_tree_rss_bytes"] > 1 << 20
    assert waiting['vespera_agents{state="ready"}'] == 2
    assert told["spilled"]["vespera_spilled_bytes_total"] > 4 << 20
    assert after["vespera_event_lag_seconds_count"] >= told["seen"]
    assert after["vespera_event_lag_seconds_sum"] > 0
    assert 'vespera_events_total{kind="assistant"}' in after
    assert not any("agent_id" in name for name in after)


def test_each_rung_is_counted_once(agents: Agents, tmp_path: Path) -> None:
    told = told_by(
        agents,
        tmp_path,
        """
        for how, grace in (("", 5), ("term", 0.4), ("stubborn", 0.4), ("", 0)):
            agent = await sup.spawn(config(how=how))
            await agent.shutdown(grace)
        tell(metrics=spawner.metrics())
        """,
    )
    rungs = {
        rung: told["metrics"][f'vespera_kills_total{{rung="{rung}"}}']
        for rung in ("eof", "term", "kill")
    }
    assert rungs == {"eof": 3, "term": 2, "kill": 2}


def test_a_dead_guardian_is_counted(agents: Agents, tmp_path: Path) -> None:
    if agents.backend != "rust":
        pytest.skip("the Python backend has no guardian")
    told = told_by(
        agents,
        tmp_path,
        """
        chat = await sup.spawn(config())
        [guardian] = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
        os.kill(int(guardian), signal.SIGKILL)
        await chat.result()
        await sup.run([config("echo a")])
        tell(metrics=spawner.metrics())
        """,
    )
    assert told["metrics"]["vespera_guardian_restarts_total"] == 1


def test_the_usage_of_a_fleet_is_one_look(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            one = await sup.spawn(fleet.config(agent_id="one"))
            two = await sup.spawn(fleet.config(agent_id="two"))
            await two.run("leave")
            used = sup.usage()
            assert {name: usage.processes for name, usage in used.items()} == {"one": 1, "two": 2}
            for agent in (one, two):
                assert used[agent.agent_id].rss > 1 << 20
                assert used[agent.agent_id].open_files > 0

            def told_alike() -> bool:
                """Who has just begun to run opens a file and closes it, between two looks."""
                together = sup.usage()
                return all(
                    (alone.processes, alone.open_files) == (mine.processes, mine.open_files)
                    for mine, alone in ((together[a.agent_id], a.usage()) for a in (one, two))
                )

            await until(told_alike)
            await one.shutdown()
            assert set(sup.usage()) == {"two"}

    asyncio.run(main())


def test_who_waited_long_and_grows_is_seen_at_the_next_look(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            waits = await sup.spawn(fleet.config(agent_id="waits"))
            grows = await sup.spawn(fleet.config(agent_id="grows"))
            for _ in range(5):
                await asyncio.sleep(0.1)
                before = sup.usage()
            await grows.send("eat 64")
            await until(lambda: sup.usage()["grows"].rss > before["grows"].rss + (48 << 20))
            assert sup.usage()["waits"].rss < before["waits"].rss + (10 << 20)
            grows.kill()
            assert waits.agent_id in sup.usage()

    asyncio.run(main())


def test_metrics_are_plain_numbers() -> None:
    json.dumps(spawner.metrics())


def test_fleets_in_several_threads_are_counted_and_watched_from_another(backend: str) -> None:
    series = 'vespera_runs_total{outcome="completed"}'
    counted = spawner.metrics().get(series, 0.0)
    config = AgentConfig(adapter="raw", program="/bin/echo", args=["said"])
    heard: list[str | None] = []
    failures: list[BaseException] = []
    over = threading.Event()

    async def fleet() -> None:
        settings = spawner.SupervisorConfig(backend=backend, max_agents=8, memory_reserve=0)
        async with spawner.Supervisor(settings) as supervisor:
            for result in await supervisor.run([config] * 20):
                assert result.outcome is spawner.Outcome.COMPLETED
            agents = await asyncio.gather(*(supervisor.spawn(config) for _ in range(8)))
            for agent in agents:
                heard.extend([event.text async for event in agent])

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    def watch() -> None:
        while not over.is_set():
            assert spawner.metrics()["vespera_queue_depth"] >= 0

    watcher = threading.Thread(target=guarded, args=(watch,))
    threads = [
        threading.Thread(target=guarded, args=(lambda: asyncio.run(fleet()),)) for _ in range(4)
    ]
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    over.set()
    watcher.join(20)
    assert failures == []
    assert heard == ["said"] * 32
    assert spawner.metrics()[series] == counted + 4 * 28


def test_what_other_threads_change_meanwhile_is_read_whole() -> None:
    tries = iter([True, True, False])

    def read() -> Iterator[str]:
        yield "one"
        if next(tries):
            raise RuntimeError("dictionary changed size during iteration")
        yield "two"

    assert snapshot(read) == ["one", "two"]


def test_what_cannot_be_read_at_all_is_told() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("it is broken")

    with pytest.raises(RuntimeError, match="it is broken"):
        snapshot(broken)
