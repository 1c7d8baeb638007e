"""Ranges of lines: those that were asked for, and nothing read behind them."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vespera_file_ops.errors import EncodingError, FileTooLarge
from vespera_file_ops.results import LineRange

MARKS = {"utf-8": "", "utf-8-sig": "\ufeff", "utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"one\ntwo\r\nthree\nfour")
    return path


def test_some_lines_and_where_they_stand(ops: ModuleType, file: Path) -> None:
    found = ops.read_lines(file, 2, 2)
    assert found == LineRange(str(file), "two\r\nthree\n", 2, 2, 4, 15, False, "utf-8")
    assert found.lines == ["two", "three"]
    last = ops.read_lines(file, 4)
    assert (last.text, last.count, last.end_of_file) == ("four", 1, True)
    assert last.lines == ["four"]
    assert ops.read_lines(file).text == file.read_bytes().decode()


def test_beyond_the_end_there_are_none(ops: ModuleType, file: Path) -> None:
    size = file.stat().st_size
    assert ops.read_lines(file, 9, 5) == LineRange(str(file), "", 9, 0, size, size, True, "utf-8")
    assert ops.read_lines(file, 9, 5).lines == []
    nothing = ops.read_lines(file, 2, 0)
    assert (nothing.text, nothing.count, nothing.end_of_file) == ("", 0, False)
    file.write_bytes(b"")
    assert ops.read_lines(file).end_of_file


def test_what_follows_is_not_read(ops: ModuleType, tmp_path: Path) -> None:
    """The file claims more bytes than there is memory, and what is behind the lines is no text."""
    path = tmp_path / "f"
    with path.open("wb") as file:
        file.write(b"one\n" * 30_000 + b"\xff\n")
        file.truncate(8 << 40)
    found = ops.read_lines(path, 20_000, 10_001)
    assert found.count == 10_001
    assert not found.end_of_file
    with pytest.raises(EncodingError) as caught:
        ops.read_lines(path, 30_000, 2)
    assert caught.value.context["offset"] == 120_000


def test_lines_have_a_limit(ops: ModuleType, file: Path) -> None:
    assert ops.read_lines(file, 1, 2, max_bytes=9).count == 2
    with pytest.raises(FileTooLarge, match="max_bytes=8"):
        ops.read_lines(file, 1, 2, max_bytes=8)
    file.write_bytes(b"x" * 1_000_000)
    with pytest.raises(FileTooLarge):
        ops.read_lines(file, 1, 1, max_bytes=999_999)
    assert len(ops.read_lines(file, 1, 1, max_bytes=1_000_000).text) == 1_000_000


@pytest.mark.parametrize(("start", "count"), [(0, 1), (-1, 1), (1, -1)])
def test_numbers_that_mean_nothing(ops: ModuleType, file: Path, start: int, count: int) -> None:
    with pytest.raises(ValueError, match="or more"):
        ops.read_lines(file, start, count)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    # U+0A0D and U+0D0A have the bytes of a newline in UTF-16, and are none.
    text=st.text(alphabet="a\n\räਊ\u0a0d\u0d0a𝄞", max_size=40),
    encoding=st.sampled_from(sorted(MARKS)),
    start=st.integers(1, 6),
    count=st.none() | st.integers(0, 4),
    padding=st.sampled_from([0, 65_530, 65_531, 65_534, 65_535]),
)
def test_lines_are_those_of_a_plain_model(
    ops: ModuleType,
    tmp_path: Path,
    text: str,
    encoding: str,
    start: int,
    count: int | None,
    padding: int,
) -> None:
    """The padding moves the text over the edge of a block."""
    text = "x" * (padding // (2 if encoding.startswith("utf-16") else 1)) + text
    path = tmp_path / "f"
    codec = encoding.removesuffix("-sig")
    path.write_bytes((MARKS[encoding] + text).encode(codec))
    found = ops.read_lines(path, start, count)
    lines = text.split("\n")
    lines = [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    wanted = lines[start - 1 :][:count]
    assert found.text == "".join(wanted)
    assert found.count == len(wanted)
    assert found.end_of_file == (start - 1 + len(wanted) >= len(lines))
    assert path.read_bytes()[found.byte_start : found.byte_end].decode(codec) == found.text
    assert found.lines == [line.removesuffix("\n").removesuffix("\r") for line in wanted] or (
        "\r" in text
    )
    os.unlink(path)
