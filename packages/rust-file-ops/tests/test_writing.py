"""Writing in place and appending: the same inode afterwards, nothing half-written."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vespera_file_ops.errors import EncodingError


@pytest.mark.parametrize("old", [None, b"", b"short", b"x" * 100_000])
@pytest.mark.parametrize("new", [b"", b"new\r\n\xff", b"y" * 70_000])
def test_the_new_content_is_all_there_is(
    ops: ModuleType, tmp_path: Path, old: bytes | None, new: bytes
) -> None:
    path = tmp_path / "f"
    if old is not None:
        path.write_bytes(old)
    assert ops.write_file(path, new) is None
    assert path.read_bytes() == new


def test_inode_mode_and_hard_links_stay(ops: ModuleType, tmp_path: Path) -> None:
    path, other = tmp_path / "f", tmp_path / "other"
    path.write_bytes(b"old")
    path.chmod(0o640)
    os.link(path, other)
    before = path.stat()
    ops.write_file_string(path, "new")
    after = path.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert other.read_text() == "new"


@pytest.mark.parametrize("function", ["write_file_string", "append_file", "write_file_atomic"])
def test_text_is_utf8_without_translation(ops: ModuleType, tmp_path: Path, function: str) -> None:
    getattr(ops, function)(tmp_path / "f", "ä\r\nb\n𝄞\0")
    assert (tmp_path / "f").read_bytes() == "ä\r\nb\n𝄞\0".encode()


@pytest.mark.parametrize("function", ["write_file", "append_file", "write_file_atomic"])
def test_a_new_file_has_the_mode_of_the_umask(
    ops: ModuleType, tmp_path: Path, function: str
) -> None:
    content: Any = b"x" if function == "write_file" else "x"
    old = os.umask(0o027)
    try:
        getattr(ops, function)(tmp_path / "f", content)
    finally:
        os.umask(old)
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o640


def test_a_file_that_is_removed_while_it_is_opened_is_made_anew(
    ops: ModuleType, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    done = threading.Event()

    def rotate() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))

    thread = threading.Thread(target=rotate)
    thread.start()
    try:
        for _ in range(10_000):
            ops.append_file(path, "line")
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("function", ["write_file", "append_file", "write_file_atomic"])
def test_a_dangling_symlink_gets_its_file(ops: ModuleType, tmp_path: Path, function: str) -> None:
    (tmp_path / "deep").mkdir()
    link = tmp_path / "link"
    link.symlink_to("deep/f")
    content: Any = b"x" if function == "write_file" else "x"
    getattr(ops, function)(link, content)
    assert link.is_symlink()
    assert (tmp_path / "deep" / "f").read_text() == "x"


def test_bytes_may_be_any_buffer_but_not_text(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    for content in (b"abc", bytearray(b"abc"), memoryview(b"xabcx")[1:4]):
        ops.write_file(path, content)
        assert path.read_bytes() == b"abc"
    for wrong in ("abc", 5, None):
        with pytest.raises(TypeError, match="content must be bytes"):
            ops.write_file(path, wrong)
    assert path.read_bytes() == b"abc"


@pytest.mark.parametrize("function", ["write_file_string", "append_file", "write_file_atomic"])
def test_text_that_utf8_cannot_hold_touches_nothing(
    ops: ModuleType, tmp_path: Path, function: str
) -> None:
    path = tmp_path / "f"
    with pytest.raises(EncodingError, match="at character 2"):
        getattr(ops, function)(path, "ab\udcff")
    with pytest.raises(TypeError, match="content must be str"):
        getattr(ops, function)(path, b"ab")
    assert list(tmp_path.iterdir()) == []


def test_appends_of_several_threads_do_not_tear(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "log"
    lines = [f"{number}:" + chr(97 + number) * 3000 + "\n" for number in range(8)]

    def work(line: str) -> None:
        for _ in range(50):
            ops.append_file(path, line)

    threads = [threading.Thread(target=work, args=(line,)) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = path.read_text().splitlines(keepends=True)
    assert sorted(written) == sorted(lines * 50)
