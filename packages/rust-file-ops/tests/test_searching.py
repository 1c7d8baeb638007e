"""Searching: what is found, where it stands, what is left out, and how it ends."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vespera_file_ops._file_types import FILE_TYPES
from vespera_file_ops.errors import EncodingError
from vespera_file_ops.results import FileCount, Match, Span

TEXT = "one two\r\nTwo three\n\nthrée two two\nlast"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    files = {
        "a.py": "needle = 1\nother\nneedle()\n",
        "b.txt": "no\n",
        "sub/c.rs": "fn needle() {}\n",
        "sub/.hidden": "needle\n",
        "ignored.log": "needle\n",
        ".gitignore": "*.log\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "binary").write_bytes(b"needle\0\n")
    (tmp_path / "late").write_bytes(b"x" * 8000 + b"\0\nneedle\n")
    (tmp_path / "link").symlink_to("a.py")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def names(found: Any, root: Path) -> list[str]:
    return sorted({os.path.relpath(match.path, root) for match in found})


def test_a_match_has_its_lines_and_positions(ops: ModuleType) -> None:
    assert ops.search_text(TEXT, "two", before=1, after=1) == [
        Match(None, 1, "one two", (Span(4, 7, 4, 7),), (), ("Two three",), False),
        Match(
            None, 4, "thrée two two", (Span(27, 30, 6, 9), Span(31, 34, 10, 13)), ("",), ("last",),
            False,
        ),
    ]  # fmt: skip
    for match in ops.search_text(TEXT, "tw[o]"):
        for span in match.spans:
            assert match.text[span.start : span.end] == "two"
            assert TEXT.encode()[span.byte : span.byte_end] == b"two"
    again = ops.search_text(TEXT, "two")
    assert pickle.loads(pickle.dumps(again)) == again


@pytest.mark.parametrize(
    ("options", "pattern", "lines"),
    [
        ({}, "^Two", [2]),
        ({}, "two$", [1, 4]),
        ({}, "^$", [3]),
        ({}, "x*", [1, 2, 3, 4, 5]),
        ({"case": "ignore"}, "TWO", [1, 2, 4]),
        ({"case": "smart"}, "two", [1, 2, 4]),
        ({"case": "smart"}, "Two", [2]),
        ({}, "(?i)tWo", [1, 2, 4]),
        ({}, "(?i:T)wo", [1, 2, 4]),
        ({"word": True}, "th", []),
        ({"word": True}, "th..e", [2, 4]),
        ({"word": True}, "t..ee", [2]),
        ({}, r"th\w+e", [2, 4]),
        ({}, r"\bthr\wee?\b", [2, 4]),
        ({"literal": True}, "t..", []),
        ({}, r"\s\s", []),
        ({}, "[^x]$", [1, 2, 4, 5]),
        ({}, "one|last", [1, 5]),
        ({}, "t(?P<rest>wo){1}", [1, 4]),
        ({"limit": 1}, "two", [1]),
        ({"multiline": True}, r"three\n\n", [2]),
        ({"multiline": True}, r"two\r\nTwo", [1]),
        ({"multiline": True}, "two$", [1, 4]),
        ({"multiline": True}, r"(?s)three.*last", [2]),
    ],
)
def test_what_a_pattern_finds(
    ops: ModuleType, options: dict[str, Any], pattern: str, lines: list[int]
) -> None:
    assert [match.line for match in ops.search_text(TEXT, pattern, **options)] == lines


def test_matches_that_share_lines_come_together(ops: ModuleType) -> None:
    text = "a1\n2b a3\n4b\nx\n5\n"
    found = ops.search_text(text, r"a\d\n\db", multiline=True, before=1, after=1)
    assert found == [
        Match(None, 1, "a1\n2b a3\n4b", (Span(0, 5, 0, 5), Span(6, 11, 6, 11)), (), ("x",), False)
    ]
    assert [m.line for m in ops.search_text(text, r"\d\n", multiline=True)] == [1, 2, 5]


def test_bytes_that_are_not_utf8(ops: ModuleType) -> None:
    raw = b"\xff\xfe ok \xe9\nplain\n\xe2\x82 ok"
    found = ops.search_text(raw, "o.")
    assert [match.text.encode(errors="surrogateescape") for match in found] == [
        b"\xff\xfe ok \xe9",
        b"\xe2\x82 ok",
    ]
    assert [match.spans for match in found] == [(Span(3, 5, 3, 5),), (Span(17, 19, 3, 5),)]
    assert ops.search_text(raw, r"^.") == ops.search_text(raw, "^p")


def test_a_byte_order_mark_belongs_to_no_line(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    found = list(ops.search_files(tmp_path, "^one|^two"))
    assert [(m.text, m.spans[0].byte) for m in found] == [("one", 3), ("two", 7)]


def test_a_long_line_is_cut_around_its_first_match(ops: ModuleType) -> None:
    line = "é" * 100_000 + "needle" + "é" * 100_000 + "needle"
    [match] = ops.search_text(f"{line}\n", "needle", after=1)
    assert match.cut
    assert len(match.text.encode()) <= 64 << 10
    [span] = match.spans
    assert match.text[span.start : span.end] == "needle"
    assert (span.byte, span.byte_end) == (200_000, 200_006)
    assert len(ops.search_text("a" * 5000, "a")[0].spans) == 1000


def test_the_usual_files_are_searched(ops: ModuleType, tree: Path) -> None:
    assert names(ops.search_files(tree, "needle"), tree) == ["a.py", "late", "sub/c.rs"]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"hidden": True}, ["a.py", "late", "sub/.hidden", "sub/c.rs"]),
        ({"gitignore": False}, ["a.py", "ignored.log", "late", "sub/c.rs"]),
        ({"binary": True}, ["a.py", "binary", "late", "sub/c.rs"]),
        ({"follow": True}, ["a.py", "late", "link", "sub/c.rs"]),
        ({"types": "py"}, ["a.py"]),
        ({"types": ["py", "rust"]}, ["a.py", "sub/c.rs"]),
        ({"include": "sub/**"}, ["sub/c.rs"]),
        ({"exclude": "sub/"}, ["a.py", "late"]),
        ({"max_depth": 1}, ["a.py", "late"]),
        ({"max_file_size": 1000}, ["a.py", "sub/c.rs"]),
        ({"types": "rust", "include": "*.py"}, []),
    ],
)
def test_which_files_are_searched(
    ops: ModuleType, tree: Path, options: dict[str, Any], found: list[str]
) -> None:
    assert names(ops.search_files(tree, "needle", **options), tree) == found


def test_limits_and_counts(ops: ModuleType, tree: Path) -> None:
    found = list(ops.search_files(tree, "needle", sort=True))
    assert [(os.path.basename(str(m.path)), m.line) for m in found] == [
        ("a.py", 1), ("a.py", 3), ("late", 2), ("c.rs", 1),
    ]  # fmt: skip
    each = ops.search_files(tree, "needle", max_per_file=1, after=3, sort=True)
    assert [(m.line, m.after) for m in each] == [(1, ("other", "needle()")), (2, ()), (1, ())]
    limited = ops.search_files(tree, "needle", limit=2, sort=True)
    assert list(limited) == found[:2]
    assert limited.limited
    assert not ops.search_files(tree, "needle").limited
    counts = list(ops.count_matches(tree, "n|e", sort=True, types=["py", "rust"]))
    assert counts == [
        FileCount(f"{tree}/a.py", 3, 9),
        FileCount(f"{tree}/sub/c.rs", 1, 5),
    ]
    [multi] = ops.count_matches(tree, r"needle.*\nother", multiline=True)
    assert multi == FileCount(f"{tree}/a.py", 2, 1)


def test_surroundings_overlap_and_reach_no_further_than_the_file(ops: ModuleType) -> None:
    text = "".join(f"{number}\n" for number in range(10))
    found = ops.search_text(text, "[0358]", before=2, after=3)
    assert [(m.before, m.text, m.after) for m in found] == [
        ((), "0", ("1", "2", "3")),
        (("1", "2"), "3", ("4", "5", "6")),
        (("3", "4"), "5", ("6", "7", "8")),
        (("6", "7"), "8", ("9",)),
    ]


def test_lines_across_the_pieces_that_a_file_is_read_in(ops: ModuleType, tmp_path: Path) -> None:
    line = b"x" * 99 + b"\n"
    content = bytearray(line * 100_000)
    hits = [0, 1310, 1311, 41_942, 41_943, 99_999]
    for number in hits:
        content[number * 100 : number * 100 + 6] = b"needle"
    (tmp_path / "big").write_bytes(content)
    found = list(ops.search_files(tmp_path, "needle", before=2, after=2))
    assert [match.line - 1 for match in found] == hits
    assert [match.spans[0].byte for match in found] == [number * 100 for number in hits]
    assert [(len(m.before), len(m.after)) for m in found] == [
        (0, 2), (2, 2), (2, 2), (2, 2), (2, 2), (2, 0),
    ]  # fmt: skip
    assert found[1].after[0].startswith("needle")


def test_a_line_that_does_not_fit_is_told(ops: ModuleType, tmp_path: Path) -> None:
    with open(tmp_path / "long", "wb") as file:
        file.write(b"needle\n")
        file.truncate(80 << 20)
    found = ops.search_files(tmp_path, "needle", binary=True)
    assert [match.line for match in found] == [1]
    assert [(error.errno, error.filename) for error in found.errors] == [
        (errno.EFBIG, f"{tmp_path}/long")
    ]
    found = ops.search_files(tmp_path, "needle", multiline=True, binary=True)
    assert list(found) == []
    assert found.errors[0].errno == errno.EFBIG


def test_a_file_cut_or_grown_while_it_is_read(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "turning"
    content = b"needle and hay\n" * 20_000
    path.write_bytes(content)
    done = threading.Event()

    def turn() -> None:
        while not done.is_set():
            os.truncate(path, 100)
            with open(path, "ab") as file:
                file.write(content)

    thread = threading.Thread(target=turn)
    thread.start()
    try:
        for _ in range(5):
            for match in ops.search_files(tmp_path, "needle"):
                assert match.spans
    finally:
        done.set()
        thread.join()


def test_devices_and_fifos_never_hang(ops: ModuleType, tree: Path) -> None:
    # In a directory of the system they are symlinked to; followed, they are still not read.
    (tree / "zero").symlink_to("/dev/zero")
    (tree / "waiting").symlink_to("fifo")
    assert names(ops.search_files(tree, "needle", follow=True), tree) == [
        "a.py", "late", "link", "sub/c.rs",
    ]  # fmt: skip


def test_dropping_a_search_ends_it(ops: ModuleType, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / str(number)).write_text("needle\n" * 20_000)
    tasks = len(os.listdir("/proc/self/task"))
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in ops.search_files(tmp_path, "needle"):
        break
    found = ops.search_files(tmp_path, "needle")
    next(found)
    found.close()
    assert list(found) == []
    assert len(os.listdir("/proc/self/task")) == tasks
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_ctrl_c_interrupts_a_search(goes_on: Callable[..., float], tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hay and needles\n" * 500_000)
    for number in range(5000):
        (tmp_path / str(number)).symlink_to("f")
    work = "list(ops.search_files(args[0], 'needle$', follow=True))"
    # A fifth of a second, and what a busy machine adds.
    assert goes_on(work, str(tmp_path)) < 3


def test_other_threads_run_during_a_search(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("hay and needles\n" * 1_000_000)
    ticks = 0
    done = threading.Event()

    def search() -> None:
        assert list(ops.search_files(tmp_path, "needle$")) == []
        done.set()

    thread = threading.Thread(target=search)
    thread.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0)
    thread.join()
    assert ticks > 3


def test_unknown_types_and_cases_are_refused(ops: ModuleType, tree: Path) -> None:
    with pytest.raises(ValueError, match="file type 'pi' is not known; near it are: perl"):
        ops.search_files(tree, "x", types="pi")
    with pytest.raises(ValueError, match="case is 'upper'; use 'sensitive', 'ignore' or 'smart'"):
        ops.search_text("x", "x", case="upper")
    with pytest.raises(ValueError, match="before is -1; give 0 or more"):
        ops.search_text("x", "x", before=-1)
    with pytest.raises(EncodingError, match=r"text has '\\ud800' at character 1, .*or give bytes"):
        ops.search_text("a\ud800", "a")
    assert ops.search_text("a\udcff", "a")[0].text == "a\udcff"
    with pytest.raises(TypeError, match="text must be str or bytes, not int"):
        ops.search_text(3, "x")
    with pytest.raises(TypeError, match="pattern must be str, not bytes"):
        ops.search_text("x", b"x")


def test_file_types_are_patterns_that_mean_something(ops: ModuleType, tmp_path: Path) -> None:
    assert list(ops.search_files(tmp_path, "x", types=list(FILE_TYPES))) == []


def test_a_racing_symlink_leads_no_search_out(ops: ModuleType, tmp_path: Path) -> None:
    """`turn` is by turns a directory within and a symlink out; only what is within is found."""
    for where in ("top/inside/deep", "outer/deep"):
        (tmp_path / where).mkdir(parents=True)
        for number in range(20):
            secret = "secret" if where.startswith("outer") else "inner"
            (tmp_path / where / f"f{number}").write_text(f"needle {secret}\n")
    top = tmp_path / "top"
    os.rename(top / "inside", top / "turn")
    done = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        os.symlink("../outer", top / "out")
        while not done.is_set():
            os.rename(top / "turn", top / "aside")
            os.rename(top / "out", top / "turn")
            os.rename(top / "turn", top / "out")
            os.rename(top / "aside", top / "turn")
            swaps += 1

    thread = threading.Thread(target=swap)
    thread.start()
    texts: set[str] = set()
    paths: set[str] = set()
    space = ops.Workspace(top)
    try:
        for number in range(150):
            options = {"follow": True} if number % 3 == 2 else {}
            texts |= {match.text for match in space.search_files(".", "needle", **options)}
            paths |= {path for path, _ in space.walk(".", **options)}
            paths |= set(space.glob_files(".", "**/f1"))
    finally:
        done.set()
        thread.join()
    assert swaps
    assert texts == {"needle inner"}
    assert paths
