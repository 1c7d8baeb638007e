"""Reading: whole content, text, lines, and what a path is."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from vespera_file_ops import FileInfo
from vespera_file_ops.backends import python
from vespera_file_ops.backends.python import _read
from vespera_file_ops.backends.python._place import Place
from vespera_file_ops.errors import EncodingError, FileOpError, FileTooLarge, OutsideWorkspace


@pytest.mark.parametrize("size", [0, 1, 4096, 3_000_001])
def test_bytes_come_back_as_they_are(ops: ModuleType, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    (tmp_path / "f").write_bytes(content)
    assert ops.read_file(tmp_path / "f") == content


def test_a_file_whose_reads_would_block_is_not_taken_for_one_that_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `/proc/kmsg`, which no test may empty. The Rust backend's calls cannot be replaced."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    status = os.stat(__file__)

    @contextlib.contextmanager
    def opened(place: Place) -> Iterator[tuple[int, os.stat_result]]:
        yield reader, status

    monkeypatch.setattr(_read, "open_for_reading", opened)
    for content in (b"", b"some"):
        for limit in (None, 1 << 20):
            os.write(writer, content)
            with pytest.raises(BlockingIOError) as caught:
                python.read_file("log", max_bytes=limit)
            assert caught.value.filename == "log"
    os.close(writer)
    assert python.read_file("log") == b""
    os.close(reader)


GROWING = """
import importlib, os, resource, sys, threading
from vespera_file_ops.errors import FileTooLarge
ops = importlib.import_module(sys.argv[1])
path, size = sys.argv[2], 256 << 20
for _ in range(50):  # whoever is kept from running may come too late
    with open(path, "wb") as file:
        file.truncate(size)
    growing = threading.Timer(0.01, os.truncate, (path, 2 << 30))
    growing.start()
    try:
        ops.read_file(path, max_bytes=size)
    except FileTooLarge as error:
        if error.context["size"] is None:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
            break
    growing.join()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss differ")
def test_a_file_that_grows_is_read_no_further_than_allowed(ops: ModuleType, tmp_path: Path) -> None:
    command = [sys.executable, "-c", GROWING, ops.__name__, str(tmp_path / "f")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert int(done.stdout) < 1024


def test_text_keeps_byte_order_mark_and_line_endings(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes("\ufeffä\r\nb\rc\n𝄞".encode())
    assert ops.read_file_string(tmp_path / "f") == "\ufeffä\r\nb\rc\n𝄞"


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\r\nb\n\nc", ["a", "b", "", "c"]),
        (b"a\r\r\nb\r", ["a\r", "b\r"]),
        ("a\x0bb\x0cc\x85d\u2028e".encode(), ["a\x0bb\x0cc\x85d\u2028e"]),
        (b"\r\n", [""]),
    ],
)
def test_only_newlines_end_a_line(
    ops: ModuleType, tmp_path: Path, content: bytes, lines: list[str]
) -> None:
    (tmp_path / "f").write_bytes(content)
    assert ops.read_file_lines(tmp_path / "f") == lines


