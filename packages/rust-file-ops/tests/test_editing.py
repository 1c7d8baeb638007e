"""Edits: exactly what was asked, all of it or nothing, and never over somebody else's work."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
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
    FileTooLarge,
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


def test_the_nearest_is_the_same_on_both(tmp_path: Path) -> None:
    rust = pytest.importorskip("vespera_file_ops.backends.rust", exc_type=ImportError)
    path = tmp_path / "f"
    for code in range(0x3001):
        if chr(code).isspace():
            path.write_text(f"xfoo\n{chr(code)}foo bar\n", newline="")
            found = []
            for ops in (python, rust):
                with pytest.raises(StringNotFound) as caught:
                    ops.edit_file(path, "foo baz", "x")
                found.append((str(caught.value), caught.value.context))
            assert found[0] == found[1], hex(code)


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


@pytest.mark.parametrize("expect", ["abc", 1.5, True, b"x", 1 << 130, -(1 << 130)])
def test_an_expectation_that_means_nothing(ops: ModuleType, file: Path, expect: object) -> None:
    with pytest.raises(ValueError, match="give the SHA-256 as hash_file returns it"):
        ops.edit_file(file, "one", "1", expect=expect)


def test_edits_that_mean_nothing(ops: ModuleType, file: Path) -> None:
    with pytest.raises(EditError, match=r"^old is empty; give the text"):
        ops.edit_file(file, "", "x")
    with pytest.raises(EditError, match=r"^old and new are the same, 'one'; nothing would change"):
        ops.edit_file(file, "one", "one")
    with pytest.raises(EditError, match=r"^edit 2: old and new are the same") as caught:
        ops.multi_edit_file(file, [("a", "b"), ("one", "one")])
    assert caught.value.context == {"edit": 1}
    with pytest.raises(EditError, match="no edits given"):
        ops.multi_edit_file(file, [])
    for edit in (("a",), "ab", b"ab", 5, None, {"old": "a", "new": "b"}, {0: "a", 1: "b"}):
        with pytest.raises(TypeError, match=r"edit 1 must be .old, new. or"):
            ops.multi_edit_file(file, [edit])
    for edits in (None, 5):
        with pytest.raises(TypeError, match=r"edits must be several .old, new."):
            ops.multi_edit_file(file, edits)


def test_a_text_that_is_none_is_named_by_its_field(ops: ModuleType, file: Path) -> None:
    with pytest.raises(TypeError, match=r"^old must be str, not bytes; decode it first$"):
        ops.edit_file(file, b"one", "1")
    with pytest.raises(TypeError, match=r"^new must be str, not int"):
        ops.preview_edit(file, "one", 1)
    with pytest.raises(TypeError, match=r"^edit 2: new must be str, not bytes"):
        ops.multi_edit_file(file, [("a", "b"), ("one", b"1")])
    with pytest.raises(TypeError, match=r"^old must be str"):
        ops.count_replacements(file, b"one")
    with pytest.raises(EncodingError, match=r"^new has '\\ud800' at character 1, .* take it out"):
        ops.edit_file(file, "one", "1\ud800")


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


@pytest.mark.parametrize(
    ("content", "old", "new", "wanted"),
    [
        (b"a\r\nb\r\n", "\nb", "\nx\nb", b"a\r\nx\r\nb\r\n"),
        (b"a\r\nb\r\n", "\n", "\n\n", b"a\r\n\r\nb\r\n\r\n"),
        (b"a\r\nb\r\n", "\n", "", b"ab"),
        # Of both kinds, the ones that were asked for.
        (b"a\r\nb\n", "\n", "\n\n", b"a\r\nb\n\n"),
        (b"\r\n\n\n", "\n\n", "x", b"\r\nx"),
        (b"a\r\nb\nc", "\nb", "\nx", b"a\r\nx\nc"),
    ],
)
def test_no_line_ending_is_cut_in_two(
    ops: ModuleType, file: Path, content: bytes, old: str, new: str, wanted: bytes
) -> None:
    file.write_bytes(content)
    count = ops.count_replacements(file, old)
    preview = ops.preview_edit(file, old, new, replace_all=True)
    result = ops.multi_edit_file(file, [(old, new, True)])
    assert file.read_bytes() == wanted
    assert (result.positions, result.diff) == (preview.positions, preview.diff)
    assert result.replacements == count
    for [place] in zip(*result.positions, strict=True):
        assert content[place.byte :].startswith((b"\r\n", b"\n"))


def test_a_file_over_the_limit_is_not_edited(ops: ModuleType, file: Path) -> None:
    size = file.stat().st_size
    edits = [("one", "1")]
    space = ops.Workspace(file.parent)
    for where, name in ((ops, file), (space, file.name)):
        for function, arguments in (
            ("edit_file", ("one", "1")),
            ("multi_edit_file", (edits,)),
            ("preview_edit", ("one", "1")),
            ("preview_multi_edit", (edits,)),
            ("count_replacements", ("one",)),
        ):
            with pytest.raises(FileTooLarge, match="more than max_bytes=20 would be") as caught:
                getattr(where, function)(name, *arguments, max_bytes=20)
            assert caught.value.context == {"path": str(name), "size": size, "limit": 20}
            with pytest.raises(ValueError, match="max_bytes is -1; give 0 or more"):
                getattr(where, function)(name, *arguments, max_bytes=-1)
    assert "one" in file.read_text()
    assert ops.count_replacements(file, "one", max_bytes=size) == 1
    assert ops.edit_file(file, "one", "1", max_bytes=size).replacements == 1


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


def meant(text: str, old: str, new: str) -> tuple[re.Pattern[str], str]:
    """What an edit means in a text with the line endings of Windows, none of them cut in two."""

    def crlf(part: str) -> str:
        return part.replace("\r\n", "\n").replace("\n", "\r\n")

    def lone(part: str) -> bool:
        return "\n" in part.replace("\r\n", "")

    simple = "\n" in old and "\r" not in old
    exact = re.compile(("(?<!\r)" if simple else "") + re.escape(old))
    if simple and "\r\n" in text and not exact.search(text):
        return re.compile(re.escape(crlf(old))), crlf(new)
    if "\n" not in old and lone(new) and "\r\n" in text and not lone(text):
        return exact, crlf(new)
    return exact, new


ENCODED = {"utf-8": "", "utf-8-sig": "\ufeff", "utf-16-be": "\ufeff", "utf-16-le": "\ufeff"}
LINES = ["a", "b", "\n", "\r\n", "ä", "𝄞", "\ufeff"]
TEXT = st.one_of(
    st.lists(st.sampled_from(LINES), max_size=60).map("".join),
    st.lists(st.sampled_from(["a", "b", "\r\n"]), max_size=8).map("".join),
)
EDIT = st.tuples(
    st.lists(st.sampled_from(LINES), min_size=1, max_size=3).map("".join),
    st.lists(st.sampled_from([*LINES, "x", "\r"]), max_size=3).map("".join),
    st.booleans(),
)
# In front of what most files begin with.
BREAKS = st.tuples(
    st.sampled_from(["\n", "\n\n", "\na", "a\n", "\na\n", "\ufeff", "\ufeffa"]),
    st.sampled_from(["", "\n", "\n\n", "x\n", "\nx", "\nx\n"]),
    st.booleans(),
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=TEXT,
    edits=st.lists(EDIT | BREAKS, min_size=1, max_size=4),
    encoding=st.sampled_from(sorted(ENCODED)),
)
def test_edits_are_those_of_a_plain_model(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    edits: list[tuple[str, str, bool]],
    encoding: str,
) -> None:
    """Both backends against `re.sub`, and against each other where they refuse."""
    rust = pytest.importorskip("vespera_file_ops.backends.rust", exc_type=ImportError)

    # Without a mark of its own the text must not begin with one, or it is the file's.
    mark = ENCODED[encoding]
    text = text if mark else text.lstrip("\ufeff")
    codec = encoding.removesuffix("-sig")
    edits = [edit for edit in edits if edit[0] != edit[1]]
    model: str | None = text
    places: list[list[int]] = []
    counts = [len(meant(text, old, new)[0].findall(text)) for old, new, _ in edits]
    for old, new, everywhere in edits:
        assert model is not None
        wanted, made = meant(model, old, new)
        found = [len(mark) + match.start() for match in wanted.finditer(model)]
        if not found or (len(found) > 1 and not everywhere):
            model = None
            break
        places.append(found)
        model = wanted.sub(lambda _, made=made: made, model)  # type: ignore[misc]
    text = mark + text
    model = None if model is None else mark + model
    path = tmp_path_factory.mktemp("model") / "f"
    answers = []
    for ops in (python, rust):
        path.write_bytes(text.encode(codec))
        assert [ops.count_replacements(path, old) for old, _, _ in edits] == counts
        try:
            result = ops.multi_edit_file(path, edits)
        except EditError as error:
            assert model is None or not edits
            assert path.read_bytes() == text.encode(codec)
            answers.append((type(error), str(error), error.context))
        else:
            assert path.read_bytes() == (model or "").encode(codec)
            assert patched(text, result.diff) == model
            assert [[place.character for place in each] for each in result.positions] == places
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


@pytest.mark.skipif(not shutil.which("patch"), reason="patch(1) is not installed")
@pytest.mark.parametrize(
    "name",
    [
        b"plain",
        b"a name",
        b"a name ",
        b" name",
        b"tab\there",
        b"two\nlines",
        b"one\n--- other\n+++ other",
        b'quo"te and back\\slash',
        b'"quoted"',
        b"\a\b\v\f\r\x01\x1f\x7f",
        b"\\012",
        "ä 𝄞".encode(),
        b"no\xff\xfe utf-8",
    ],
)
def test_patch_finds_the_file_by_the_diff(
    ops: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "".join(f"line {number}\n" for number in range(20))
    ops.write_file(name, text.encode())
    diff = ops.preview_edit(name, "line 9\n", "neun\n").diff
    subprocess.run(
        ["patch", "-p0", "--batch", "--quiet"], input=diff.encode(), check=True, timeout=30
    )
    assert ops.read_file_string(name) == text.replace("line 9\n", "neun\n")
    assert os.listdir(os.fsencode(tmp_path)) == [name]
