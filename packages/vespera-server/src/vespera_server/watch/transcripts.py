"""Responsible for a transcript as people read it: who said what, when, one thing a line or so.

A transcript is read as a stream, so that one of gigabytes can be shown and one that grows followed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vespera_agent_spawner.events import PythonEvent
from vespera_agent_spawner.transcripts import kind_of

__all__ = ["Said", "read_said"]

_LONGEST = 2000
_LONGEST_RESULT = 300
_POLL = 0.2
_LAST_WORDS = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Said:
    """One thing of a transcript: ``who`` is ``host``, ``agent`` or ``vespera``; ``kind`` a word for
    what it is; ``text`` is for people, ``frame`` what was really said (None: no JSON)."""

    at: float | None
    who: str
    kind: str
    text: str
    frame: Any = None


def read_said(
    path: Path,
    *,
    follow: Callable[[], bool] | None = None,
    everything: bool = False,
) -> Iterator[Said]:
    """What stands in a transcript, then, while ``follow`` says so, what is appended to it.

    Without ``everything`` only what people follow: prompts, answers, tools, results. A record that
    is no record is told as it is.
    """
    adapter = "claude"
    for record in _records(path, follow):
        mark, _, rest = record.partition(b" ")
        try:
            if mark == b"#":
                adapter = json.loads(rest)["adapter"]
            said = _said(mark, rest, adapter)
        except (ValueError, KeyError, TypeError, AttributeError):
            said = Said(None, "vespera", "unreadable", _short(_decoded(record), _LONGEST))
        if said.text or everything:
            yield said


def _records(path: Path, follow: Callable[[], bool] | None) -> Iterator[bytes]:
    with path.open("rb") as file:
        held, has_end, patience = b"", False, _LAST_WORDS
        while True:
            alive = follow is not None and follow()
            while line := file.readline():
                held += line
                if held.endswith(b"\n"):
                    has_end = held.startswith(b"= ")
                    yield held[:-1]
                    held = b""
            if follow is None or (not alive and (has_end or patience <= 0)):
                return  # half a record at the end: its writer was killed
            # The host writes the end after the agent's, if it lives itself.
            patience -= 0 if alive else _POLL
            time.sleep(_POLL)


def _said(mark: bytes, rest: bytes, adapter: str) -> Said:
    if mark == b"#":
        head = json.loads(rest)
        text = f"session {head['session_id']}" if head["session_id"] else "begins"
        return Said(head["started_at"], "vespera", "begin", text, head)
    if mark == b"=":
        end = json.loads(rest)
        return Said(None, "vespera", "end", _end(end), end)
    stamp, _, line = rest.partition(b" ")
    at = float(stamp)
    if mark == b">":
        frame = json.loads(line)
        return Said(at, "host", str(frame.get("type")), _prompt(frame), frame)
    if mark == b"!":
        length = line.partition(b" ")[0]
        return Said(at, "agent", "oversize", f"a line of {_decoded(length)} bytes, left out")
    if mark != b"<":
        raise ValueError(mark)
    kind = kind_of(line) if adapter != "raw" else "output"
    event = PythonEvent(kind, line, at, len(line))
    return Said(at, "agent", kind, _words(event), event.data or None)


def _words(event: PythonEvent) -> str:
    """What people want to know of an event; empty for what they do not."""
    if event.kind == "output":
        return _short(event.text or "", _LONGEST)
    if event.kind == "assistant":
        return "\n".join(filter(None, (_block(block) for block in _blocks(event))))
    if event.kind == "user":
        return "\n".join(filter(None, (_answer(block) for block in _blocks(event))))
    if event.kind == "result":
        cost = event.data.get("total_cost_usd")
        spent = f", ${cost:.3f} so far" if isinstance(cost, int | float) else ""
        return f"{event.subtype or 'result'}{spent}: {_short(event.text or '', _LONGEST)}"
    if event.kind == "control_request":
        return f"asks {event.subtype or 'something'} {event.tool_name or ''}".rstrip()
    if event.kind == "system" and event.subtype not in ("init", "status"):
        return f"{event.subtype}: {_short(_rest(event.data), _LONGEST_RESULT)}"
    return ""


def _blocks(event: PythonEvent) -> list[Any]:
    message = event.data.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []


def _block(block: Any) -> str:
    match block:
        case {"type": "text", "text": str(text)}:
            return _short(text, _LONGEST)
        case {"type": "tool_use", "name": name, **more}:
            return f"uses {name} {_short(json.dumps(more.get('input')), _LONGEST_RESULT)}"
    return ""


def _answer(block: Any) -> str:
    match block:
        case {"type": "tool_result", **more}:
            content = more.get("content")
            if isinstance(content, list):
                texts = [str(part.get("text", "")) for part in content if isinstance(part, dict)]
                content = "".join(texts)
            failed = "failed: " if more.get("is_error") else ""
            return f"→ {failed}{_short(str(content or ''), _LONGEST_RESULT)}"
        case {"type": "text", "text": str(text)}:
            return _short(text, _LONGEST)
    return ""


def _prompt(frame: dict[str, Any]) -> str:
    if frame.get("type") == "user":
        content = (frame.get("message") or {}).get("content")
        if isinstance(content, list):
            content = "".join(str(part.get("text", "")) for part in content)
        return _short(str(content or ""), _LONGEST)
    request = frame.get("request")
    if isinstance(request, dict) and request.get("subtype") not in (None, "initialize"):
        return str(request["subtype"])
    return ""


def _end(end: dict[str, Any]) -> str:
    words = [str(end.get("outcome"))]
    if end.get("error"):
        words.append(_short(str(end["error"]), _LONGEST))
    return ": ".join(words)


def _rest(data: dict[str, Any]) -> str:
    known = {"type", "subtype", "session_id", "uuid"}
    return json.dumps({key: value for key, value in data.items() if key not in known})


def _short(text: str, longest: int) -> str:
    text = text.strip()
    return text if len(text) <= longest else f"{text[:longest]} … ({len(text)} characters)"


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")
