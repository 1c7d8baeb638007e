"""What one scripted answer can be: blocks, an HTTP error, or silence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# The API's own names, so that a client classifies our errors as it would the real ones.
ERROR_TYPES: dict[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


@dataclass(frozen=True)
class Text:
    """A text block."""

    text: str


@dataclass(frozen=True)
class ToolUse:
    """A call of one of the client's tools; the id is made by the server."""

    name: str
    input: dict[str, Any] = field(default_factory=dict)


Block = Text | ToolUse


@dataclass(frozen=True, init=False)
class Reply:
    """A 200 answer of text and tool_use blocks.

    Args:
        blocks: In the order they are sent.
        delay: Seconds before the first byte.
        pace: Seconds between two stream events.
        stop_reason: By default `tool_use` when there is a tool call, else `end_turn`.
        input_tokens, output_tokens: What `usage` reports; by default estimated from the text.
        break_after: Number of stream events after which the stream breaks; None for never.
        break_by: `cut` closes the connection, `stall` goes silent with the socket open,
            `error` sends the API's error event. Needs a streaming request.
    """

    blocks: tuple[Block, ...]
    delay: float
    pace: float
    stop_reason: str
    input_tokens: int | None
    output_tokens: int | None
    break_after: int | None
    break_by: Literal["cut", "stall", "error"]

    def __init__(
        self,
        *blocks: Block,
        delay: float = 0.0,
        pace: float = 0.0,
        stop_reason: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        break_after: int | None = None,
        break_by: Literal["cut", "stall", "error"] = "cut",
    ) -> None:
        calls_tool = any(isinstance(block, ToolUse) for block in blocks)
        values = {
            "blocks": blocks,
            "delay": delay,
            "pace": pace,
            "stop_reason": stop_reason or ("tool_use" if calls_tool else "end_turn"),
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "break_after": break_after,
            "break_by": break_by,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Failure:
    """An HTTP error in the API's shape: 401, 429, 500, 529, ...

    Args:
        status: The HTTP status.
        message: The error's text; by default one that says it is scripted.
        retry_after: Seconds for the `retry-after` header; None sends none.
        delay: Seconds before the answer.
    """

    status: int
    message: str | None = None
    retry_after: float | None = None
    delay: float = 0.0

    @property
    def error_type(self) -> str:
        """The API's name for this status (`api_error` for one it does not know)."""
        return ERROR_TYPES.get(self.status, "api_error")

    @property
    def text(self) -> str:
        """The message as sent."""
        return self.message or f"scripted {self.error_type}"


@dataclass(frozen=True)
class Stall:
    """No answer at all: the connection stays open for `seconds` (None: until the server closes),
    then it is cut."""

    seconds: float | None = None


Step = Reply | Failure | Stall