@pytest.mark.parametrize(
    ("content", "offset"), [(b"ab\xff", 2), (b"\xc3", 0), ("é".encode() + b"\xed\xa0\x80", 2)]
)
@pytest.mark.parametrize("function", ["read_file_string", "read_file_lines"])
def test_what_is_not_utf8_is_named_with_its_place(
    ops: ModuleType, tmp_path: Path, function: str, content: bytes, offset: int
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    with pytest.raises(EncodingError) as caught:
        getattr(ops, function)(path)
    error = caught.value
    assert isinstance(error, ValueError)
    assert isinstance(error, FileOpError)
    assert error.code == "encoding"
    assert error.context == {"path": str(path), "offset": offset}
    remedy = "read it as bytes with read_file"
    assert str(error) == f"{path}: not valid UTF-8 at byte {offset}; {remedy}"


def test_a_file_whose_size_is_unknown_is_read_whole(ops: ModuleType) -> None:
    assert ops.read_file("/proc/self/status").startswith(b"Name:")
    assert len(ops.read_file("/proc/kallsyms")) > 100_000


def test_a_sparse_file_beyond_memory_is_an_error(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(8 << 40)
    with pytest.raises(FileTooLarge, match=f"its {8 << 40} bytes do not fit in memory"):
        ops.read_file(path)


@pytest.mark.parametrize("limit", [None, 1 << 30])
def test_a_size_beyond_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    """Where the system promises more than it has. The Rust backend's twin is in `src/read.rs`."""
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(65 << 20)
    assert _read._all_memory() > 1 << 27
    monkeypatch.setattr(_read, "_all_memory", lambda: 64 << 20)
    with pytest.raises(FileTooLarge, match=f"its {65 << 20} bytes do not fit in memory"):
        python.read_file(path, max_bytes=limit)
    with path.open("wb") as file:
        file.truncate(1 << 20)
    assert len(python.read_file(path, max_bytes=limit)) == 1 << 20


def test_info_follows_symlinks(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("f")
    os.mkfifo(tmp_path / "fifo")
    assert ops.get_file_info(tmp_path / "f") == (5, True, False)
    assert ops.get_file_info(tmp_path / "link") == (5, True, False)
    assert ops.get_file_info(tmp_path)[1:] == (False, True)
    assert ops.get_file_info(tmp_path / "fifo") == (0, False, False)
    assert ops.get_file_info("/dev/null")[1:] == (False, False)
    assert isinstance(ops.get_file_info(tmp_path), tuple)


def test_everything_about_a_file(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    path.chmod(0o4640)
    os.link(path, tmp_path / "other")
    status = path.stat()
    wanted = FileInfo(
        path=str(path),
        size=5,
        is_file=True,
        is_dir=False,
        kind="file",
        mode=0o4640,
        mtime_ns=status.st_mtime_ns,
        is_symlink=False,
        links=2,
        inode=status.st_ino,
        device=status.st_dev,
        uid=status.st_uid,
        gid=status.st_gid,
    )
    assert ops.file_info(path) == wanted
    (tmp_path / "link").symlink_to("f")
    followed = replace(wanted, path=str(tmp_path / "link"), is_symlink=True)
    assert ops.file_info(tmp_path / "link") == followed
    for space in (ops, ops.Workspace(tmp_path)):
        base = "" if space is not ops else f"{tmp_path}/"
        itself = space.file_info(f"{base}link", follow_symlinks=False)
        assert (itself.kind, itself.is_symlink, itself.is_file) == ("symlink", True, False)
        assert space.file_info(f"{base}link").kind == "file"


def test_every_kind_has_its_word(ops: ModuleType, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "gone").symlink_to("none")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        assert ops.file_info(tmp_path / "socket").kind == "socket"
    assert ops.file_info(tmp_path).kind == "directory"
    assert ops.file_info(tmp_path / "fifo").kind == "fifo"
    assert ops.file_info("/dev/null").kind == "device"
    assert ops.file_info(tmp_path / "gone", follow_symlinks=False).kind == "symlink"
    with pytest.raises(FileNotFoundError):
        ops.file_info(tmp_path / "gone")


def test_a_directory_is_listed_with_kinds(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "b").write_text("x")
    (tmp_path / "a").symlink_to("d")
    os.mkfifo(tmp_path / "c")
    raw = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(raw)).write_text("x")
    wanted = [
        ("a", "symlink"),
        ("b", "file"),
        ("c", "other"),
        ("d", "directory"),
        (os.fsdecode(b"\xff"), "file"),
    ]
    for found in (ops.list_directory(tmp_path), ops.Workspace(tmp_path).list_directory(".")):
        assert [(entry.name, entry.kind) for entry in found] == wanted
    with pytest.raises(NotADirectoryError) as caught:
        ops.list_directory(tmp_path / "b")
    assert caught.value.filename == str(tmp_path / "b")
    with pytest.raises(OutsideWorkspace):
        ops.Workspace(tmp_path).list_directory("..")


def test_paths_may_be_text_bytes_or_pathlike(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "ä"
    path.write_bytes(b"x")
    for given in (str(path), os.fsencode(path), path):
        assert ops.read_file(given) == b"x"
