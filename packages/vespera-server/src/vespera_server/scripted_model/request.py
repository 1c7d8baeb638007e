"""One Messages request as a script sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_MARKER = re.compile(r"\[\[script:([A-Za-z0-9_.-]+)\]\]")


def _blocks(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The content of a message as blocks; a bare string counts as one text block."""
    content = message.get("content", "")
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    elif isinstance(content, list):
        yield from (block for block in content if isinstance(block, Mapping))


def _text_of(content: object) -> str:
    """The text in a tool result, which is a string or a list of blocks."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (block.get("text", "") for block in content if isinstance(block, Mapping))
        return "\n".join(str(part) for part in parts)
    return ""


@dataclass(frozen=True)
class ModelRequest:
    """The parsed body and headers (lower-case names) of a `POST /v1/messages`."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def model(self) -> str:
        """The model name that the client asks for."""
        return str(self.body.get("model", ""))

    @property
    def stream(self) -> bool:
        """Whether the client wants server-sent events."""
        return self.body.get("stream") is True

    @property
    def tool_names(self) -> tuple[str, ...]:
        """The names of the tools that the client offers."""
        return tuple(str(tool.get("name", "")) for tool in self.body.get("tools") or ())

    @cached_property
    def messages(self) -> tuple[Mapping[str, Any], ...]:
        """The conversation so far."""
        messages = self.body.get("messages")
        if not isinstance(messages, list):
            return ()
        return tuple(message for message in messages if isinstance(message, Mapping))

    @cached_property
    def first_prompt(self) -> str:
        """All text of the first user message, the CLI's own reminders included."""
        for message in self.messages:
            if message.get("role") == "user":
                texts = (
                    str(b.get("text", "")) for b in _blocks(message) if b.get("type") == "text"
                )
                return "\n".join(texts)
        return ""

    @property
    def marker(self) -> str | None:
        """NAME of `[[script:NAME]]` in the first user prompt."""
        found = _MARKER.search(self.first_prompt)
        return found.group(1) if found else None

    @cached_property
    def tool_results(self) -> tuple[str, ...]:
        """The text of every tool result in the conversation, oldest first."""
        return tuple(
            _text_of(block.get("content"))
            for message in self.messages
            for block in _blocks(message)
            if block.get("type") == "tool_result"
        )

    @property
    def last_tool_result(self) -> str:
        """The text of the newest tool result, stripped; empty before the first one."""
        return self.tool_results[-1].strip() if self.tool_results else ""

    @cached_property
    def session_id(self) -> str:
        """The client's session id, or "" when it tells none.

        Claude Code puts it into `metadata.user_id`, as JSON or after `_session_`.
        """
        header = self.headers.get("x-claude-code-session-id", "")
        if header:
            return header
        metadata = self.body.get("metadata")
        user_id = str(metadata.get("user_id", "")) if isinstance(metadata, Mapping) else ""
        try:
            parsed = json.loads(user_id)
        except ValueError:
            return user_id.partition("_session_")[2]
        return str(parsed.get("session_id", "")) if isinstance(parsed, dict) else ""

    @property
    def estimated_tokens(self) -> int:
        """Four bytes of JSON per token: a stable figure for `usage`, not a tokenizer's."""
        return max(1, len(json.dumps(self.body.get("messages", ""))) // 4)
