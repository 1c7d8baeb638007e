"""Turns a scripted reply into the API's bytes: one JSON message, or server-sent events."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from vespera_server.scripted_model.request import ModelRequest
from vespera_server.scripted_model.steps import Block, Failure, Reply, Text

_DELTA_CHARACTERS = 24  # small, so that a client sees several deltas even for a short answer


def message(reply: Reply, request: ModelRequest) -> dict[str, Any]:
    """The whole answer as the body of a non-streaming response."""
    return {
        **_envelope(request),
        "content": [_block(block, _tool_id()) for block in reply.blocks],
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "usage": {
            **_input_usage(reply, request),
            "output_tokens": _output_tokens(reply),
        },
    }


def events(reply: Reply, request: ModelRequest) -> Iterator[bytes]:
    """The answer as server-sent events, `message_start` to `message_stop`."""
    start = {
        **_envelope(request),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**_input_usage(reply, request), "output_tokens": 1},
    }
    yield _event("message_start", message=start)
    yield _event("ping")
    for index, block in enumerate(reply.blocks):
        yield from _block_events(index, block)
    yield _event(
        "message_delta",
        delta={"stop_reason": reply.stop_reason, "stop_sequence": None},
        usage={"output_tokens": _output_tokens(reply)},
    )
    yield _event("message_stop")


def error_event() -> bytes:
    """The event with which the API ends a stream that went wrong."""
    return _event("error", error={"type": "overloaded_error", "message": "scripted stream error"})


def error_body(failure: Failure, request_id: str) -> dict[str, Any]:
    """The body of an HTTP error."""
    return {
        "type": "error",
        "error": {"type": failure.error_type, "message": failure.text},
        "request_id": request_id,
    }


def _event(kind: str, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _envelope(request: ModelRequest) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
    }


def _tool_id() -> str:
    return f"toolu_{uuid.uuid4().hex[:24]}"


def _block(block: Block, tool_id: str) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    return {"type": "tool_use", "id": tool_id, "name": block.name, "input": block.input}


def _block_events(index: int, block: Block) -> Iterator[bytes]:
    """A block opens empty and is filled by deltas: text as text, a tool's input as JSON text."""
    if isinstance(block, Text):
        empty: dict[str, Any] = {"type": "text", "text": ""}
        source, kind, key = block.text, "text_delta", "text"
    else:
        empty = {"type": "tool_use", "id": _tool_id(), "name": block.name, "input": {}}
        source, kind, key = json.dumps(block.input), "input_json_delta", "partial_json"
    yield _event("content_block_start", index=index, content_block=empty)
    for at in range(0, len(source), _DELTA_CHARACTERS):
        piece = source[at : at + _DELTA_CHARACTERS]
        yield _event("content_block_delta", index=index, delta={"type": kind, key: piece})
    yield _event("content_block_stop", index=index)


def _input_usage(reply: Reply, request: ModelRequest) -> dict[str, int]:
    known = reply.input_tokens
    return {
        "input_tokens": request.estimated_tokens if known is None else known,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }


def _output_tokens(reply: Reply) -> int:
    if reply.output_tokens is not None:
        return reply.output_tokens
    characters = sum(
        len(block.text) if isinstance(block, Text) else len(json.dumps(block.input))
        for block in reply.blocks
    )
    return max(1, characters // 4)
