"""A disk that fills up, a size limit, a directory one may not write in: nothing half-written stays.

Limits and users belong to a process, so each of these runs in a child of its own.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CHILD = """
import errno, importlib, os, resource, sys
ops = importlib.import_module(sys.argv[1])
directory = sys.argv[2]

def outcome(function, name, content):
    try:
        getattr(ops, function)(os.path.join(directory, name), content)
    except OSError as error:
        assert error.filename == os.path.join(directory, name), error.filename
        return errno.errorcode[error.errno]
    return "written"

def files():
    return {name: os.path.getsize(os.path.join(directory, name)) for name in os.listdir(directory)}
"""


def in_child(ops: ModuleType, directory: Path, body: str) -> None:
    code = CHILD + textwrap.dedent(body)
    done = subprocess.run(
        [sys.executable, "-c", code, ops.__name__, str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_size_limit_leaves_the_old_content_and_no_new_file(
    ops: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "old").write_bytes(b"o" * 1000)
    (tmp_path / "log").write_bytes(b"l" * 90_000)
    in_child(
        ops,
        tmp_path,
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        for name in ("old", "new"):
            assert outcome("write_file", name, b"n" * 200_000) == "EFBIG"
            assert outcome("write_file_string", name, "n" * 200_000) == "EFBIG"
            assert outcome("write_file_atomic", name, "n" * 200_000) == "EFBIG"
            assert outcome("append_file", name, "n" * 200_000) == "EFBIG", name
            assert outcome("write_text", name, "n" * 200_000) == "EFBIG", name
        grown = ops.write_files([(os.path.join(directory, "new"), b"n" * 200_000)])
        assert grown[0].error.errno == errno.EFBIG
        try:
            ops.edit_file(os.path.join(directory, "old"), "o", "oo" * 100, replace_all=True)
        except OSError as error:
            assert error.errno == errno.EFBIG
        else:
            raise AssertionError("written")
        assert outcome("append_file", "log", "n" * 20_000) == "EFBIG"
        assert files() == {"old": 1000, "log": 90_000}, files()
        assert outcome("write_file", "old", b"n" * 100_000) == "written"
        """,
    )
    assert (tmp_path / "log").read_bytes() == b"l" * 90_000


def test_a_new_file_that_does_not_fit_does_not_appear_behind_a_symlink(
    ops: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "second").symlink_to("deep/f")
    (tmp_path / "link").symlink_to(tmp_path / "second")
    in_child(
        ops,
        tmp_path,
        """
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        space = ops.Workspace(directory)
        for function in ("write_file_string", "append_file", "write_file_atomic", "write_text"):
            assert outcome(function, "link", "n" * 100_000) == "EFBIG", function
            assert os.listdir(os.path.join(directory, "deep")) == [], function
            try:
                getattr(space, function)("second", "n" * 100_000)
            except OSError as error:
                assert error.errno == errno.EFBIG
                assert error.filename == "second"
            assert os.listdir(os.path.join(directory, "deep")) == [], function
        assert outcome("write_file", "link", b"n" * 4096) == "written"
        assert outcome("write_file", "link", b"n" * 100_000) == "EFBIG"
        """,
    )
    assert (tmp_path / "deep" / "f").read_bytes() == b"n" * 4096
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "second").is_symlink()


def mounted(directory: Path, kind: str, *options: str) -> Iterator[Path]:
    directory.mkdir()
    done = subprocess.run(
        ["mount", "-t", kind, *options, kind, str(directory)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount a {kind} here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    yield from mounted(tmp_path / "disk", "tmpfs", "-o", "size=1m")


@pytest.fixture
def unreserving(tmp_path: Path) -> Iterator[Path]:
    """A file system that cannot reserve room."""
    yield from mounted(tmp_path / "disk", "ramfs")


@root_only
def test_where_no_room_can_be_reserved_it_is_written_all_the_same(
    ops: ModuleType, unreserving: Path
) -> None:
    path = unreserving / "f"
    for size in (2, 100_000, 1, 0, 9000):
        ops.write_file(path, b"n" * size)
        assert path.read_bytes() == b"n" * size


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_file_of_proc_is_written_in_place(ops: ModuleType) -> None:
    """As the error of `write_file_atomic` says; there is neither room nor a place to write at."""
    path = Path("/proc/self/comm")
    before = path.read_bytes().rstrip(b"\n")
    try:
        ops.write_file(path, b"written")
        assert path.read_bytes() == b"written\n"
    finally:
        path.write_bytes(before)


@root_only
def test_a_full_disk_leaves_the_old_content_and_no_new_file(
    ops: ModuleType, small_disk: Path
) -> None:
    (small_disk / "old").write_bytes(b"o" * 1000)
    too_much = 2 << 20
    for name in ("old", "new"):
        for function in ("write_file_string", "write_file_atomic", "append_file", "write_text"):
            with pytest.raises(OSError, match="No space") as caught:
                getattr(ops, function)(small_disk / name, "n" * too_much)
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.filename == str(small_disk / name)
            assert os.listdir(small_disk) == ["old"], (function, name)
            assert (small_disk / "old").read_bytes() == b"o" * 1000, function
    with pytest.raises(OSError, match="No space") as caught:
        ops.edit_file(small_disk / "old", "o", "n" * 3000, replace_all=True)
    assert caught.value.filename == str(small_disk / "old")
    items = [(small_disk / name, b"n" * too_much) for name in ("old", "new")]
    for atomic in (True, False):
        done = ops.write_files([*items, (small_disk / "small", b"s")], atomic=atomic)
        for one in done[:2]:
            assert isinstance(one.error, OSError)
            assert one.error.errno == errno.ENOSPC
        # Written at the same time, the small one may find that the others hold the last room.
        small = ["small"] if done[2].ok else []
        assert sorted(os.listdir(small_disk)) == ["old", *small]
        (small_disk / "small").unlink(missing_ok=True)
    assert (small_disk / "old").read_bytes() == b"o" * 1000


@root_only
@pytest.mark.usefixtures("reachable")
def test_a_directory_one_may_not_write_in(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    tmp_path.chmod(0o555)
    in_child(
        ops,
        tmp_path,
        """
        os.setresuid(65534, 65534, 65534)
        for function in ("write_file_string", "write_file_atomic", "append_file"):
            for name in ("old", "new"):
                assert outcome(function, name, "n") == "EACCES", (function, name)
        """,
    )
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "old"


@root_only
def test_a_read_only_file_system(ops: ModuleType, small_disk: Path) -> None:
    (small_disk / "old").write_text("old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for function in ("write_file_string", "write_file_atomic", "append_file", "write_text"):
        for name in ("old", "new"):
            with pytest.raises(OSError, match="Read-only") as caught:
                getattr(ops, function)(small_disk / name, "n")
            assert caught.value.errno == errno.EROFS
    with pytest.raises(OSError, match="Read-only") as caught:
        ops.edit_file(small_disk / "old", "old", "new")
    assert caught.value.filename == str(small_disk / "old")
    [written] = ops.write_files([(small_disk / "old", b"new")])
    assert isinstance(written.error, OSError)
    assert ops.preview_edit(small_disk / "old", "old", "new").replacements == 1
    assert ops.read_file(small_disk / "old") == b"old"
