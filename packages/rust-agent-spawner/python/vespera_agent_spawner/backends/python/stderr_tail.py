"""Responsible for the last 64 KiB an agent wrote to stderr, the reason of most failures."""

from __future__ import annotations

__all__ = ["STDERR_TAIL", "StderrTail", "shown"]

STDERR_TAIL = 64 * 1024
_IN_MESSAGE = 2_000


class StderrTail:
    """Keeps the end of what it is fed; ``total`` counts all of it."""

    def __init__(self, limit: int = STDERR_TAIL) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        self._kept += data[-self._limit :]
        if len(self._kept) > self._limit:
            del self._kept[: -self._limit]

    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")


def shown(text: str) -> str:
    """The tail as an error message shows it: its end, or the plain statement that it is empty."""
    text = text.strip()
    if not text:
        return "stderr: empty"
    if len(text) > _IN_MESSAGE:
        text = "…" + text[-_IN_MESSAGE:]
    return f"stderr: {text!r}" if "\n" not in text else f"stderr:\n{text}"
