"""Atomic replace: old or new, never a mixture, and everything else about the file as it was."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import threading
from pathlib import Path
from types import ModuleType

import pytest

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o4755, 0o000])
def test_the_mode_is_kept(ops: ModuleType, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    path.chmod(mode)
    ops.write_file_atomic(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == mode
    path.chmod(0o600)
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["f"]


@root_only
def test_the_owner_is_kept_where_allowed(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    os.chown(path, 1234, 4321)
    path.chmod(0o2750)
    ops.write_file_atomic(path, "new")
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)
    assert stat.S_IMODE(status.st_mode) == 0o2750


def has_xattrs(directory: Path) -> bool:
    try:
        os.setxattr(directory, "user.probe", b"")
    except OSError:
        return False
    os.removexattr(directory, "user.probe")
    return True


# rw for owner, user 1234 and mask, r for group, none for others, as the kernel keeps it.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (1, 6, 0xFFFFFFFF),
        (2, 6, 1234),
        (4, 4, 0xFFFFFFFF),
        (16, 6, 0xFFFFFFFF),
        (32, 0, 0xFFFFFFFF),
    )
)


def test_extended_attributes_and_acls_are_kept(ops: ModuleType, tmp_path: Path) -> None:
    if not has_xattrs(tmp_path):
        pytest.skip("this file system keeps no extended attributes")
    path = tmp_path / "f"
    path.write_text("old")
    os.setxattr(path, "user.origin", b"kept\0whole")
    os.setxattr(path, "user.empty", b"")
    with contextlib.suppress(OSError):  # no ACLs here: the rest is still to be kept
        os.setxattr(path, "system.posix_acl_access", ACL)
    before = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    mode = path.stat().st_mode
    ops.write_file_atomic(path, "new")
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == before
    assert path.stat().st_mode == mode
    assert before["user.origin"] == b"kept\0whole"


def test_symlinks_are_written_through(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    target = tmp_path / "far" / "f"
    target.write_text("old")
    (tmp_path / "near" / "second").symlink_to("../far/f")
    link = tmp_path / "first"
    link.symlink_to(tmp_path / "near" / "second")
    ops.write_file_atomic(link, "new")
    assert target.read_text() == "new"
    assert link.is_symlink()
    assert (tmp_path / "near" / "second").is_symlink()
    assert os.listdir(tmp_path / "far") == ["f"]
    assert os.listdir(tmp_path / "near") == ["second"]


def test_a_symlink_loop_is_an_error(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links") as caught:
        ops.write_file_atomic(tmp_path / "a", "x")
    assert caught.value.filename == str(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_a_hard_link_keeps_the_old_content(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    os.link(tmp_path / "f", tmp_path / "kept")
    ops.write_file_atomic(tmp_path / "f", "new")
    assert (tmp_path / "kept").read_text() == "old"


def test_the_longest_name_works(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    ops.write_file_atomic(path, "new")
    assert path.read_text() == "new"


def test_a_relative_path_works(
    ops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ops.write_file_atomic("f", "new")
    ops.write_file_atomic("./f", "newer")
    assert (tmp_path / "f").read_text() == "newer"
    assert os.listdir(tmp_path) == ["f"]


def test_readers_see_old_or_new_and_writers_do_not_collide(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    contents = [letter * 50_000 for letter in "abcd"]
    ops.write_file_atomic(path, contents[0])
    done = threading.Event()

    def write(content: str) -> None:
        for _ in range(15):
            ops.write_file_atomic(path, content)

    seen: set[str] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(ops.read_file_string(path))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    reader.start()
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert os.listdir(tmp_path) == ["f"]
