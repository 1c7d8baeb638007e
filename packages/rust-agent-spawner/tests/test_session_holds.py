"""A session goes on in one process at a time: whoever comes second gets a fork, or a refusal."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid

import pytest

import vespera_agent_spawner as spawner
from fake_agents import Agents, eventually
from fleets import Fleet
from vespera_agent_spawner import State
from vespera_agent_spawner.errors import ConfigError
from vespera_agent_spawner.session_hold import take_hold


def test_a_session_that_another_process_has_is_forked(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            first = await sup.spawn(fleet.config())
            second = await sup.spawn(fleet.config(resume=first.session_id))
            assert "--fork-session" in json.loads((await second.run("argv")).result or "")
            assert second.session_id != first.session_id
            await second.shutdown()
            await first.shutdown()
            third = await sup.spawn(fleet.config(resume=first.session_id))
            assert "--fork-session" not in json.loads((await third.run("argv")).result or "")
            fourth = await sup.spawn(fleet.config(resume=first.session_id))
            assert "--fork-session" in json.loads((await fourth.run("argv")).result or "")
            assert third.state is State.READY

    asyncio.run(main())


@pytest.mark.parametrize("chosen", [None, str(uuid.uuid4())])
def test_a_fork_is_a_session_of_its_own_that_is_held(fleet: Fleet, chosen: str | None) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            origin = str(uuid.uuid4())
            fork = await sup.spawn(
                fleet.config(resume=origin, fork_session=True, session_id=chosen)
            )
            assert fork.session_id == chosen or chosen is None
            second = await sup.spawn(fleet.config(resume=fork.session_id))
            assert second.session_id != fork.session_id
            # What it was forked from is nobody's.
            third = await sup.spawn(fleet.config(resume=origin))
            assert third.session_id == origin

    asyncio.run(main())


def test_an_id_that_a_living_agent_has_is_refused(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            chosen = str(uuid.uuid4())
            first = await sup.spawn(fleet.config(session_id=chosen))
            with pytest.raises(ConfigError, match=f"session_id: {chosen} is in use") as caught:
                await sup.spawn(fleet.config(session_id=chosen))
            assert (caught.value.field, caught.value.value) == ("session_id", chosen)
            (result,) = await sup.run([fleet.config("echo a", session_id=chosen)])
            assert "is in use" in str(result.error)
            await first.shutdown()
            second = await sup.spawn(fleet.config(session_id=chosen))
            assert second.session_id == chosen

    asyncio.run(main())


def test_what_a_conversation_becomes_is_held_too(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor() as sup:
            moved = str(uuid.uuid4())
            first = await sup.spawn(fleet.config())
            await first.run(f"forget {moved}")
            assert first.session_id == moved
            second = await sup.spawn(fleet.config(resume=moved))
            assert second.session_id != moved
            await first.shutdown()
            third = await sup.spawn(fleet.config(resume=moved))
            assert third.session_id == moved

    asyncio.run(main())


def test_the_module_functions_hold_their_sessions(agents: Agents) -> None:
    resumed, chosen, moved = (str(uuid.uuid4()) for _ in range(3))
    first = agents.spawn(resume=resumed)
    assert spawner.agent_status(first).session_id == resumed
    assert spawner.agent_status(agents.spawn(resume=resumed)).session_id != resumed
    agents.spawn(session_id=chosen)
    with pytest.raises(ConfigError, match="is in use"):
        agents.spawn(session_id=chosen)
    agents.say(first, f"forget {moved}")
    assert spawner.agent_status(agents.spawn(resume=moved)).session_id != moved
    spawner.shutdown_claude_agent(first)
    for free in (resumed, moved):
        assert spawner.agent_status(agents.spawn(resume=free)).session_id == free


def test_a_session_is_free_when_its_process_is_gone_whoever_has_heard_of_it(
    agents: Agents,
) -> None:
    moved = str(uuid.uuid4())
    name = agents.spawn()
    agents.say(name, f"forget {moved}")
    assert take_hold(moved) is None
    pid = spawner.agent_status(name).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # As another host looks: nobody here asks for the agent.
    assert eventually(lambda: take_hold(moved))
