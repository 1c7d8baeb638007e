"""The functions for asyncio: the same as the others, the loop free, cancellation as documented."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from types import ModuleType

import pytest

import vespera_file_ops
from vespera_file_ops import _threads, aio
from vespera_file_ops._async_finding import AsyncFound
from vespera_file_ops._finding import Found
from vespera_file_ops._operations import WRITERS, WorkspaceOperations
from vespera_file_ops.backends._protocol import FileOps
from vespera_file_ops.errors import PatternError, ReadOnlyWorkspace, StringNotFound

NAMES = [name for name in vars(FileOps) if not name.startswith("_")]


# Not awaited: each gives an iterator.
FINDERS = {"walk", "search_files", "count_matches"}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Workspace"])
def test_every_function_has_its_twin(name: str) -> None:
    assert name in aio.__all__
    for twin, original in (
        (getattr(aio, name), getattr(vespera_file_ops, name)),
        (getattr(aio.Workspace, name), getattr(WorkspaceOperations, name)),
    ):
        assert inspect.iscoroutinefunction(twin) == (name not in FINDERS)
        assert inspect.signature(twin) == inspect.signature(original)
        assert twin.__doc__ == original.__doc__


def test_the_writers_are_functions() -> None:
    assert set(NAMES) >= WRITERS


def test_results_and_errors_are_those_of_the_functions(tmp_path: Path) -> None:
    path = tmp_path / "f"

    async def main() -> None:
        await aio.write_text(path, "one\n")
        assert (await aio.read_text(path)).text == "one\n"
        assert (await aio.edit_file(path, "one", "two")).replacements == 1
        with pytest.raises(StringNotFound):
            await aio.edit_file(path, "one", "two")
        with pytest.raises(FileNotFoundError) as caught:
            await aio.read_file(tmp_path / "none")
        assert caught.value.filename == str(tmp_path / "none")
        found = await asyncio.gather(*(aio.read_file(path) for _ in range(50)))
        assert found == [b"two\n"] * 50

    asyncio.run(main())


def test_a_workspace(ops: ModuleType, tmp_path: Path) -> None:
    async def main() -> None:
        space = aio.Workspace(ops.Workspace(tmp_path))
        await space.write_file_atomic("f", "x")
        assert await space.read_file("f") == b"x"
        with pytest.raises(PermissionError):
            await space.read_file("../f")
        closed = aio.Workspace(tmp_path, read_only=True)
        assert (closed.read_only, closed.root) == (True, str(tmp_path))
        assert repr(closed) == f"aio.Workspace({str(tmp_path)!r}, read_only=True)"
        with pytest.raises(ReadOnlyWorkspace):
            await closed.write_text("f", "y")

    asyncio.run(main())


class Gate:
    """Work that says when it began and goes on when it is let."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go_on = threading.Event()
        self.ended = threading.Event()

    def work(self) -> str:
        self.began.set()
        assert self.go_on.wait(20)
        self.ended.set()
        return "done"


async def begun(*gates: Gate) -> None:
    for gate in gates:
        assert await asyncio.to_thread(gate.began.wait, 20)


def test_a_cancelled_reader_is_left_to_itself() -> None:
    gate = Gate()

    async def main() -> None:
        task = asyncio.create_task(_threads.run(gate.work, writes=False))
        await begun(gate)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not gate.ended.is_set()
        gate.go_on.set()

    asyncio.run(main())
    assert gate.ended.wait(20)


def test_a_cancelled_writer_is_waited_for() -> None:
    gate = Gate()

    async def main() -> None:
        task = asyncio.create_task(_threads.run(gate.work, writes=True))
        await begun(gate)
        for _ in range(3):
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
        assert not task.done()
        gate.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.ended.is_set()

    asyncio.run(main())


