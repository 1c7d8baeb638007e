"""A workspace: every operation works beneath its root, and nothing leads out of it."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vespera_file_ops._operations import WRITERS
from vespera_file_ops.backends._protocol import FileOps
from vespera_file_ops.errors import (
    OutsideWorkspace,
    ReadOnlyWorkspace,
    StringNotFound,
)

CALLS: dict[str, tuple[Any, ...]] = {
    "read_file": (),
    "read_file_string": (),
    "read_file_lines": (),
    "get_file_info": (),
    "file_info": (),
    "hash_file": (),
    "count_replacements": ("x",),
    "preview_edit": ("inner", "x"),
    "preview_multi_edit": ([("inner", "x")],),
    "read_text": (),
    "read_lines": (),
    "write_text": ("x",),
    "write_file": (b"x",),
    "write_file_string": ("x",),
    "append_file": ("x",),
    "write_file_atomic": ("x",),
    "edit_file": ("secret", "x"),
    "multi_edit_file": ([("secret", "x")],),
}
# These take something else than one path, and have tests of their own.
OTHERS = {
    *("chunk_text", "count_matches", "glob_files", "hash_files", "list_directory", "read_files"),
    *("search_files", "search_text", "walk", "write_files"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "f").write_text("inner\n")
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "f").write_text("secret")
    (top / "up").symlink_to("../outer")
    (top / "upfile").symlink_to("../outer/f")
    (top / "abs").symlink_to(tmp_path / "outer" / "f")
    (top / "absin").symlink_to(top / "a")
    (top / "back").symlink_to("a/../a/b/f")
    (top / "dangling").symlink_to("../outer/new")
    return top


def test_everything_works_beneath_the_root(ops: ModuleType, root: Path) -> None:
    space = ops.Workspace(root)
    assert space.read_file("a/b/f") == b"inner\n"
    assert space.read_file_lines("back") == ["inner"]
    assert space.read_file("a/../a/./b/f") == b"inner\n"
    space.write_file_atomic("a/new", "one\n")
    space.append_file("a/new", "two\n")
    space.edit_file("a/new", "two", "2")
    space.write_file_atomic("back", "through\n")
    assert (root / "back").is_symlink()
    assert (root / "a/b/f").read_text() == "through\n"
    assert (root / "a/new").read_text() == "one\n2\n"
    assert space.glob_files("a", "**") == ["a/b/f", "a/new"]
    assert space.file_info("a").is_dir
    assert space.hash_file("a/new") == ops.hash_file(root / "a/new")
    space.write_file("fresh", b"x")
    assert space.get_file_info("fresh") == (1, True, False)
    assert repr(space) == f"Workspace({str(root)!r}, read_only=False)"


@pytest.mark.parametrize("function", CALLS)
@pytest.mark.parametrize(
    "path",
    [
        "../outer/f",
        "up/f",
        "upfile",
        "abs",
        "a/../../outer/f",
        "/etc/passwd",
        "absin/b/f",
        "a/b/../../../outer/f",
    ],
)
def test_nothing_leads_out(ops: ModuleType, root: Path, function: str, path: str) -> None:
    space = ops.Workspace(root)
    with pytest.raises(OutsideWorkspace) as caught:
        getattr(space, function)(path, *CALLS[function])
    assert caught.value.errno == errno.EACCES
    assert caught.value.code == "outside_workspace"
    assert caught.value.context == {"path": path, "root": str(root)}
    assert (root.parent / "outer" / "f").read_text() == "secret"
    assert os.listdir(root.parent / "outer") == ["f"]


@pytest.mark.parametrize("function", ["write_file_string", "append_file", "write_file_atomic"])
def test_a_dangling_symlink_creates_nothing_outside(
    ops: ModuleType, root: Path, function: str
) -> None:
    with pytest.raises(OutsideWorkspace):
        getattr(ops.Workspace(root), function)("dangling", "x")
    assert os.listdir(root.parent / "outer") == ["f"]


def test_a_glob_stays_beneath(ops: ModuleType, root: Path) -> None:
    assert ops.Workspace(root).glob_files(".", "**") == ["./a/b/f", "./back"]
    with pytest.raises(OutsideWorkspace):
        ops.Workspace(root).glob_files("up", "*")
    with pytest.raises(OutsideWorkspace):
        ops.Workspace(root).glob_files("..", "*")


def test_every_method_is_tried() -> None:
    methods = {name for name in vars(FileOps) if not name.startswith("_")} - {"Workspace"}
    assert methods == CALLS.keys() | OTHERS


def test_a_read_only_workspace_writes_no_batch_and_nothing_atomically(
    ops: ModuleType, root: Path
) -> None:
    space = ops.Workspace(root, read_only=True)
    with pytest.raises(ReadOnlyWorkspace):
        space.write_files([("a/new", b"x"), ("a/b/f", b"x")])
    with pytest.raises(ReadOnlyWorkspace):
        space.write_file("a/b/f", b"x", atomic=True)
    assert (root / "a/b/f").read_bytes() == b"inner\n"
    assert os.listdir(root / "a") == ["b"]


@pytest.mark.parametrize("function", CALLS)
def test_read_only_refuses_every_writer(ops: ModuleType, root: Path, function: str) -> None:
    space = ops.Workspace(root, read_only=True)
    before = (root / "a/b/f").read_bytes()
    if function not in WRITERS:
        getattr(space, function)("a/b/f", *CALLS[function])
        return
    with pytest.raises(ReadOnlyWorkspace, match="read-only") as caught:
        getattr(space, function)("a/b/f", *CALLS[function])
    assert isinstance(caught.value, PermissionError)
    assert caught.value.errno == errno.EROFS
    assert (root / "a/b/f").read_bytes() == before


def test_a_fifo_and_a_directory_do_not_hang(ops: ModuleType, root: Path) -> None:
    os.mkfifo(root / "fifo")
    space = ops.Workspace(root)
    for function in ("read_file", "hash_file"):
        with pytest.raises(OSError, match="a FIFO is not a regular file"):
            getattr(space, function)("fifo")
        with pytest.raises(IsADirectoryError):
            getattr(space, function)("a")
    with pytest.raises(OSError, match="a FIFO is not a regular file"):
        space.write_file_atomic("fifo", "x")
    with pytest.raises(FileNotFoundError) as caught:
        space.read_file("none")
    assert caught.value.filename == "none"


def test_the_root_may_be_moved(ops: ModuleType, root: Path) -> None:
    space = ops.Workspace(root)
    root.rename(root.parent / "moved")
    assert space.read_file("a/b/f") == b"inner\n"


NAMES = ["..", ".", "", "a", "b", "f", "up", "absin", "back", "abs", "upfile", "none"]


SEEN_BY: dict[str, Any] = {
    "read_file": lambda found: found,
    "read_file_string": lambda found: found.encode(),
    "read_text": lambda found: found.text.encode(),
    "read_lines": lambda found: found.text.encode(),
    "read_files": lambda found: found[0].unwrap(),
}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(st.sampled_from(NAMES), max_size=7),
    slash=st.booleans(),
    function=st.sampled_from(sorted(SEEN_BY)),
)
def test_no_path_reaches_the_secret(
    ops: ModuleType, root: Path, names: list[str], slash: bool, function: str
) -> None:
    path = ("/" if slash else "") + "/".join(names)
    try:
        asked = [path] if function == "read_files" else path
        found = SEEN_BY[function](getattr(ops.Workspace(root), function)(asked))
    except OSError:
        return
    assert found == b"inner\n"
    assert (root / path).resolve() == (root / "a/b/f").resolve()


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    names=st.lists(st.sampled_from([*NAMES, "dangling"]), max_size=7),
    slash=st.booleans(),
    function=st.sampled_from(sorted(WRITERS - {"write_files"})),
)
def test_no_path_writes_outside(
    ops: ModuleType, root: Path, names: list[str], slash: bool, function: str
) -> None:
    path = ("/" if slash else "") + "/".join(names)
    with contextlib.suppress(OSError, StringNotFound):
        getattr(ops.Workspace(root), function)(path, *CALLS[function])
    assert os.listdir(root.parent / "outer") == ["f"]
    assert (root.parent / "outer" / "f").read_text() == "secret"
    assert sorted(os.listdir(root.parent)) == ["outer", "top"]


RACER = """
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {"x86_64": 316, "aarch64": 276, "riscv64": 276}
AT_FDCWD, RENAME_EXCHANGE = -100, 2

