"""Text files: what encoding and line endings they have, and that they keep them."""

from __future__ import annotations

import codecs
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vespera_file_ops.errors import (
    ContentChanged,
    EncodingError,
    FileTooLarge,
    StringNotFound,
)

MARKS = {
    "utf-8": b"",
    "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
}
TEXT = "ä one\r\ntwo 𝄞\r\nthree\r\n"


def content(text: str, encoding: str) -> bytes:
    """The file as an editor of that encoding would write it."""
    return MARKS.get(encoding, b"") + text.encode(encoding.removesuffix("-sig"))


@pytest.mark.parametrize("encoding", MARKS)
def test_the_mark_tells_the_encoding(ops: ModuleType, tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(content(TEXT, encoding))
    for asked in ("auto", encoding):
        found = ops.read_text(path, encoding=asked)
        assert (found.text, found.encoding, found.newline) == (TEXT, encoding, "\r\n")
        assert found.size == path.stat().st_size
        assert found.mtime_ns == path.stat().st_mtime_ns
        assert found.path == str(path)


def test_latin_1_is_read_only_when_asked_for(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"gr\xfc\xdfe")
    with pytest.raises(EncodingError, match="not valid UTF-8 at byte 2"):
        ops.read_text(path)
    assert ops.read_text(path, encoding="latin-1").text == "grüße"


@pytest.mark.parametrize(
    ("text", "newline"),
    [
        ("", None),
        ("a", None),
        ("a\n", "\n"),
        ("a\r\n\r\n", "\r\n"),
        ("a\rb", "\r"),
        ("a\n\r", "mixed"),
    ],
)
def test_line_endings_are_told(
    ops: ModuleType, tmp_path: Path, text: str, newline: str | None
) -> None:
    (tmp_path / "f").write_bytes(text.encode())
    assert ops.read_text(tmp_path / "f").newline == newline


@pytest.mark.parametrize(
    ("bytes_", "encoding", "offset"),
    [
        (b"\xff\xfea", "auto", 2),
        (b"\xff\xfea\0\0\xd8", "auto", 4),
        (b"\xfe\xff\xdc\0\0a", "utf-16-be", 2),
        (b"\xff\xfe\0\xd8a\0", "auto", 2),
        (b"\xef\xbb\xbf\xff", "auto", 3),
        (b"\xff\xfe\0\0a\0\0\0", "auto", 0),
        (b"plain", "utf-8-sig", 0),
        (b"p\0", "utf-16-le", 0),
    ],
)
def test_what_is_no_text_is_named_with_its_place(
    ops: ModuleType, tmp_path: Path, bytes_: bytes, encoding: str, offset: int
) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes_)
    with pytest.raises(EncodingError) as caught:
        ops.read_text(path, encoding=encoding)
    assert caught.value.context["offset"] == offset
    assert caught.value.context["path"] == str(path)


def test_an_unknown_encoding_names_the_known_ones(ops: ModuleType, tmp_path: Path) -> None:
    for function in (ops.read_text, ops.read_lines):
        with pytest.raises(ValueError, match="encoding is 'utf-7'; use 'auto', 'utf-8'"):
            function(tmp_path / "f", encoding="utf-7")


