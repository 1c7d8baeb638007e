"""Responsible for events: what an agent said, one line of its output each.

An event owns its bytes: keeping one keeps no other alive. Fields are read from the line when they
are asked for; ``data`` builds the whole frame on first use.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

__all__ = ["Event", "PythonEvent", "exact_frame_of", "frame_of"]


_raw_decode = json.JSONDecoder().raw_decode


def _plain(line: bytes) -> Any:
    """What ``json.loads`` does, without its looking for other encodings and for white space."""
    try:
        text = line.decode()
        frame, end = _raw_decode(text)
    except ValueError:
        return json.loads(line)
    return frame if end == len(text) else json.loads(line)


def _loads() -> Callable[[bytes], Any]:
    try:
        import orjson  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return _plain
    loads: Callable[[bytes], Any] = orjson.loads
    return loads


_decode = _loads()

# Not frames: a line over the cap and a line that is no JSON object with a type.
_BARE = frozenset({"oversize", "output"})


class Event(ABC):
    """One line of an agent's output.

    ``kind`` is the frame's ``type`` (an unknown one passes through), ``"oversize"`` for a line
    over the cap (``length`` bytes, ``raw`` holds the first 1,024) or ``"output"`` for a line that
    is no frame. ``text`` is the text of a message, delta or result; ``tool_name`` the first tool
    used or asked for. ``received_at`` is Unix seconds.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def kind(self) -> str: ...

    @property
    @abstractmethod
    def subtype(self) -> str | None: ...

    @property
    @abstractmethod
    def session_id(self) -> str | None: ...

    @property
    @abstractmethod
    def uuid(self) -> str | None: ...

    @property
    @abstractmethod
    def text(self) -> str | None: ...

    @property
    @abstractmethod
    def tool_name(self) -> str | None: ...

    @property
    @abstractmethod
    def parent_tool_use_id(self) -> str | None: ...

    @property
    @abstractmethod
    def is_error(self) -> bool: ...

    @property
    @abstractmethod
    def received_at(self) -> float: ...

    @property
    @abstractmethod
    def length(self) -> int: ...

    @property
    @abstractmethod
    def raw(self) -> bytes: ...

    @property
    @abstractmethod
    def data(self) -> dict[str, Any]: ...


class PythonEvent(Event):
    """An event of the Python backend; also what a pickled event of the Rust one becomes."""

    __slots__ = ("_data", "_kind", "_length", "_raw", "_received_at")

    def __init__(
        self,
        kind: str,
        raw: bytes,
        received_at: float,
        length: int,
        data: dict[str, Any] | None = None,
    ) -> None:
        self._kind = kind
        self._raw = raw
        self._received_at = received_at
        self._length = length
        self._data = data

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def subtype(self) -> str | None:
        return self._text("subtype") or _text_of(self._request(), "subtype")

    @property
    def session_id(self) -> str | None:
        return self._text("session_id")

    @property
    def uuid(self) -> str | None:
        return self._text("uuid")

    @property
    def parent_tool_use_id(self) -> str | None:
        return self._text("parent_tool_use_id")

    @property
    def text(self) -> str | None:
        if self._kind in _BARE:
            return self._raw.decode("utf-8", "replace")
        content = self._content()
        if isinstance(content, str):
            return content
        if isinstance(content, list):
            texts = [
                text
                for block in content
                if isinstance(block, dict)
                and block.get("type") == "text"
                and isinstance(text := block.get("text"), str)
            ]
            if texts:
                return texts[0] if len(texts) == 1 else "".join(texts)
        partial = self.data.get("event")
        delta = partial.get("delta") if isinstance(partial, dict) else None
        text = self._text("result")
        return _text_of(delta, "text") if text is None else text

    @property
    def tool_name(self) -> str | None:
        for block in self._blocks("tool_use"):
            return _text_of(block, "name")
        return _text_of(self._request(), "tool_name")

    @property
    def is_error(self) -> bool:
        failed = any(block.get("is_error") is True for block in self._blocks("tool_result"))
        return failed or self.data.get("is_error") is True

    @property
    def received_at(self) -> float:
        return self._received_at

    @property
    def length(self) -> int:
        return self._length

    @property
    def raw(self) -> bytes:
        return self._raw

    @property
    def data(self) -> dict[str, Any]:
        if self._data is None:
            self._data = decode(self._kind, self._raw)
        return self._data

    def _text(self, name: str) -> str | None:
        return _text_of(self.data, name)

    def _request(self) -> Any:
        return self.data.get("request")

    def _content(self) -> Any:
        message = self.data.get("message")
        return message.get("content") if isinstance(message, dict) else None

    def _blocks(self, kind: str) -> list[dict[str, Any]]:
        content = self._content()
        if not isinstance(content, list):
            return []
        return [block for block in content if isinstance(block, dict) and block.get("type") == kind]

    def __reduce__(self) -> tuple[Any, ...]:
        return PythonEvent, (self._kind, self._raw, self._received_at, self._length)

    def __repr__(self) -> str:
        return describe(self.kind, self.subtype, self.text, self.tool_name)


def decode(kind: str, raw: bytes) -> dict[str, Any]:
    """The frame of a line; empty for a line that is none."""
    if kind in _BARE:
        return {}
    return frame_of(raw) or {}


def frame_of(line: bytes) -> dict[str, Any] | None:
    """The frame of a line; None for a line that is no JSON object."""
    try:
        frame = _decode(line)
    except (ValueError, RecursionError):
        # orjson refuses lone surrogates and NaN, which the CLI may print and json accepts.
        try:
            frame = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return frame if isinstance(frame, dict) else None


def exact_frame_of(line: bytes) -> dict[str, Any] | None:
    """As ``frame_of``, with every digit: orjson rounds whole numbers of more than 64 bits, and what
    a turn answers (``structured_output``) is its caller's own data."""
    try:
        frame = _plain(line)
    except (ValueError, RecursionError):
        return frame_of(line)
    return frame if isinstance(frame, dict) else None


def describe(kind: str, subtype: str | None, text: str | None, tool: str | None) -> str:
    """The repr of an event: short, whatever the line holds."""
    parts = [kind + (f"/{subtype}" if subtype else "")]
    if tool:
        parts.append(f"tool {tool}")
    if text:
        parts.append(repr(text if len(text) <= 60 else text[:57] + "…"))
    return f"<Event {' '.join(parts)}>"


def _text_of(source: Any, name: str) -> str | None:
    value = source.get(name) if isinstance(source, dict) else None
    return value if isinstance(value, str) else None