def exchange(one, other):
    arguments = (AT_FDCWD, one.encode(), AT_FDCWD, other.encode(), RENAME_EXCHANGE)
    return libc.syscall(NUMBERS[platform.machine()], *arguments)

os.chdir(sys.argv[1])
failed = exchange("turn", ".turn") or exchange("turn", ".turn")
print("no" if failed else "racing", flush=True)
while not failed:
    for name in ("turn", "file"):
        exchange(name, "." + name)
        exchange(name, "." + name)
"""


def test_a_racing_symlink_leads_nowhere(ops: ModuleType, root: Path) -> None:
    """A directory and a file, each exchanged with a symlink that leads out, again and again by
    another process: every call sees what is within, or refuses."""
    secret = root.parent / "outer" / "f"
    (root / "turn").mkdir()
    (root / "turn" / "f").write_text("inner\n")
    (root / "file").write_text("inner\n")
    os.symlink("../outer", root / ".turn")
    os.symlink("../outer/f", root / ".file")
    space = ops.Workspace(root)

    def seen_by(content: Callable[[Any], object], function: Any, asked: Any) -> object:
        return content(function(asked))

    def work(path: str) -> Iterator[Callable[[], object]]:
        for function, content in SEEN_BY.items():
            asked = [path] if function == "read_files" else path
            yield functools.partial(seen_by, content, getattr(space, function), asked)
        # Where a walk has found a directory or file, it may open something else.
        yield lambda: [match.text for match in space.search_files(".", ".*")]
        yield lambda: [entry.path for entry in space.walk(".") if "outer" in entry.path]
        yield lambda: space.write_file(path, b"inner\n")
        yield lambda: space.append_file(path, "")

    seen: set[object] = set()
    racer = subprocess.Popen(
        [sys.executable, "-c", RACER, str(root)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert racer.stdout is not None
        if racer.stdout.readline() != "racing\n":
            pytest.skip("this file system does not exchange names")
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            for call in (*work("turn/f"), *work("file")):
                try:
                    found = call()
                except OutsideWorkspace:
                    found = "refused"
                except OSError as error:
                    found = errno.errorcode[error.errno or 0]
                seen.update(found if isinstance(found, list) else [found])
            assert secret.read_text() == "secret"
    finally:
        racer.kill()
        racer.communicate()
    # ENODEV: the Python backend looked at the symlink itself.
    refusals = {"refused", "EAGAIN", "ELOOP", "ENOTDIR", "ENODEV"}
    assert seen <= {b"inner\n", "inner", None, *refusals}
    assert {b"inner\n", "inner", "refused"} <= seen
    assert os.listdir(root.parent / "outer") == ["f"]
