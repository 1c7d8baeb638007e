"""Edits: exactly what was asked, all of it or nothing, and never over somebody else's work."""

from __future__ import annotations

import difflib
import os
import threading
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vespera_file_ops import Position
from vespera_file_ops.backends import python
from vespera_file_ops.errors import (
    AmbiguousMatch,
    ContentChanged,
    EditError,
    EncodingError,
    StringNotFound,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_text("ä one\ntwo\nthree\ntwo\n")
    return path


def test_one_place_is_replaced_and_told(ops: ModuleType, file: Path) -> None:
    result = ops.edit_file(file, "three", "drei")
    assert file.read_text() == "ä one\ntwo\ndrei\ntwo\n"
    assert result.replacements == 1
    assert result.positions == ((Position(byte=11, character=10, line=3),),)
    assert result.size == file.stat().st_size
    assert result.mtime_ns == file.stat().st_mtime_ns
    wanted = f"--- {file}\n+++ {file}\n@@ -1,4 +1,4 @@\n ä one\n two\n-three\n+drei\n two\n"
    assert result.diff == wanted


def test_an_absent_text_shows_the_nearest(ops: ModuleType, file: Path) -> None:
    with pytest.raises(StringNotFound, match='the nearest is at line 3: "three"') as caught:
        ops.edit_file(file, "threw", "x")
    context = {"path": str(file), "edit": 0, "nearest_line": 3, "nearest": "three"}
    assert caught.value.context == context
    assert caught.value.code == "string_not_found"


def test_an_ambiguous_text_shows_all_places(ops: ModuleType, file: Path) -> None:
    before = file.stat()
    with pytest.raises(AmbiguousMatch, match="2 times, at lines 2, 4; give more") as caught:
        ops.edit_file(file, "two", "x")
    assert caught.value.context["count"] == 2
    assert [place["line"] for place in caught.value.context["places"]] == [2, 4]
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert ops.edit_file(file, "two", "x", replace_all=True).replacements == 2
    assert file.read_text() == "ä one\nx\nthree\nx\n"


def test_several_edits_are_made_together_or_not_at_all(ops: ModuleType, file: Path) -> None:
    with pytest.raises(StringNotFound, match="edit 2 of 2") as caught:
        ops.multi_edit_file(file, [("one", "1"), ("none", "2")])
    assert caught.value.context["edit"] == 1
    assert "one" in file.read_text()
    result = ops.multi_edit_file(file, [("one", "two"), ("two", "2", True)])
    assert file.read_text() == "ä 2\n2\nthree\n2\n"
    assert result.replacements == 4


def test_a_preview_writes_nothing(ops: ModuleType, file: Path) -> None:
    before = file.stat()
    preview = ops.preview_edit(file, "three", "drei")
    assert file.stat() == before or file.stat().st_mtime_ns == before.st_mtime_ns
    assert "three" in file.read_text()
    assert ops.edit_file(file, "three", "drei").diff == preview.diff


def test_expect_keeps_two_writers_apart(ops: ModuleType, file: Path) -> None:
    known = ops.hash_file(file)
    first = ops.edit_file(file, "one", "1", expect=known)
    with pytest.raises(ContentChanged, match="its hash is not the expected one"):
        ops.edit_file(file, "three", "3", expect=known)
    second = ops.edit_file(file, "three", "3", expect=first.mtime_ns)
    with pytest.raises(ContentChanged, match="its time of change"):
        ops.edit_file(file, "3", "4", expect=second.mtime_ns - 1)
    assert file.read_text() == "ä 1\ntwo\n3\ntwo\n"


@pytest.mark.parametrize("expect", ["abc", 1.5, True, b"x"])
def test_an_expectation_that_means_nothing(ops: ModuleType, file: Path, expect: object) -> None:
    with pytest.raises(ValueError, match="give the SHA-256 as hash_file returns it"):
        ops.edit_file(file, "one", "1", expect=expect)


def test_edits_that_mean_nothing(ops: ModuleType, file: Path) -> None:
    with pytest.raises(EditError, match="is empty"):
        ops.edit_file(file, "", "x")
    with pytest.raises(EditError, match="nothing would change"):
        ops.edit_file(file, "one", "one")
    with pytest.raises(EditError, match="no edits given"):
        ops.multi_edit_file(file, [])
    with pytest.raises(TypeError, match="edit 1 must be"):
        ops.multi_edit_file(file, [("a",)])


def test_a_very_long_diff_is_cut(ops: ModuleType, file: Path) -> None:
    file.write_text("ä" * 700_000 + "needle" + "\n")
    result = ops.edit_file(file, "needle", "x")
    assert not result.diff_complete
    head = f"--- {file}\n+++ {file}\n@@ -1 +1 @@\n-"
    assert result.diff.startswith(head)
    assert set(result.diff[len(head) :]) == {"ä"}
    assert (1 << 20) - 1 <= len(result.diff.encode()) <= 1 << 20
    file.write_text("".join(f"{number}\n" for number in range(200_000)))
    edits = [("0\n", "!\n", True), ("5\n", "?\n", True)]
    wanted = python.preview_multi_edit(file, edits)
    many = ops.multi_edit_file(file, edits)
    assert (many.diff, many.diff_complete) == (wanted.diff, False)
    assert len(many.diff) == 1 << 20
    assert ops.edit_file(file, "\n123\n", "\nnew\n").diff_complete


def test_line_endings_are_kept(ops: ModuleType, file: Path) -> None:
    file.write_bytes(b"a\r\nb\r\nc\r\n")
    ops.edit_file(file, "a\nb\n", "x\ny\n")
    assert file.read_bytes() == b"x\r\ny\r\nc\r\n"


def test_what_is_not_utf8_is_not_edited(ops: ModuleType, file: Path) -> None:
    file.write_bytes(b"abc\xff")
    with pytest.raises(EncodingError):
        ops.edit_file(file, "abc", "x")
    assert file.read_bytes() == b"abc\xff"


def test_counting(ops: ModuleType, file: Path) -> None:
    file.write_text("aaaa")
    assert ops.count_replacements(file, "aa") == 2
    assert ops.count_replacements(file, "b") == 0


def test_racing_editors_lose_nothing(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("".join(f"<{n}>\n" for n in range(8)))
    lost: list[int] = []

    def edit(number: int) -> None:
        for step in range(10):
            old, new = f"<{number}{'+' * step}>", f"<{number}{'+' * (step + 1)}>"
            while True:
                try:
                    ops.edit_file(path, old, new)
                    break
                except ContentChanged:
                    continue
                except StringNotFound:
                    lost.append(number)
                    return

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert path.read_text() == "".join(f"<{n}{'+' * 10}>\n" for n in range(8))
    assert os.listdir(tmp_path) == ["f"]


def patched(old: str, diff: str) -> str:
    """Apply a unified diff by its own rules, every context line checked."""
    lines = old.split("\n")
    source = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    out: list[str] = []
    at = 0
    body = diff.split("\n")[2:-1] if diff else []
    for number, line in enumerate(body):
        if line.startswith("@@"):
            start, _, count = line.split()[1][1:].partition(",")
            begin = int(start) - (0 if count == "0" else 1)
            out += source[at:begin]
            at = begin
        elif line[0] in " -+":
            cut = number + 1 < len(body) and body[number + 1].startswith("\\")
            text = line[1:] + ("" if cut else "\n")
            if line[0] != "+":
                assert source[at] == text
                at += 1
            if line[0] != "-":
                out.append(text)
    return "".join(out + source[at:])


def meant(text: str, old: str, new: str) -> tuple[str, str]:
    """What an edit means in a text with the line endings of Windows."""

    def crlf(part: str) -> str:
        return part.replace("\r\n", "\n").replace("\n", "\r\n")

    def lone(part: str) -> bool:
        return "\n" in part.replace("\r\n", "")

    if old not in text and "\r\n" in text and "\r" not in old and "\n" in old:
        return crlf(old), crlf(new)
    if "\n" not in old and lone(new) and "\r\n" in text and not lone(text):
        return old, crlf(new)
    return old, new


ENCODED = {"utf-8": "", "utf-8-sig": "\ufeff", "utf-16-be": "\ufeff", "utf-16-le": "\ufeff"}
LINES = ["a", "b", "\n", "\r\n", "ä", "𝄞"]
TEXT = st.lists(st.sampled_from(LINES), max_size=60).map("".join)
EDIT = st.tuples(
    st.lists(st.sampled_from(LINES), min_size=1, max_size=3).map("".join),
    st.lists(st.sampled_from([*LINES, "x", "\r"]), max_size=3).map("".join),
    st.booleans(),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=TEXT,
    edits=st.lists(EDIT, min_size=1, max_size=4),
    encoding=st.sampled_from(sorted(ENCODED)),
)
def test_edits_are_those_of_a_plain_model(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    edits: list[tuple[str, str, bool]],
    encoding: str,
) -> None:
    """Both backends against `str.replace`, and against each other where they refuse."""
    rust = pytest.importorskip("vespera_file_ops.backends.rust", exc_type=ImportError)

    text = ENCODED[encoding] + text
    codec = encoding.removesuffix("-sig")
    edits = [edit for edit in edits if edit[0] != edit[1]]
    model: str | None = text
    for old, new, everywhere in edits:
        assert model is not None
        old, new = meant(model, old, new)
        count = model.count(old)
        if count == 0 or (count > 1 and not everywhere):
            model = None
            break
        model = model.replace(old, new)
    path = tmp_path_factory.mktemp("model") / "f"
    answers = []
    for ops in (python, rust):
        path.write_bytes(text.encode(codec))
        try:
            result = ops.multi_edit_file(path, edits)
        except EditError as error:
            assert model is None or not edits
            assert path.read_bytes() == text.encode(codec)
            answers.append((type(error), str(error), error.context))
        else:
            assert path.read_bytes() == (model or "").encode(codec)
            assert patched(text, result.diff) == model
            answers.append((result.positions, result.diff, result.size))
    assert answers[0] == answers[1]


def test_the_diff_is_that_of_difflib_for_one_edit(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    lines = [f"line {number}\n" for number in range(40)]
    path.write_text("".join(lines))
    diff = ops.edit_file(path, "line 20\n", "new\nlines\n").diff
    edited = path.read_text().splitlines(keepends=True)
    name = str(path)
    assert diff == "".join(difflib.unified_diff(lines, edited, name, name))
