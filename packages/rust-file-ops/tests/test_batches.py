"""Batches: each file has its own result, in order, and no error loses another's."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vespera_file_ops.errors import EncodingError, FileTooLarge, OutsideWorkspace


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"f{number}" for number in range(50)]
    for number, path in enumerate(made):
        path.write_bytes(b"%d" % number * (number + 1))
    return made


@pytest.mark.parametrize("threads", [None, 1, 8])
def test_contents_come_in_order(ops: ModuleType, paths: list[Path], threads: int | None) -> None:
    found = ops.read_files(paths, threads=threads)
    assert [one.path for one in found] == [str(path) for path in paths]
    assert [one.value for one in found] == [path.read_bytes() for path in paths]
    assert all(one.ok and one.error is None for one in found)
    hashes = ops.hash_files(paths, "sha256", threads=threads)
    assert [one.unwrap() for one in hashes] == [ops.hash_file(path) for path in paths]


def test_every_error_stays_with_its_file(ops: ModuleType, paths: list[Path]) -> None:
    tmp_path = paths[0].parent
    os.mkfifo(tmp_path / "fifo")
    asked = [paths[0], tmp_path / "none", tmp_path, tmp_path / "fifo", "a\0b", paths[40], paths[1]]
    found = ops.read_files(asked, max_bytes=20)
    assert [type(one.error) for one in found] == [
        type(None),
        FileNotFoundError,
        IsADirectoryError,
        OSError,
        ValueError,
        FileTooLarge,
        type(None),
    ]
    assert found[1].error.filename == str(tmp_path / "none")
    assert found[3].error.errno == errno.ENXIO
    assert (found[0].value, found[6].value) == (b"0", b"11")
    assert not found[1].ok
    assert found[1].value is None
    with pytest.raises(FileNotFoundError):
        found[1].unwrap()
    alone = [ops.hash_files([path])[0] for path in asked]
    together = ops.hash_files(asked)
    assert [(one.value, str(one.error)) for one in alone] == [
        (one.value, str(one.error)) for one in together
    ]


def test_a_name_that_cannot_be_is_an_error_of_its_own(ops: ModuleType, tmp_path: Path) -> None:
    strange = os.fsdecode(os.fsencode(tmp_path / "x") + b"\xff")
    written = ops.write_files([(strange, b"1"), ("\ud800x", b"2"), (tmp_path / "y", "\ud800")])
    assert [type(one.error) for one in written] == [type(None), ValueError, EncodingError]
    words = "'\\\\ud800' at character 0, which no file name can have; give the name as bytes"
    for function in (ops.read_files, ops.hash_files):
        found = function([strange, "\ud800x", strange])
        assert [one.ok for one in found] == [True, False, True]
        assert found[1].path == "\ud800x"
        with pytest.raises(ValueError, match=words):
            found[1].unwrap()
    for call in (ops.read_file, ops.file_info, ops.walk, ops.Workspace):
        with pytest.raises(ValueError, match=words):
            call("\ud800x")
    with pytest.raises(TypeError, match="content must be bytes, not int; or str, which is"):
        ops.write_files([(strange, 1)])


@pytest.mark.parametrize("atomic", [True, False])
def test_files_are_written_or_say_why_not(ops: ModuleType, tmp_path: Path, atomic: bool) -> None:
    (tmp_path / "d").mkdir()
    items = [
        (tmp_path / "a", b"one"),
        (tmp_path / "d", b"two"),
        (tmp_path / "none" / "f", "three"),
        (tmp_path / "b", "fünf"),
        (tmp_path / "c", "\udcff"),
        (tmp_path / "e", bytearray(b"six")),
    ]
    found = ops.write_files(items, atomic=atomic)
    assert [type(one.error) for one in found] == [
        type(None),
        IsADirectoryError,
        FileNotFoundError,
        type(None),
        EncodingError,
        type(None),
    ]
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "d", "e"]
    assert (tmp_path / "b").read_text() == "fünf"
    assert (tmp_path / "e").read_bytes() == b"six"


def test_what_makes_no_sense_is_refused_before_anything_is_done(
    ops: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="is given twice"):
        ops.write_files([(tmp_path / "a", b"1"), (tmp_path / "a", b"2")])
    with pytest.raises(TypeError):
        ops.write_files([(tmp_path / "a", b"1"), (tmp_path / "b", 5)])
    with pytest.raises(TypeError):
        ops.read_files([tmp_path, 5])
    with pytest.raises(ValueError, match="threads is 0; give 1 or more"):
        ops.read_files([], threads=0)
    assert os.listdir(tmp_path) == []
    assert ops.read_files([]) == []


def test_a_batch_stays_beneath_the_root(ops: ModuleType, paths: list[Path]) -> None:
    space = ops.Workspace(paths[0].parent)
    found = space.read_files(["f3", "../f3", "/etc/passwd", "none"])
    assert found[0].value == b"3333"
    assert [type(one.error) for one in found[1:]] == [
        OutsideWorkspace,
        OutsideWorkspace,
        FileNotFoundError,
    ]
    written = space.write_files([("new", b"x"), ("../new", b"x")])
    assert [one.ok for one in written] == [True, False]
    assert not (paths[0].parent.parent / "new").exists()
    assert space.hash_files(["f3"])[0].value == ops.hash_file(paths[3])


def test_one_name_is_not_taken_for_many(
    ops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for batch in (ops.read_files, ops.hash_files):
        for one in ("a.txt", b"a.txt", tmp_path, {"a.txt": 1}):
            with pytest.raises(TypeError, match=r"paths must be a list, .*; for one file give"):
                batch(one)
    for items in ("ab", {"a": "b"}, [("ab",)], ["ab"], [("a", "b", "c")], [None]):
        with pytest.raises(TypeError, match=r"items must be a list, |items\[0\] must be a pair"):
            ops.write_files(items)
    assert list(tmp_path.iterdir()) == []
    # A pair may be a list, as JSON has it, and pairs may come from anywhere.
    assert [one.ok for one in ops.write_files(iter([["a", "b"]]))] == [True]


@pytest.mark.parametrize(
    "work",
    [
        "ops.hash_file(args[0])",
        "ops.hash_file(args[0], 'blake3')",
        "ops.hash_files([args[0]] * 2)",
        "ops.read_files([args[1]] * 1_000_000)",
    ],
)
def test_ctrl_c_ends_long_work(goes_on: Callable[..., float], tmp_path: Path, work: str) -> None:
    large, small = tmp_path / "large", tmp_path / "small"
    large.touch()
    os.truncate(large, 16 << 30)
    small.write_text("x")
    # A fifth of a second, and what a busy machine adds.
    assert goes_on(work, str(large), str(small)) < 3


# More than any address space: no thread can be started with it.
STACK = 1 << 60
WITHOUT_THREADS = """
import importlib, sys, threading
threading.stack_size(int(sys.argv[2]))
ops = importlib.import_module(sys.argv[1])
paths = sys.argv[3:]
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    sys.exit("threads can be started")
print({one.value for one in ops.read_files(paths)} == {b"x" * (3 << 20)})
print({one.error for one in ops.write_files([(path, b"y" * (3 << 20)) for path in paths])})
print(len({one.unwrap() for one in ops.hash_files(paths)}))
if ops.__name__.endswith("rust"):  # the other one is slow, and needs no threads
    print(ops.hash_file(paths[0], "blake3"))
print(len(ops.glob_files(paths[0] + ".tree", "**")))
"""


def test_where_the_system_gives_no_threads_the_caller_does_the_work(
    ops: ModuleType, tmp_path: Path
) -> None:
    paths = [str(tmp_path / f"{number}") for number in range(4)]
    for path in paths:
        Path(path).write_bytes(b"x" * (3 << 20))
    for number in range(40):
        deep = Path(f"{paths[0]}.tree") / str(number) / "deep"
        deep.mkdir(parents=True)
        (deep / "f").touch()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THREADS, ops.__name__, str(STACK), *paths],
        env={**os.environ, "RUST_MIN_STACK": str(STACK)},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    hashed = [ops.hash_file(paths[0], "blake3")] if ops.__name__.endswith("rust") else []
    assert done.stdout.splitlines() == ["True", "{None}", "1", *hashed, "40"], done.stderr
