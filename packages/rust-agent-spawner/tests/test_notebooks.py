"""Notebooks: await in a cell, a cell interrupted or run twice, a kernel that is restarted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_agents import eventually, traced
from fleets import Fleet
from notebooks import Notebook

pytest.importorskip("ipykernel", reason="no kernel for this interpreter")

# The clients of kernels are written for loops that are gone from newer interpreters.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def notebook(fleet: Fleet, tmp_path: Path) -> Iterator[Notebook]:
    with Notebook(fleet.backend, fleet.trace, tmp_path) as running:
        yield running
    assert fleet.backend == "python" or fleet.gone()


def test_await_in_a_cell(notebook: Notebook, fleet: Fleet) -> None:
    cell = notebook.run(
        """
async with supervisor() as sup:
    results = await sup.run([agent(f"echo {n}") for n in range(3)])
    chat = await sup.spawn(agent())
    seen = []
    async def watch():
        async for event in chat:
            seen.append(event.kind)
    watching = asyncio.create_task(watch())
    turn = await chat.run("echo on")
    await chat.shutdown()
    await watching
print([r.result for r in results], turn.result, seen)
"""
    )
    assert (cell.raised, cell.err) == (None, ""), cell.traceback
    assert cell.out == "['echo 0', 'echo 1', 'echo 2'] echo on ['system', 'assistant', 'result']\n"
    assert fleet.gone()


def test_one_supervisor_over_several_cells(notebook: Notebook, fleet: Fleet) -> None:
    for code, out in [
        ("sup = await supervisor().__aenter__(); chat = await sup.spawn(agent())", ""),
        ("print((await chat.run('echo one')).result)", "echo one\n"),
        ("print((await chat.run('echo two')).result)", "echo two\n"),
        ("await sup.shutdown(); print(chat.state)", "ended\n"),
    ]:
        cell = notebook.run(code)
        assert (cell.raised, cell.err, cell.out) == (None, "", out), cell.traceback
    assert fleet.gone()


def test_an_interrupted_cell_ends_the_work_that_it_owned(notebook: Notebook, fleet: Fleet) -> None:
    notebook.run("sup = await supervisor().__aenter__()")
    # ipykernel cancels the cell in its signal handler, which wakes no loop that sleeps: a loop with
    # nothing else to do, in whatever cell, hears of it with the next thing that happens.
    cell = notebook.run_and_interrupt(
        """
async def told():
    while not any(a.state == "in_turn" for a in sup.agents()):
        await asyncio.sleep(0.005)
    print("in a turn", flush=True)
    while True:
        await asyncio.sleep(0.05)
telling = asyncio.create_task(told())
await sup.run([agent("hang"), agent("deaf")])
"""
    )
    notebook.run("telling.cancel()")
    assert cell.raised in ("KeyboardInterrupt", "CancelledError"), cell
    assert fleet.gone()
    # The supervisor is as good as before.
    cell = notebook.run("[r] = await sup.run([agent('echo again')]); print(r.result, sup.agents())")
    assert (cell.raised, cell.err, cell.out) == (None, "", "echo again []\n"), cell.traceback
    notebook.run("await sup.shutdown()")


def test_an_interrupted_blocking_call(notebook: Notebook, fleet: Fleet) -> None:
    cell = notebook.run(
        """
import warnings
warnings.simplefilter("ignore", RuntimeWarning)  # a call on a thread with a loop blocks it: known
spawner.spawn_claude_agent("a", sys.executable, backend=BACKEND, config={
    "args": [FAKE], "environment": {"FAKE_TRACE": TRACE}})
"""
    )
    assert cell.raised is None, cell.traceback
    cell = notebook.run_and_interrupt(
        """
def told():
    import time
    while spawner.agent_status("a").state != "in_turn":
        time.sleep(0.005)
    print("in a turn", flush=True)
threading.Thread(target=told).start()
spawner.execute_claude_json("a", {"prompt": "hang"})
"""
    )
    assert cell.raised == "KeyboardInterrupt", cell
    cell = notebook.run(
        """
print(spawner.execute_claude_json("a", {"prompt": "echo on"})["result"])
print(spawner.shutdown_claude_agent("a").code)
"""
    )
    assert (cell.raised, cell.out) == (None, "echo on\n0\n"), cell.traceback
    assert fleet.gone()


def test_a_cell_that_is_run_twice(notebook: Notebook, fleet: Fleet) -> None:
    code = """
sup = await supervisor().__aenter__()
chat = await sup.spawn(agent(agent_id="docs"))
print((await chat.run("echo hi")).result)
"""
    for _ in range(3):
        cell = notebook.run(code)
        assert (cell.raised, cell.out) == (None, "echo hi\n"), cell.traceback
    # What the names meant before was dropped, and its tree ended.
    notebook.run("import gc; gc.collect()")
    assert eventually(lambda: len(traced(fleet.trace)) == 1)
    cell = notebook.run("chat = await sup.spawn(agent(agent_id='docs'))")
    assert cell.raised == "AgentExists"
    notebook.run("await sup.shutdown()")
    assert fleet.gone()


@pytest.mark.parametrize("now", [False, True], ids=["asked", "killed"])
def test_a_kernel_that_is_restarted_leaves_nothing(
    notebook: Notebook, fleet: Fleet, now: bool
) -> None:
    if now and fleet.backend == "python":
        pytest.skip("the Python backend cannot act once its host is killed")
    cell = notebook.run(
        """
sup = await supervisor().__aenter__()
agents = [await sup.spawn(agent()), await sup.spawn(agent("hang"))]
await agents[0].run("leave")
print(len(agents))
"""
    )
    assert (cell.raised, cell.out) == (None, "2\n"), cell.traceback
    assert len(traced(fleet.trace)) == 3
    notebook.restart(now=now)
    assert fleet.gone()
    cell = notebook.run("print(spawner.list_agents())")
    assert (cell.raised, cell.out) == (None, "[]\n"), cell.traceback
