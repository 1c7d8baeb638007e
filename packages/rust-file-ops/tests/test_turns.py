"""Writers of one file take turns, whichever backend and process they are of; who waits can be told
to stop, and a lock that is somebody else's is told as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vespera_file_ops import _threads, _turns, aio
from vespera_file_ops.backends import python
from vespera_file_ops.backends.python import _turns as locks
from vespera_file_ops.backends.python._place import Place
from vespera_file_ops.backends.python._temporary import try_lock
from vespera_file_ops.errors import ContentChanged, FileLocked

fcntl = pytest.importorskip("fcntl")


def child(backend: str, path: Path, body: str, *within: str) -> subprocess.Popen[str]:
    code = f"import importlib, os, sys\nops = importlib.import_module(sys.argv[1])\n{body}"
    command = [*within, sys.executable, "-c", code, backend, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ended(*children: subprocess.Popen[str]) -> None:
    for one in children:
        with one:
            assert one.wait(60) == 0


@pytest.fixture
def both(ops: ModuleType) -> list[str]:
    """That of the test and the one in Python."""
    return [ops.__name__, python.__name__]


APPENDING = """
for number in range(1500):
    ops.append_file(sys.argv[2], f"{os.getpid()} {number}\\n")
"""


def test_appends_beside_edits_lose_nothing(
    ops: ModuleType, both: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_text("<0>\n")
    appending = [child(backend, path, APPENDING) for backend in both]
    number = 0
    while any(one.poll() is None for one in appending) or number == 0:
        ops.edit_file(path, f"<{number}>", f"<{number + 1}>")
        number += 1
    ended(*appending)
    wanted = [f"{one.pid} {number}" for one in appending for number in range(1500)]
    assert sorted(path.read_text().splitlines()) == sorted([f"<{number}>", *wanted])


EDITING = """
for number in range(60):
    ops.edit_file(sys.argv[2], f"<{sys.argv[1]} {number}>", f"<{sys.argv[1]} {number + 1}>")
"""


def test_edits_of_several_processes_never_meet(both: list[str], tmp_path: Path) -> None:
    """Who waited for a lock on the file that has been replaced holds nothing: it must look again,
    or two are at work at once, and one of them finds the content changed.
    """
    path = tmp_path / "f"
    names = [both[0], both[1], both[0], both[1]]
    path.write_text("".join(f"<{number} {name} 0>\n" for number, name in enumerate(names)))
    body = EDITING.replace("<{sys.argv[1]}", "<NUMBER {sys.argv[1]}")
    editing = [
        child(name, path, body.replace("NUMBER", str(number))) for number, name in enumerate(names)
    ]
    ended(*editing)
    assert path.read_text() == "".join(f"<{n} {name} 60>\n" for n, name in enumerate(names))


@pytest.mark.usefixtures("tracer")
@pytest.mark.parametrize(
    ("call", "left"),
    [
        ('append_file(sys.argv[2], " and more")', "new and more"),
        ('write_file(sys.argv[2], b"in place")', "in place"),
        ('edit_file(sys.argv[2], "new", "newer")', "newer"),
    ],
    ids=["append", "write", "edit"],
)
def test_a_file_that_is_replaced_before_it_is_locked(
    ops: ModuleType, tmp_path: Path, call: str, left: str
) -> None:
    path, log = tmp_path / "f", tmp_path / "log"
    path.write_text("old")
    (tmp_path / "next").write_text("new")
    # The lock comes a second after the opening, which the log shows.
    options = ["-e", "trace=openat,flock", "-e", "inject=flock:delay_enter=1000000:when=1"]
    strace = ["strace", "-f", "-o", str(log), *options]
    with child(ops.__name__, path, f"ops.{call}", *strace) as writing:
        while not (log.exists() and f'"{path}", O_' in log.read_text()):
            assert writing.poll() is None
            time.sleep(0.001)
        os.replace(tmp_path / "next", path)
        assert writing.wait(60) == 0
    assert path.read_text() == left


def test_a_lock_on_a_file_that_was_replaced_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    (tmp_path / "next").write_text("new")

    def late(descriptor: int) -> bool:
        with contextlib.suppress(FileNotFoundError):
            os.replace(tmp_path / "next", path)
        return try_lock(descriptor)

    monkeypatch.setattr(locks, "try_lock", late)
    with locks.alone(Place(str(path))), pytest.raises(BlockingIOError), path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    (tmp_path / "next").write_text("newer")
    python.append_file(path, " and more")
    assert path.read_text() == "newer and more"


def test_a_writer_that_takes_no_turns_is_seen(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"

    def write_late() -> None:
        """Once the temporary file is there the old content was read, and is not yet replaced."""
        deadline = time.monotonic() + 20
        while len(os.listdir(tmp_path)) == 1 and time.monotonic() < deadline:
            pass
        with path.open("r+b") as file:
            file.write(b"mine")

    seen: list[ContentChanged] = []
    for _ in range(10):  # whoever is kept from running for so long may come too late
        path.write_bytes(b"needle" + b"x" * (8 << 20))
        writer = threading.Thread(target=write_late)
        writer.start()
        try:
            ops.edit_file(path, "needle", "new")
        except ContentChanged as error:
            seen.append(error)
        writer.join()
        if seen:
            break
    assert [error.context["reason"] for error in seen] == ["it was written while it was edited"]
    assert path.read_bytes()[:6] == b"minele"
    assert os.listdir(tmp_path) == ["f"]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A file that somebody else holds a lock on."""
    path = tmp_path / "held"
    path.write_text("old")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield path


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_turns, "PATIENCE", 0.05)
    monkeypatch.setattr(_threads, "PATIENCE", 0.05)


