"""Event loops that end, stop or are forked before their agents are ended: nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_agents import Agents, eventually, traced
from hosts import Host

PREAMBLE = """
import asyncio

async def enter(**fields):
    fleet = spawner.Supervisor({"memory_reserve": 0, "backend": BACKEND})
    await fleet.__aenter__()
    return fleet

async def agent(fleet, how="", prompt=None):
    return await fleet.spawn(spawner.AgentConfig(
        program=sys.executable, args=(FAKE,), prompt=prompt,
        environment={"FAKE_CLAUDE": how, "FAKE_TRACE": TRACE}))
"""

WAITS = "sys.stdin.read()\n"

# What a host does with its loop, after which it exits. The agents are held: nobody drops them.
ENDS = {
    "asyncio.run is left": """
async def main():
    global held
    fleet = await enter()
    held = [fleet, await agent(fleet), await agent(fleet, "stubborn")]
asyncio.run(main())
""",
    "asyncio.run is left in a turn": """
async def main():
    global held
    fleet = await enter()
    held = [fleet, await agent(fleet), await agent(fleet, prompt="deaf")]
    await held[1].send("deaf")
    await asyncio.sleep(0.05)
asyncio.run(main())
""",
    "asyncio.run is left in a start": """
async def main():
    global held
    fleet = await enter()
    held = [fleet, asyncio.ensure_future(agent(fleet, "silent"))]
    while not fleet.list_agents() or fleet.list_agents()[0].pid is None:
        await asyncio.sleep(0.01)
asyncio.run(main())
""",
    "the loop is closed": """
loop = asyncio.new_event_loop()
fleet = loop.run_until_complete(enter())
held = [loop.run_until_complete(agent(fleet)) for _ in range(2)]
loop.run_until_complete(held[0].send("deaf"))
loop.close()
""",
    "the loop is closed over what an agent left behind": """
loop = asyncio.new_event_loop()
fleet = loop.run_until_complete(enter())
held = loop.run_until_complete(agent(fleet))
loop.run_until_complete(held.run("leave"))
loop.close()
""",
    "the loop is stopped": """
loop = asyncio.new_event_loop()
fleet = loop.run_until_complete(enter())
held = [loop.run_until_complete(agent(fleet, how)) for how in ("", "stubborn")]
""",
    "the loop runs in another thread": """
async def main():
    global held
    fleet = await enter()
    held = [fleet, await agent(fleet), await agent(fleet, "stubborn")]
    started.set()
    await asyncio.sleep(1000)
started = threading.Event()
threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
started.wait()
""",
}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_and_nothing_is_said(agents: Agents, tmp_path: Path, end: str) -> None:
    code = f"{PREAMBLE}{ENDS[end]}\ntell(ended=True)\n"
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        host.news()
        assert host.ends(within=20) == ""
        assert eventually(lambda: not traced(agents.trace))


@pytest.mark.parametrize("end", ["asyncio.run is left", "the loop is closed"])
def test_agents_end_with_their_loop(agents: Agents, tmp_path: Path, end: str) -> None:
    code = f"{PREAMBLE}{ENDS[end]}\ntell(states=[str(a.state) for a in held[-2:]])\n{WAITS}"
    with Host(agents.backend, agents.trace, code, tmp_path, stdin=-1) as host:
        assert host.news() == {"states": ["ended", "ended"]}
        assert not traced(agents.trace)
        host.ends()


def test_an_agent_dropped_while_its_loop_stands_still_is_ended(
    agents: Agents, tmp_path: Path
) -> None:
    code = (
        PREAMBLE
        + """
loop = asyncio.new_event_loop()
fleet = loop.run_until_complete(enter())
held = loop.run_until_complete(agent(fleet))
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    del held
    import gc
    gc.collect()
tell(warned=[w.category.__name__ for w in seen])
"""
        + WAITS
    )
    with Host(agents.backend, agents.trace, code, tmp_path, stdin=-1) as host:
        assert host.news() == {"warned": ["ResourceWarning"]}
        assert eventually(lambda: not traced(agents.trace))
        host.ends()


def test_a_fork_inside_of_a_loop_ends_nothing_of_the_parent(agents: Agents, tmp_path: Path) -> None:
    code = (
        PREAMBLE
        + """
async def main():
    fleet = await enter()
    chat = await agent(fleet)
    before = set(os.listdir("/proc/self/fd"))
    child = os.fork()
    if child == 0:
        # A child that does what it must not: it goes on with its parent's loop, and closes it.
        del chat, fleet
        import gc
        gc.collect()
        asyncio.get_running_loop().stop()
        return
    assert os.waitpid(child, 0)[1] == 0
    tell(result=(await chat.run("echo parent")).result)
    await fleet.shutdown()

parent = os.getpid()
loop = asyncio.new_event_loop()
try:
    loop.run_until_complete(main())
except RuntimeError:
    assert os.getpid() != parent
if os.getpid() != parent:
    loop.close()
    os._exit(0)
"""
    )
    with Host(agents.backend, agents.trace, code, tmp_path) as host:
        assert host.news() == {"result": "echo parent"}
        host.ends()
