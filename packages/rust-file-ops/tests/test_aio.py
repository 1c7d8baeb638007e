"""The functions for asyncio: the same as the others, the loop free, cancellation as documented."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import vespera_file_ops
from vespera_file_ops import _threads, aio
from vespera_file_ops._operations import WRITERS, WorkspaceOperations
from vespera_file_ops.backends._protocol import FileOps
from vespera_file_ops.errors import ReadOnlyWorkspace, StringNotFound

NAMES = [name for name in vars(FileOps) if not name.startswith("_")]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Workspace"])
def test_every_function_has_its_twin(name: str) -> None:
    assert name in aio.__all__
    for twin, original in (
        (getattr(aio, name), getattr(vespera_file_ops, name)),
        (getattr(aio.Workspace, name), getattr(WorkspaceOperations, name)),
    ):
        assert inspect.iscoroutinefunction(twin)
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


class Numbers:
    """Iterates in whatever thread asks, and knows whether it was closed."""

    def __init__(self, last: int) -> None:
        self.next = 0
        self.last = last
        self.closed = False
        self.threads: set[str] = set()

    def __iter__(self) -> Numbers:
        return self

    def __next__(self) -> int:
        self.threads.add(threading.current_thread().name)
        if self.next == self.last:
            raise StopIteration
        self.next += 1
        return self.next

    def close(self) -> None:
        self.closed = True


def test_an_iterator_is_streamed_from_threads() -> None:
    numbers = Numbers(1000)

    async def main() -> None:
        found = [number async for number in _threads.stream(lambda: numbers)]
        assert found == list(range(1, 1001))

    asyncio.run(main())
    assert numbers.closed
    assert all(name.startswith("vespera-files") for name in numbers.threads)


def test_a_stream_that_is_left_is_closed() -> None:
    numbers = Numbers(1_000_000)

    async def main() -> None:
        stream = _threads.stream(lambda: numbers)
        async for number in stream:
            if number == 10:
                break
        await stream.aclose()

    asyncio.run(main())
    assert numbers.closed
    assert numbers.next <= _threads._SOME


def test_an_error_of_an_iterator_comes_behind_its_items() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise FileNotFoundError("gone")

    async def main() -> None:
        stream = _threads.stream(failing)
        assert await anext(stream) == 1
        with pytest.raises(FileNotFoundError, match="gone"):
            await anext(stream)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
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
