"""Chunks: none too large, at boundaries where there are some, and the text whole again."""

from __future__ import annotations

from itertools import product
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vespera_file_ops import Chunk
from vespera_file_ops.backends import python
from vespera_file_ops.errors import EncodingError


def texts(chunks: list[Chunk]) -> list[str]:
    return [chunk.text for chunk in chunks]


def test_chunks_end_at_lines_and_overlap_by_lines(ops: ModuleType) -> None:
    chunks = ops.chunk_text("one\ntwo\nthree\nfour\n", 10, overlap=4)
    assert texts(chunks) == ["one\ntwo\n", "two\nthree\n", "four\n"]
    assert chunks[1] == Chunk("two\nthree\n", 4, 14, 4, 14, 2)


def test_sentences_stay_whole(ops: ModuleType) -> None:
    text = 'He said "no." Then? Nothing at 3.5 here.\n\nA heading\n\nThe end. 終わり。次。'
    chunks = texts(ops.chunk_text(text, 23, boundary="sentence"))
    assert chunks == [
        'He said "no." Then? ',
        "Nothing at 3.5 here.\n\n",
        "A heading\n\nThe end. ",
        "終わり。次。",
    ]


def test_without_a_boundary_words_and_then_characters_are_cut(ops: ModuleType) -> None:
    assert texts(ops.chunk_text("some words in a line", 10)) == ["some ", "words in ", "a line"]
    assert texts(ops.chunk_text("abcdefgh", 3)) == ["abc", "def", "gh"]
    assert texts(ops.chunk_text("abc\r\ndef", 4, boundary="character")) == ["abc", "\r\nde", "f"]
    assert texts(ops.chunk_text("a\r\nb", 1, boundary="character")) == ["a", "\r", "\n", "b"]


def test_an_overlap_leaves_room_for_a_line_ending(ops: ModuleType) -> None:
    chunks = ops.chunk_text("\na\n\r\n\r\n", 3, overlap=2, boundary="sentence")
    assert texts(chunks) == ["\na\n", "\r\n", "\r\n"]


def test_no_line_ending_of_two_characters_is_cut(ops: ModuleType) -> None:
    """Of every short text: few random ones come to where an overlap leaves no room for one."""
    every = [
        text for length in range(6) for text in product(["\r\n", "\n", "a", " "], repeat=length)
    ]
    for text, size, overlap in product(map("".join, every), (2, 3, 4), range(4)):
        for boundary in ("line", "sentence", "character") if overlap < size else ():
            for chunk in ops.chunk_text(text, size, overlap=overlap, boundary=boundary):
                cuts = chunk.text[0] == "\n" and text[: chunk.character_start].endswith("\r")
                assert not cuts, (text, size, overlap, boundary)
                cuts = chunk.text.endswith("\r") and text[chunk.character_end :][:1] == "\n"
                assert not cuts, (text, size, overlap, boundary)


def test_bytes_and_characters_are_counted_apart(ops: ModuleType) -> None:
    text = "ä𝄞\nöb\n"
    assert [
        (one.byte_start, one.byte_end, one.character_start, one.character_end, one.line)
        for one in ops.chunk_text(text, 3)
    ] == [(0, 7, 0, 3, 1), (7, 11, 3, 6, 2)]


def test_nothing_has_no_chunks(ops: ModuleType) -> None:
    assert ops.chunk_text("", 5) == []


def test_arguments_that_mean_nothing(ops: ModuleType) -> None:
    with pytest.raises(ValueError, match="size is 0; give 1 or more"):
        ops.chunk_text("a", 0)
    with pytest.raises(ValueError, match="overlap is 5; give less than size, which is 5"):
        ops.chunk_text("a", 5, overlap=5)
    with pytest.raises(ValueError, match="boundary is 'page'; use 'character', 'line'"):
        ops.chunk_text("a", 5, boundary="page")
    with pytest.raises(TypeError, match=r"^text must be str, not bytes; decode it first$"):
        ops.chunk_text(b"a", 5)
    with pytest.raises(EncodingError, match=r"^text has '\\udc00' at character 0, .* take it out"):
        ops.chunk_text("\udc00", 5)


@settings(max_examples=400, deadline=None)
@given(
    text=st.text(alphabet='ab. \n\r"!ä。𝄞', max_size=120),
    size=st.integers(1, 25),
    share=st.integers(0, 24),
    boundary=st.sampled_from(["character", "line", "sentence"]),
)
def test_chunks_put_together_are_the_text(text: str, size: int, share: int, boundary: str) -> None:
    rust = pytest.importorskip("vespera_file_ops.backends.rust", exc_type=ImportError)

    overlap = min(share, size - 1)
    chunks = python.chunk_text(text, size, overlap=overlap, boundary=boundary)
    assert chunks == rust.chunk_text(text, size, overlap=overlap, boundary=boundary)
    encoded = text.encode()
    rebuilt, rebuilt_bytes = "", b""
    for before, chunk in zip([None, *chunks], chunks, strict=False):
        assert text[chunk.character_start : chunk.character_end] == chunk.text
        assert encoded[chunk.byte_start : chunk.byte_end] == chunk.text.encode()
        assert 0 < len(chunk.text) <= size
        if size > 1:
            assert text[chunk.character_start - 1 : chunk.character_start + 1] != "\r\n"
            assert text[chunk.character_end - 1 : chunk.character_end + 1] != "\r\n"
        assert chunk.line == text.count("\n", 0, chunk.character_start) + 1
        assert chunk.character_start <= len(rebuilt)
        assert len(rebuilt) - chunk.character_start <= overlap
        if before:
            assert chunk.character_start > before.character_start
            assert chunk.character_end > before.character_end
        rebuilt = rebuilt[: chunk.character_start] + chunk.text
        rebuilt_bytes = (
            rebuilt_bytes[: chunk.byte_start] + encoded[chunk.byte_start : chunk.byte_end]
        )
        if boundary != "character" and chunk.character_end < len(text):
            # Not cut where a line ends within the chunk, behind the one before.
            start = before.character_end if before else 0
            part = text[start : chunk.character_end]
            if boundary == "line" and "\n" in part:
                assert part.endswith("\n")
    assert rebuilt == text
    assert rebuilt_bytes == encoded