@pytest.mark.parametrize("encoding", MARKS)
def test_a_write_keeps_encoding_mark_and_line_endings(
    ops: ModuleType, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content(TEXT, encoding))
    written = ops.write_text(path, "neu ✓\nzwei\n")
    assert path.read_bytes() == content("neu ✓\r\nzwei\r\n", encoding)
    assert written.encoding == encoding
    assert (written.size, written.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
    # What was read may be written back, with its mark or without.
    for text in (ops.read_text(path).text, "\ufeff" + ops.read_text(path).text):
        if encoding != "utf-8":
            ops.write_text(path, text)
            assert path.read_bytes() == content("neu ✓\r\nzwei\r\n", encoding)


@pytest.mark.parametrize(
    ("old", "newline", "wanted"),
    [
        (None, "keep", b"a\nb\n"),
        (b"x\n", "keep", b"a\nb\n"),
        (b"x\r\n", "keep", b"a\r\nb\r\n"),
        (b"x\r\ny\n", "keep", b"a\nb\n"),
        (b"x\r\n", None, b"a\nb\n"),
        (b"x\r\n", "\n", b"a\nb\n"),
        (b"x\n", "\r\n", b"a\r\nb\r\n"),
    ],
)
def test_line_endings_of_a_write(
    ops: ModuleType, tmp_path: Path, old: bytes | None, newline: str | None, wanted: bytes
) -> None:
    path = tmp_path / "f"
    if old is not None:
        path.write_bytes(old)
    ops.write_text(path, "a\nb\n", newline=newline)
    assert path.read_bytes() == wanted
    ops.write_text(path, "a\r\nb\n", newline=None)
    assert path.read_bytes() == b"a\r\nb\n"
    with pytest.raises(ValueError, match="newline is 'cr'; use 'keep'"):
        ops.write_text(path, "x", newline="cr")


def test_an_encoding_may_be_given_to_a_file(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    for encoding, mark in MARKS.items():
        assert ops.write_text(path, "ä", encoding=encoding).encoding == encoding
        assert path.read_bytes() == mark + "ä".encode(encoding.removesuffix("-sig"))
    ops.write_text(path, "ä", encoding="latin-1")
    assert path.read_bytes() == b"\xe4"
    with pytest.raises(EncodingError, match="latin-1 cannot hold U\\+2713 at character 1"):
        ops.write_text(path, "ä✓", encoding="latin-1")
    with pytest.raises(EncodingError, match="UTF-8 cannot hold"):
        ops.write_text(path, "\udcff", encoding="utf-16-le")
    assert path.read_bytes() == b"\xe4"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_two_writers_do_not_lose_each_others_text(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("one")
    known = ops.read_text(path)
    second = ops.write_text(path, "two", expect=known.mtime_ns)
    with pytest.raises(ContentChanged, match="time of change"):
        ops.write_text(path, "three", expect=known.mtime_ns)
    ops.write_file(path, b"three", atomic=True, expect=second.mtime_ns)
    with pytest.raises(ContentChanged, match="hash"):
        ops.write_file(path, b"x", atomic=True, expect="0" * 64)
    ops.write_text(path, "four", expect=ops.hash_file(path))
    assert path.read_text() == "four"
    with pytest.raises(ValueError, match="expect needs atomic=True"):
        ops.write_file(path, b"x", expect=known.mtime_ns)
    with pytest.raises(FileNotFoundError):
        ops.write_text(tmp_path / "none", "x", expect=0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


EXPECTING = """
import importlib, resource, sys
name, path, expect = sys.argv[1:]
ops = importlib.import_module(name)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ops.write_text(path, "new", expect=expect)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss differ")
def test_what_a_write_expects_takes_no_memory(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.truncate(128 << 20)
    command = [sys.executable, "-c", EXPECTING, ops.__name__, str(path), ops.hash_file(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert path.read_text() == "new"
    assert int(done.stdout) < 32 << 10  # KiB


@pytest.mark.parametrize("encoding", MARKS)
def test_an_edit_keeps_the_encoding_and_counts_in_it(
    ops: ModuleType, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content(TEXT, encoding))
    before = ops.preview_edit(path, "three", "drei ✓")
    result = ops.edit_file(path, "three", "drei ✓")
    assert path.read_bytes() == content(TEXT.replace("three", "drei ✓"), encoding)
    assert (result.diff, result.positions) == (before.diff, before.positions)
    [[place]] = result.positions
    whole = content(TEXT, encoding)
    assert place.byte == len(content(TEXT.partition("three")[0], encoding))
    assert whole[place.byte :].startswith("three".encode(encoding.removesuffix("-sig")))
    assert place.character == len(TEXT.partition("three")[0]) + (1 if MARKS[encoding] else 0)
    assert result.size == path.stat().st_size
    assert ops.count_replacements(path, "o") == 2


@pytest.mark.parametrize("encoding", [name for name in MARKS if MARKS[name]])
def test_a_mark_is_no_part_of_the_text_that_is_edited(
    ops: ModuleType, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(content("abc\n", encoding))
    for old in ("\ufeff", "\ufeffa"):
        assert ops.count_replacements(path, old) == 0
        with pytest.raises(StringNotFound):
            ops.edit_file(path, old, "")
    with pytest.raises(StringNotFound) as caught:
        ops.edit_file(path, "abx", "")
    assert caught.value.context["nearest"] == "abc"
    ops.multi_edit_file(path, [("a", "\ufeff\ufeff"), ("\ufeff", "", True), ("c\n", "")])
    assert path.read_bytes() == content("b", encoding)
    ops.edit_file(path, "b", "")
    assert path.read_bytes() == MARKS[encoding]


def test_a_mark_in_what_is_written_is_told(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    for encoding in ("auto", "utf-8", "utf-8-sig"):
        path.unlink(missing_ok=True)
        written = ops.write_text(path, "\ufeffhello", encoding=encoding)
        assert path.read_bytes() == content("hello", "utf-8-sig")
        assert written.encoding == ops.read_text(path).encoding == "utf-8-sig"


def test_an_edit_in_latin_1(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"gr\xfc\xdfe an euch")
    with pytest.raises(EncodingError):
        ops.edit_file(path, "euch", "us")
    result = ops.multi_edit_file(path, [("grüße", "bö"), ("euch", "ä")], encoding="latin-1")
    assert path.read_bytes() == b"b\xf6 an \xe4"
    assert [each[0].byte for each in result.positions] == [0, 6]
    with pytest.raises(EncodingError, match="latin-1 cannot hold"):
        ops.multi_edit_file(path, [("bö", "✓"), ("an", "x")], encoding="latin-1")
    assert path.read_bytes() == b"b\xf6 an \xe4"
    assert ops.count_replacements(path, "ö", encoding="latin-1") == 1


def test_new_lines_of_an_edit_end_as_the_others_do(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\r\ntwo\r\n")
    ops.edit_file(path, "two", "2\n3")
    assert path.read_bytes() == b"one\r\n2\r\n3\r\n"
    path.write_bytes(b"one\r\ntwo\n")
    ops.edit_file(path, "two", "2\n3")
    assert path.read_bytes() == b"one\r\n2\n3\n"


def test_a_file_over_the_limit_is_told_before_it_is_read(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("x" * 1000)
    for function in ("read_file", "read_file_string", "read_file_lines", "read_text"):
        assert getattr(ops, function)(path, max_bytes=1000)
        with pytest.raises(FileTooLarge, match="more than max_bytes=999 would be read") as caught:
            getattr(ops, function)(path, max_bytes=999)
        assert caught.value.context == {"path": str(path), "size": 1000, "limit": 999}
        for wrong in (-1, 1 << 70):
            with pytest.raises(ValueError, match="max_bytes is"):
                getattr(ops, function)(path, max_bytes=wrong)
        with pytest.raises(TypeError, match="max_bytes must be an int"):
            getattr(ops, function)(path, max_bytes="1")
    # One that tells no size is read until the limit is passed.
    assert len(ops.read_file("/proc/self/status", max_bytes=1 << 20)) > 100
    with pytest.raises(FileTooLarge) as caught:
        ops.read_file("/proc/self/status", max_bytes=100)
    assert caught.value.context["size"] is None
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileTooLarge):
        ops.read_file(path, max_bytes=1 << 30)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(max_size=30).filter(lambda text: not text.startswith("\ufeff")),
    encoding=st.sampled_from(sorted(MARKS)),
)
def test_what_is_written_is_read(ops: ModuleType, tmp_path: Path, text: str, encoding: str) -> None:
    ops.write_text(tmp_path / "f", text, encoding=encoding, newline=None)
    found = ops.read_text(tmp_path / "f", encoding=encoding)
    assert (found.text, found.encoding) == (text, encoding)