def test_a_call_that_has_not_begun_never_begins(tmp_path: Path) -> None:
    gates = [Gate() for _ in range(_threads._MOST)]

    async def main() -> None:
        full = [asyncio.create_task(_threads.run(gate.work, writes=False)) for gate in gates]
        await begun(*gates)
        task = asyncio.create_task(aio.write_file(tmp_path / "f", b"x"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for gate in gates:
            gate.go_on.set()
        assert await asyncio.gather(*full) == ["done"] * len(gates)
        # The pool has nothing left to do: the cancelled call would have been next.
        await aio.read_files([])

    asyncio.run(main())
    assert os.listdir(tmp_path) == []


def test_an_error_after_the_cancellation_is_nobodys(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()

    def fail() -> None:
        gate.work()
        raise OSError("too late")

    async def main() -> None:
        task = asyncio.create_task(_threads.run(fail, writes=True))
        await begun(gate)
        task.cancel()
        await asyncio.sleep(0)
        gate.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert caplog.records == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number in range(1000):
        (tmp_path / f"f{number:03}").write_text(f"number {number}\nneedle\n")
    return tmp_path


def test_what_is_found_is_the_same(ops: ModuleType, tree: Path) -> None:
    plain = ops.Workspace(tree)

    async def main() -> None:
        space = aio.Workspace(plain)
        entries = space.walk(".", sort=True)
        assert [entry async for entry in entries] == list(plain.walk(".", sort=True))
        matches = [match async for match in space.search_files(".", "r 7", before=1, sort=True)]
        assert matches == list(plain.search_files(".", "r 7", before=1, sort=True))
        counts = [count async for count in space.count_matches(".", "e", sort=True)]
        assert counts == list(plain.count_matches(".", "e", sort=True))
        async with space.search_files(".", "needle", limit=3) as few:
            assert len([match async for match in few]) == 3
            assert (few.limited, few.errors, few.error_count) == (True, [], 0)
        assert len(await space.search_text("a\nab\n", "a")) == 2
        assert len({entry async for entry in aio.walk(tree)}) == 1000

    asyncio.run(main())


def test_what_finds_tells_errors_with_its_first_result(tree: Path) -> None:
    async def main() -> None:
        with pytest.raises(PatternError):
            await anext(aio.search_files(tree, "(a"))
        with pytest.raises(FileNotFoundError) as caught:
            await anext(aio.walk(tree / "none"))
        assert caught.value.filename == str(tree / "none")
        with pytest.raises(PermissionError):
            await anext(aio.Workspace(tree).walk(".."))

    asyncio.run(main())


def finders() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("vespera-finding")]


def gone(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_a_search_that_is_left_has_ended(ops: ModuleType, tree: Path) -> None:
    async def main() -> None:
        async with aio.Workspace(ops.Workspace(tree)).walk(".") as found:
            async for _ in found:
                break
        assert [entry async for entry in found] == []
        dropped = aio.Workspace(ops.Workspace(tree)).walk(".")
        async for _ in dropped:
            break
        own, source = finders(), weakref.ref(dropped._source)
        del dropped
        await asyncio.to_thread(gone, own)
        for _ in range(2000):
            if source() is None:
                break
            await asyncio.sleep(0.01)
        assert source() is None

    asyncio.run(asyncio.wait_for(main(), 20))


LEFT_PENDING = """
import asyncio, importlib, sys, time
from vespera_file_ops import aio

space = aio.Workspace(importlib.import_module(sys.argv[1]).Workspace(sys.argv[2]))


async def main():
    slow = space.search_files(".", "no such text", follow=True)
    waiting = asyncio.create_task(anext(slow))
    await asyncio.sleep(0.3)
    sys.modules["kept"] = slow, waiting
    print(time.time(), flush=True)


loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


def test_a_search_left_pending_does_not_hold_the_interpreter(
    ops: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "large").write_text("line\n" * (4 << 20))
    for number in range(5000):
        (tmp_path / str(number)).symlink_to("large")
    done = subprocess.run(
        [sys.executable, "-c", LEFT_PENDING, ops.__name__, str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert time.time() - float(done.stdout) < 3
    assert "Fatal" not in done.stderr


class Slow:
    """A search that finds two things and then nothing, until it is closed."""

    def __init__(self) -> None:
        self.batches = [["one"], ["two"]]
        self.waits = threading.Event()
        self.closed = threading.Event()

    def next_batch(self) -> list[str] | None:
        if self.batches:
            return self.batches.pop(0)
        self.waits.set()
        assert self.closed.wait(20)
        return None

    def problems(self) -> tuple[list[tuple[int, str]], int]:
        return [], 0

    def close(self) -> None:
        self.closed.set()


def test_a_result_waits_for_no_other(tmp_path: Path) -> None:
    searches = [Slow() for _ in range(2 * _threads._MOST)]

    async def main() -> None:
        found = [AsyncFound(lambda slow=slow: Found(slow)) for slow in searches]  # type: ignore[misc]
        for each in found:
            assert [await anext(each), await anext(each)] == ["one", "two"]
        # As many as that wait now, and nobody else has to.
        await aio.write_file(tmp_path / "f", b"x")
        for each in found:
            await each.aclose()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert all(slow.closed.is_set() for slow in searches)


def test_what_is_found_after_the_end_is_nobodys() -> None:
    class Late(Slow):
        def next_batch(self) -> list[str] | None:
            return super().next_batch() or ["late"]

    late = Late()

    async def main() -> None:
        found = AsyncFound(lambda: Found(late))
        # Left in the middle of what is there already.
        async for _ in found:
            break
        assert await asyncio.to_thread(late.waits.wait, 20)
        await found.aclose()
        thread = found._source._thread
        assert thread is not None
        await asyncio.to_thread(thread.join, 20)
        assert [text async for text in found] == []

    asyncio.run(asyncio.wait_for(main(), 20))


def test_cancelling_who_waits_for_a_result_ends_the_search() -> None:
    slow = Slow()

    async def main() -> None:
        async def listen() -> list[str]:
            return [text async for text in AsyncFound(lambda: Found(slow))]

        task = asyncio.create_task(listen())
        assert await asyncio.to_thread(slow.waits.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.closed.is_set()

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_threads_of_its_own(tmp_path: Path) -> None:
    asyncio.run(aio.write_file(tmp_path / "parent", b"x"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(asyncio.wait_for(aio.write_file(tmp_path / "child", b"x"), 20))
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "child").read_bytes() == b"x"
