"""Responsible for BLAKE3 where the standard library has none: right, and some thousand times slower
than the Rust backend.
"""

from __future__ import annotations

import struct

__all__ = ["Blake3"]

_IV = (
    0x6A09E667,
    0xBB67AE85,
    0x3C6EF372,
    0xA54FF53A,
    0x510E527F,
    0x9B05688C,
    0x1F83D9AB,
    0x5BE0CD19,
)
_SHUFFLE = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_MIXES = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)
_CHUNK_START, _CHUNK_END, _PARENT, _ROOT = 1, 2, 4, 8
_BLOCK, _CHUNK = 64, 1024
_MASK = 0xFFFFFFFF

_Words = tuple[int, ...]


class Blake3:
    """The hash with its default 32 bytes, as an object of ``hashlib`` is used."""

    def __init__(self) -> None:
        self._rest = b""
        self._chunks = 0
        # Values of finished subtrees, the largest first.
        self._stack: list[_Words] = []

    def update(self, data: bytes) -> None:
        """Add ``data``. The last chunk waits: it may turn out to be the root."""
        rest = self._rest + data
        at = 0
        while len(rest) - at > _CHUNK:
            value = _compress(*_last_block(rest[at : at + _CHUNK], self._chunks))
            self._chunks += 1
            count = self._chunks
            while count & 1 == 0:
                value = _compress(*_parent(self._stack.pop(), value))
                count >>= 1
            self._stack.append(value)
            at += _CHUNK
        self._rest = rest[at:]

    def hexdigest(self) -> str:
        """Return the hash of everything added, in hexadecimal digits."""
        node = _last_block(self._rest, self._chunks)
        for left in reversed(self._stack):
            node = _parent(left, _compress(*node))
        chain, words, _, length, flags = node
        return struct.pack("<8I", *_compress(chain, words, 0, length, flags | _ROOT)).hex()


_Node = tuple[_Words, _Words, int, int, int]


def _last_block(chunk: bytes, counter: int) -> _Node:
    """The chunk but for the compression of its last block."""
    chain: _Words = _IV
    flags = _CHUNK_START
    at = 0
    while len(chunk) - at > _BLOCK:
        chain = _compress(chain, struct.unpack_from("<16I", chunk, at), counter, _BLOCK, flags)
        flags = 0
        at += _BLOCK
    block = chunk[at:]
    words = struct.unpack("<16I", block.ljust(_BLOCK, b"\0"))
    return chain, words, counter, len(block), flags | _CHUNK_END


def _parent(left: _Words, right: _Words) -> _Node:
    return _IV, left + right, 0, _BLOCK, _PARENT


def _compress(chain: _Words, words: _Words, counter: int, length: int, flags: int) -> _Words:
    state = [*chain, *_IV[:4], counter & _MASK, counter >> 32, length, flags]
    for _ in range(7):
        for index, (a, b, c, d) in enumerate(_MIXES):
            x, y = words[2 * index], words[2 * index + 1]
            sa, sb, sc, sd = state[a], state[b], state[c], state[d]
            sa = (sa + sb + x) & _MASK
            sd ^= sa
            sd = (sd >> 16 | sd << 16) & _MASK
            sc = (sc + sd) & _MASK
            sb ^= sc
            sb = (sb >> 12 | sb << 20) & _MASK
            sa = (sa + sb + y) & _MASK
            sd ^= sa
            sd = (sd >> 8 | sd << 24) & _MASK
            sc = (sc + sd) & _MASK
            sb ^= sc
            sb = (sb >> 7 | sb << 25) & _MASK
            state[a], state[b], state[c], state[d] = sa, sb, sc, sd
        words = tuple(words[index] for index in _SHUFFLE)
    return tuple(state[index] ^ state[index + 8] for index in range(8))
