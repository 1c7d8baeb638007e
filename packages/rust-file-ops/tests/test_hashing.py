"""Hashes: the published ones, the same from both backends, of files of any size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType

import pytest

from vespera_file_ops.backends import python

# From the published test vectors: input of n bytes, each its index modulo 251.
BLAKE3 = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
}


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@pytest.mark.parametrize("size", BLAKE3)
def test_blake3_is_the_published_one(ops: ModuleType, tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(content(size))
    assert ops.hash_file(tmp_path / "f", "blake3") == BLAKE3[size]


@pytest.mark.parametrize("size", [63, 64, 65, 1023, 1024, 1025, 2048, 2049, 3073, 8193, 31744])
def test_blake3_agrees_at_the_edges_of_blocks_and_chunks(
    ops: ModuleType, tmp_path: Path, size: int
) -> None:
    (tmp_path / "f").write_bytes(content(size))
    ours = ops.hash_file(tmp_path / "f", "blake3")
    assert ours == python.hash_file(tmp_path / "f", algorithm="blake3")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, (1 << 20) + 1, 5_000_000])
def test_sha256_is_that_of_hashlib(ops: ModuleType, tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(content(size))
    wanted = hashlib.sha256(content(size)).hexdigest()
    assert ops.hash_file(tmp_path / "f") == wanted


def test_an_unknown_algorithm_names_the_known_ones(ops: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="algorithm is 'md5'; use 'sha256' or 'blake3'"):
        ops.hash_file(tmp_path / "f", "md5")
