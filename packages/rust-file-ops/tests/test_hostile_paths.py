"""What stands at a path may be anything: every function answers at once and clearly."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vespera_file_ops.errors import EditError, FileOpError, PatternError

READERS = [
    "read_file",
    "read_file_string",
    "read_file_lines",
    "read_text",
    "read_lines",
    "hash_file",
    "count_replacements",
    "preview_edit",
    "preview_multi_edit",
]
# These make a file where there is none; editors need one.
WRITERS = ["write_file", "write_file_string", "append_file", "write_file_atomic", "write_text"]
EDITORS = ["edit_file", "multi_edit_file"]
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "write_file": (b"new",),
    "count_replacements": ("a",),
    "edit_file": ("a", "b"),
    "preview_edit": ("a", "b"),
    "multi_edit_file": ([("a", "b")],),
    "preview_multi_edit": ([("a", "b")],),
}
ALL = READERS + WRITERS + EDITORS


def call(ops: ModuleType, function: str, path: Any) -> Any:
    """Call any of the functions with a path, and give up if it hangs."""
    arguments = (path, *ARGUMENTS.get(function, ("new",) if function in WRITERS else ()))
    outcome: list[Callable[[], Any]] = []

    def work() -> None:
        try:
            value = getattr(ops, function)(*arguments)
            outcome.append(lambda: value)
        except BaseException as error:  # handed to the test's own thread
            caught = error

            def again() -> None:
                raise caught

            outcome.append(again)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert outcome, f"{function} hangs"
    return outcome[0]()


@pytest.mark.parametrize("function", [*READERS, *EDITORS, "get_file_info", "file_info"])
def test_a_missing_file(ops: ModuleType, tmp_path: Path, function: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        call(ops, function, tmp_path / "none")
    error = caught.value
    assert error.errno == errno.ENOENT
    assert error.filename == str(tmp_path / "none")
    assert error.strerror == os.strerror(errno.ENOENT)


@pytest.mark.parametrize("function", WRITERS)
def test_a_missing_directory(ops: ModuleType, tmp_path: Path, function: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        call(ops, function, tmp_path / "none" / "f")
    assert caught.value.filename == str(tmp_path / "none" / "f")


@pytest.mark.parametrize("function", ALL)
def test_an_empty_path(
    ops: ModuleType, tmp_path: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError):
        call(ops, function, "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("suffix", ["", "/", "/."])
def test_a_directory_in_place_of_a_file(
    ops: ModuleType, tmp_path: Path, function: str, suffix: str
) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        call(ops, function, f"{tmp_path}{suffix}")
    assert caught.value.errno == errno.EISDIR
    assert caught.value.filename == f"{tmp_path}{suffix}"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("function", WRITERS)
def test_a_new_name_that_only_a_directory_can_have(
    ops: ModuleType, tmp_path: Path, function: str
) -> None:
    with pytest.raises(IsADirectoryError):
        call(ops, function, f"{tmp_path}/none/")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("function", ALL)
def test_a_file_in_place_of_a_directory(ops: ModuleType, tmp_path: Path, function: str) -> None:
    (tmp_path / "f").write_text("kept")
    for path in (f"{tmp_path}/f/", f"{tmp_path}/f/g"):
        with pytest.raises(NotADirectoryError):
            call(ops, function, path)
    assert (tmp_path / "f").read_text() == "kept"


@pytest.mark.parametrize("function", ALL)
def test_a_fifo_never_hangs(ops: ModuleType, tmp_path: Path, function: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="a FIFO is not a regular file") as caught:
        call(ops, function, fifo)
    assert caught.value.errno == errno.ENXIO
    assert caught.value.filename == str(fifo)
    assert fifo.is_fifo()


@pytest.mark.parametrize("function", ALL)
def test_a_socket(ops: ModuleType, tmp_path: Path, function: str) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))
        with pytest.raises(OSError, match="a socket is not a regular file") as caught:
            call(ops, function, path)
    assert caught.value.errno == errno.ENXIO


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_a_device(ops: ModuleType, function: str, device: str) -> None:
    with pytest.raises(OSError, match="a device is not a regular file") as caught:
        call(ops, function, device)
    assert caught.value.errno == errno.ENODEV
    assert caught.value.filename == device
    assert Path(device).is_char_device()


@pytest.mark.parametrize("function", [*ALL, "get_file_info", "file_info"])
def test_arguments_that_are_no_path(ops: ModuleType, function: str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        call(ops, function, "a\0b")
    for wrong in (3, None, ["f"]):
        with pytest.raises(TypeError):
            call(ops, function, wrong)


@pytest.mark.parametrize("function", [*READERS, *EDITORS, "get_file_info", "file_info"])
def test_a_symlink_loop(ops: ModuleType, tmp_path: Path, function: str) -> None:
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        call(ops, function, tmp_path / "a")
    assert caught.value.errno == errno.ELOOP


def refusals(
    ops: ModuleType,
    function: str,
    path: Path,
    beside: Callable[[], None],
    done: threading.Event,
) -> set[Any]:
    """How calls are refused while `beside` runs, which goes on until `done`."""
    thread = threading.Thread(target=beside)
    thread.start()
    found: set[Any] = set()
    try:
        for _ in range(100):
            try:
                call(ops, function, path)
            except EditError:
                # Empty for a moment, or somebody else's new file.
                found.add("edit")
            except OSError as error:
                found.add((error.errno, error.filename))
    finally:
        done.set()
        thread.join()
    return found


@pytest.mark.parametrize("function", [*ALL, "get_file_info", "file_info"])
def test_a_file_that_vanishes_is_missing_and_nothing_else(
    ops: ModuleType, tmp_path: Path, function: str
) -> None:
    """It comes and goes while it is asked for; what the answer was is a matter of luck."""
    path = tmp_path / "f"
    done = threading.Event()

    def blink() -> None:
        while not done.is_set():
            path.write_text("a")
            path.unlink(missing_ok=True)

    found = refusals(ops, function, path, blink, done)
    assert found <= {(errno.ENOENT, str(path)), "edit"}
    assert set(os.listdir(tmp_path)) <= {"f"}


@pytest.mark.parametrize("function", ALL)
def test_a_path_that_turns_into_a_fifo_never_hangs(
    ops: ModuleType, tmp_path: Path, function: str
) -> None:
    """Between the look and the open, a file becomes a FIFO that nobody has open."""
    path, file, fifo = tmp_path / "f", tmp_path / "file", tmp_path / "fifo"
    done = threading.Event()

    def turn() -> None:
        while not done.is_set():
            file.touch()
            file.replace(path)
            os.mkfifo(fifo)
            fifo.replace(path)

    found = refusals(ops, function, path, turn, done)
    assert found <= {(errno.ENXIO, str(path)), (errno.ENOENT, str(path)), "edit"}
    assert set(os.listdir(tmp_path)) <= {"f", "file", "fifo"}


def test_a_name_that_is_not_utf8(ops: ModuleType, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/n\xff\xfe"
    text = os.fsdecode(raw)
    ops.write_file_atomic(raw, "one")
    ops.append_file(text, " two")
    assert ops.read_file_string(raw) == "one two"
    assert ops.get_file_info(text) == (7, True, False)
    assert ops.glob_files(tmp_path, "*") == [text]
    ops.edit_file(raw, "two", "2")
    ops.write_text(raw, ops.read_lines(raw).text + "!")
    assert ops.read_text(text).path == text
    assert ops.file_info(raw).size == 6
    assert ops.hash_file(raw) == ops.hash_files([raw])[0].value
    assert [one.value for one in ops.read_files([raw, text])] == [b"one 2!"] * 2
    assert ops.Workspace(tmp_path).read_text(os.path.basename(raw)).text == "one 2!"
    assert os.listdir(os.fsencode(tmp_path)) == [os.path.basename(raw)]
    os.unlink(raw)
    with pytest.raises(FileNotFoundError) as caught:
        ops.read_file(raw)
    assert caught.value.filename == text


def test_errors_name_what_is_not_utf8_as_it_can_be_opened(ops: ModuleType, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/n\xff"
    text = os.fsdecode(raw)
    ops.write_file(raw, b"a\xffb")
    space = ops.Workspace(raw[:-3])
    outside = os.fsdecode(b"../n\xff")
    asked: list[tuple[str, Callable[[], object]]] = [
        (text, lambda: ops.read_text(raw)),
        (text, lambda: ops.read_file_string(raw)),
        (text, lambda: ops.read_file(raw, max_bytes=1)),
        (text, lambda: ops.read_text(raw, encoding="utf-16-le")),
        (text, lambda: ops.write_text(raw, "✓", encoding="latin-1")),
        (text, lambda: ops.edit_file(raw, "x", "y", encoding="latin-1")),
        (text, lambda: ops.edit_file(raw, "x", "y", expect=0)),
        (outside, lambda: space.read_file(outside)),
    ]
    for name, call_it in asked:
        with pytest.raises(FileOpError) as caught:
            call_it()
        assert caught.value.context["path"] == name
        assert str(caught.value).startswith(f"{name}: ")
    with pytest.raises(PatternError) as refused:
        ops.glob_files(tmp_path, os.fsdecode(b"\xff["))
    assert refused.value.context["pattern"] == "\udcff["
    assert str(refused.value).startswith("glob pattern '\udcff['")


def test_an_error_of_the_system_names_one_path(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "none" / "f"
    for function in ALL:
        with pytest.raises(FileNotFoundError) as caught:
            call(ops, function, path)
        assert str(caught.value) == f"[Errno 2] {os.strerror(errno.ENOENT)}: '{path}'"
        assert (caught.value.errno, caught.value.filename2) == (errno.ENOENT, None)


def test_names_that_only_a_directory_can_have_are_refused_as_they_were_given(
    ops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_text("old")
    os.symlink("f/", tmp_path / "to-f")
    os.symlink("none", tmp_path / "dangling")
    monkeypatch.chdir(tmp_path)
    directory, no_directory = errno.EISDIR, errno.ENOTDIR
    names = {"new/": directory, "new//": directory, "dangling/": directory, "to-f": no_directory}
    writers = ("write_file", "append_file", "write_file_atomic", "write_text")
    for where in (ops, ops.Workspace(".")):
        for name, number in names.items():
            for function in writers:
                with pytest.raises(OSError, match=re.escape(os.strerror(number))) as caught:
                    call(where, function, name)
                assert (caught.value.errno, caught.value.filename) == (number, name), function
    assert sorted(os.listdir()) == ["dangling", "f", "to-f"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_directory_that_takes_no_new_files_is_told(ops: ModuleType) -> None:
    path = "/proc/self/comm"
    asked: list[Callable[[], object]] = [
        lambda: ops.write_file_atomic(path, "x"),
        lambda: ops.edit_file(path, ops.read_file_string(path), "x"),
        lambda: ops.write_files([(path, "x")])[0].unwrap(),
    ]
    for call_it in asked:
        with pytest.raises(
            OSError, match=r"its directory takes no new files, .*write_file"
        ) as caught:
            call_it()
        assert (caught.value.errno, caught.value.filename) == (errno.EOPNOTSUPP, path)
    with pytest.raises(FileNotFoundError):
        ops.write_file_atomic("/proc/self/none", "x")


def test_a_name_that_is_too_long(ops: ModuleType, tmp_path: Path) -> None:
    for function in ALL:
        with pytest.raises(OSError, match="too long") as caught:
            call(ops, function, tmp_path / ("n" * 256))
        assert caught.value.errno == errno.ENAMETOOLONG
    assert os.listdir(tmp_path) == []