CALLS: dict[str, Any] = {
    "edit_file": ("old", "new"),
    "multi_edit_file": ([("old", "new")],),
    "write_file": (b"new",),
    "write_file_string": ("new",),
    "append_file": ("new",),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", CALLS)
def test_a_lock_that_stays_is_told(ops: ModuleType, held: Path, name: str) -> None:
    with pytest.raises(BlockingIOError, match=r"holds a lock \(flock\).*lslocks") as caught:
        getattr(ops, name)(held, *CALLS[name])
    error = caught.value
    assert isinstance(error, FileLocked)
    assert str(error).startswith(f"{held}: another process")
    assert (error.errno, error.filename) == (errno.EAGAIN, str(held))
    assert error.code == "file_locked"
    assert error.context["path"] == str(held)
    assert 0.05 <= error.context["waited_seconds"] < 10
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.errno, again.context) == (str(error), errno.EAGAIN, error.context)
    assert held.read_text() == "old"


@pytest.mark.usefixtures("impatient")
def test_a_locked_file_whose_name_is_not_utf8_is_named_as_it_can_be_opened(
    ops: ModuleType, held: Path
) -> None:
    path = os.fsdecode(os.fsencode(held) + b"\xff")
    held.rename(path)
    with pytest.raises(FileLocked) as caught:
        ops.edit_file(path, "old", "new")
    assert (caught.value.filename, caught.value.context["path"]) == (path, path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.usefixtures("impatient")
def test_expectations_wait_and_plain_replacements_do_not(ops: ModuleType, held: Path) -> None:
    known = held.stat().st_mtime_ns
    with pytest.raises(FileLocked):
        ops.write_text(held, "new", expect=known)
    with pytest.raises(FileLocked):
        ops.write_file(held, b"new", atomic=True, expect=known)
    assert ops.preview_edit(held, "old", "new").replacements == 1
    ops.write_file_atomic(held, "new")
    assert held.read_text() == "new"


@pytest.mark.usefixtures("impatient")
def test_a_batch_writes_what_is_not_locked(ops: ModuleType, held: Path) -> None:
    free = held.with_name("free")
    items = [(held, b"new"), (free, b"new"), (free.with_name("none") / "f", b"new")]
    space = ops.Workspace("/")
    below = [(str(path).lstrip("/"), content) for path, content in items]
    for write in (
        lambda: ops.write_files(items, atomic=False),
        lambda: asyncio.run(aio.Workspace(space).write_files(below, atomic=False)),
    ):
        written = write()
        assert isinstance(written[0].error, FileLocked)
        assert written[0].error.context["waited_seconds"] >= 0.05
        assert written[1].ok
        assert isinstance(written[2].error, FileNotFoundError)
        assert free.read_bytes() == b"new"
        free.unlink()
    assert held.read_text() == "old"


def test_who_waits_goes_on_when_the_lock_is_gone(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        release = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        items = [(path, b"new"), (tmp_path / "other", b"new")]
        assert all(one.ok for one in ops.write_files(items, atomic=False))
        release.join()
        fcntl.flock(file, fcntl.LOCK_EX)
        release = threading.Timer(0.1, fcntl.flock, (file, fcntl.LOCK_UN))
        release.start()
        ops.append_file(path, "er")
        release.join()
    assert path.read_text() == "newer"


def test_a_signal_ends_the_waiting(ops: ModuleType, held: Path) -> None:
    body = """
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.2, os.kill, (os.getpid(), 2)).start()
try:
    ops.edit_file(sys.argv[2], "old", "new")
except KeyboardInterrupt:
    print("interrupted")
"""
    began = time.monotonic()
    with child(ops.__name__, held, body) as waiting:
        assert waiting.communicate(timeout=60)[0] == "interrupted\n"
    assert time.monotonic() - began < 5
    assert held.read_text() == "old"


def test_waiting_calls_take_no_threads_and_end_when_cancelled(ops: ModuleType, held: Path) -> None:
    space = aio.Workspace(ops.Workspace(held.parent))
    other = held.with_name("other")
    other.write_text("free")

    async def main() -> None:
        edits = [space.edit_file("held", "old", "new") for _ in range(4 * _threads._MOST)]
        waiting = [asyncio.create_task(edit) for edit in edits]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await space.read_file("other") == b"free"
        for one in waiting:
            assert not one.done()
            one.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(one) for one in done} == {asyncio.CancelledError}
        assert time.monotonic() - began < 2

    asyncio.run(main())
    assert held.read_text() == "old"


def test_edits_of_one_loop_take_turns(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("".join(f"<{number}>\n" for number in range(30)))
    space = aio.Workspace(ops.Workspace(tmp_path))

    async def main() -> None:
        await asyncio.gather(
            *(space.edit_file("f", f"<{number}>", f"<{number}+>") for number in range(30))
        )

    asyncio.run(main())
    assert path.read_text() == "".join(f"<{number}+>\n" for number in range(30))


def test_nothing_is_held_afterwards(ops: ModuleType, tmp_path: Path) -> None:
    for function in ("write_file_string", "append_file"):
        getattr(ops, function)(tmp_path / function, "new")
        with (tmp_path / function).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


FORKING = """
import fcntl, importlib, os, sys, threading

ops = importlib.import_module(sys.argv[1])
path, works = sys.argv[2] + "/f", {
    "write_file": lambda: ops.write_file(path, b"x" * (32 << 20)),
    "write_file_atomic": lambda: ops.write_file_atomic(path, "x" * (32 << 20)),
}
work = works[sys.argv[3]]

def free(name):
    try:
        with open(name) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except BlockingIOError:
        return False
    return True

ops.write_file(path, b"")
seen, children = 0, []
reader, writer = os.pipe()
for _ in range(20):  # whoever is kept from running may come too late
    writing = threading.Thread(target=work)
    writing.start()
    while writing.is_alive():
        if not all(free(os.path.join(sys.argv[2], name)) for name in os.listdir(sys.argv[2])):
            seen += 1
            children.append(os.fork())
            if children[-1] == 0:
                os.close(writer)
                os.read(reader, 1)
                os._exit(0)
            break
    writing.join()
    if seen:
        break
print(seen, free(path))
os.close(writer)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.parametrize("work", ["write_file", "write_file_atomic"])
def test_a_child_that_was_forked_meanwhile_keeps_no_lock(
    ops: ModuleType, tmp_path: Path, work: str
) -> None:
    """It has the file open, too, and may live for as long as it likes."""
    command = [sys.executable, "-W", "ignore", "-c", FORKING, ops.__name__, str(tmp_path), work]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout == "1 True\n"
