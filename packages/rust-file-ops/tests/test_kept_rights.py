"""Who may do what with a replaced file: never more than before, and all of it where that can be."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from vespera_file_ops.backends.python import _attributes

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
OWNER, USER, GROUP, MASK, OTHER = 1, 2, 4, 16, 32
NOBODY = 0xFFFFFFFF


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the kernel keeps it."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


# Everything for user 12345, whom the mode does not know.
STRANGER = acl(
    (OWNER, 7, NOBODY),
    (USER, 7, 12345),
    (GROUP, 5, NOBODY),
    (MASK, 7, NOBODY),
    (OTHER, 5, NOBODY),
)


@pytest.fixture
def generous(tmp_path: Path) -> Path:
    """A directory whose default ACL gives a stranger everything."""
    directory = tmp_path / "generous"
    directory.mkdir()
    try:
        os.setxattr(directory, DEFAULT, STRANGER)
    except OSError:
        pytest.skip("this file system keeps no ACLs")
    return directory


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def replace(ops: ModuleType, path: Path, function: str) -> None:
    if function == "edit_file":
        ops.edit_file(path, "old", "new")
    else:
        getattr(ops, function)(path, "new")
    assert path.read_text() == "new"


REPLACING = pytest.mark.parametrize("function", ["edit_file", "write_file_atomic", "write_text"])


@REPLACING
def test_a_default_acl_gives_strangers_nothing(
    ops: ModuleType, generous: Path, function: str
) -> None:
    path = generous / "f"
    path.write_text("old")
    os.removexattr(path, ACCESS)
    path.chmod(0o660)
    os.setxattr(path, "user.origin", b"kept")
    replace(ops, path, function)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert attributes(path) == {"user.origin": b"kept"}


def test_the_files_own_acl_wins_over_the_default_one(ops: ModuleType, generous: Path) -> None:
    path = generous / "f"
    path.write_text("old")
    own = acl(
        (OWNER, 6, NOBODY),
        (USER, 4, 1234),
        (GROUP, 0, NOBODY),
        (MASK, 4, NOBODY),
        (OTHER, 0, NOBODY),
    )
    os.setxattr(path, ACCESS, own)
    mode = path.stat().st_mode
    ops.edit_file(path, "old", "new")
    assert attributes(path) == {ACCESS: own}
    assert path.stat().st_mode == mode


@pytest.mark.parametrize("function", ["write_file_atomic", "write_text"])
def test_a_file_that_replaces_none_has_what_its_directory_gives(
    ops: ModuleType, generous: Path, function: str
) -> None:
    (generous / "plain").write_text("")
    replace(ops, generous / "f", function)
    assert attributes(generous / "f") == attributes(generous / "plain")
    assert attributes(generous / "f") != {}
    assert (generous / "f").stat().st_mode == (generous / "plain").stat().st_mode


# As user and group 2000, who is in the groups of the third argument.
CHILD = """
import importlib, os, sys
ops = importlib.import_module(sys.argv[1])
path = sys.argv[2]
os.setgroups([int(group) for group in sys.argv[3].split(",") if group])
os.setresgid(2000, 2000, 2000)
os.setresuid(2000, 2000, 2000)
"""


def as_user(ops: ModuleType, path: Path, groups: str, body: str) -> None:
    command = [sys.executable, "-c", CHILD + textwrap.dedent(body), ops.__name__, str(path), groups]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def foreign(tmp_path: Path, reachable: None) -> Iterator[Path]:
    """A file of root's in a directory that everybody may write in."""
    tmp_path.chmod(0o777)
    path = tmp_path / "f"
    path.write_text("old")
    os.chown(path, 0, 3000)
    path.chmod(0o660)
    yield path
    tmp_path.chmod(0o700)


def owner(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@root_only
def test_capabilities_are_kept_with_the_owner(ops: ModuleType, foreign: Path) -> None:
    os.chown(foreign, 1234, 4321)
    # Version 2, effective, and the right to bind low ports: capabilities(7).
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    try:
        os.setxattr(foreign, "security.capability", capability)
    except OSError:
        pytest.skip("capabilities of files cannot be set here")
    ops.edit_file(foreign, "old", "new")
    assert owner(foreign) == (1234, 4321, 0o660)
    assert attributes(foreign) == {"security.capability": capability}


@root_only
def test_a_group_one_is_in_is_kept(ops: ModuleType, foreign: Path) -> None:
    as_user(ops, foreign, "3000", "ops.edit_file(path, 'old', 'new')")
    assert foreign.read_text() == "new"
    assert owner(foreign) == (2000, 3000, 0o660)


@root_only
@pytest.mark.parametrize(("mode", "left"), [(0o664, 0o644), (0o666, 0o666), (0o676, 0o666)])
def test_another_group_gets_what_others_have(
    ops: ModuleType, foreign: Path, mode: int, left: int
) -> None:
    foreign.chmod(mode)
    as_user(ops, foreign, "", "ops.write_file_atomic(path, 'new')")
    assert owner(foreign) == (2000, 2000, left)


@root_only
@pytest.mark.parametrize("groups", ["", "3000"])
@pytest.mark.parametrize("bits", [0o4000, 0o2000, 0o1000])
def test_set_id_bits_serve_no_other_owner(
    ops: ModuleType, foreign: Path, groups: str, bits: int
) -> None:
    foreign.chmod(bits | 0o775)
    as_user(ops, foreign, groups, "ops.write_file_atomic(path, 'new')")
    assert owner(foreign) == (2000, 3000 if groups else 2000, 0o775 if groups else 0o755)


@root_only
def test_the_acl_of_a_file_one_may_not_read_is_kept(ops: ModuleType, foreign: Path) -> None:
    own = acl(
        (OWNER, 6, NOBODY),
        (USER, 6, 1234),
        (GROUP, 0, NOBODY),
        (MASK, 6, NOBODY),
        (OTHER, 0, NOBODY),
    )
    try:
        os.setxattr(foreign, ACCESS, own)
    except OSError:
        pytest.skip("this file system keeps no ACLs")
    os.chown(foreign, 0, 2000)
    as_user(ops, foreign, "", "ops.write_file_atomic(path, 'new')")
    assert owner(foreign) == (2000, 2000, 0o660)
    assert attributes(foreign) == {ACCESS: own}


@pytest.mark.skipif(sys.platform != "linux", reason="they are read on Linux alone")
def test_what_was_not_the_old_files_goes(tmp_path: Path) -> None:
    """Which the system lets a file inherit depends on the file system: asked like the next one."""
    path = tmp_path / "f"
    path.write_text("new")
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.setxattr(path, "user.inherited", b"")
        _attributes.keep(descriptor, path.stat(), None)
        assert attributes(path) == {"user.inherited": b""}
        _attributes.keep(descriptor, path.stat(), _attributes.Attributes())
        assert attributes(path) == {}
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip("this file system keeps no extended attributes")
    finally:
        os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="they are read on Linux alone")
def test_a_lost_acl_leaves_the_group_its_own_entry(tmp_path: Path) -> None:
    """No file system here refuses an ACL, so the function is asked; in Rust a unit test does."""
    path = tmp_path / "f"
    path.write_text("new")
    path.chmod(0o660)
    old = path.stat()
    # One that the system takes for none.
    lost = _attributes.Attributes([ACCESS], {ACCESS: STRANGER[:-1]})
    descriptor = os.open(path, os.O_WRONLY)
    try:
        _attributes.keep(descriptor, old, lost)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        _attributes.keep(descriptor, old, None)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.close(descriptor)
