"""Responsible for making a tool of a function: schema, structured answer, failures as answers."""

from __future__ import annotations

import difflib
import functools
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import ValidationError

from vespera_server.problems import Problem, problem_of
from vespera_server.redaction import Redactor
from vespera_server.serve.answers import Answer
from vespera_server.serve.wrong_arguments import wrong_arguments

__all__ = ["StructuredServer", "add_tool"]

A = TypeVar("A", bound=Answer)


class StructuredServer(MCPServer[Any]):
    """An ``MCPServer`` that answers unknown tools and arguments in the shape of all answers."""

    def __init__(self, redactor: Redactor, **settings: Any) -> None:
        self.redactor = redactor
        super().__init__(**settings)

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        tool = self._tool_manager.get_tool(name)
        if tool is None:
            known = [each.name for each in self._tool_manager.list_tools()]
            return _failed("unknown_tool", f"no tool {name[:80]!r}", _nearest(name, known))
        known = list(tool.parameters.get("properties", ()))
        for given in arguments:
            if given not in known:
                return _failed(
                    "invalid_arguments",
                    f"{name} has no argument {given[:80]!r}",
                    _nearest(given, known),
                )
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            model = tool.fn_metadata.arg_model
            words = wrong_arguments(name, error.__cause__, model, self.redactor)
            return _failed("invalid_arguments", *words)


def add_tool(
    server: MCPServer[Any],
    function: Callable[..., Awaitable[A]],
    answer: type[A],
    redactor: Redactor,
    *,
    title: str,
    read_only: bool = False,
    destructive: bool = False,
    open_world: bool = False,
) -> None:
    """Register ``function``; whatever it raises becomes an ``answer`` without success."""

    @functools.wraps(function)
    async def call(**arguments: Any) -> CallToolResult:
        try:
            given: Answer = await function(**arguments)
        except Exception as error:
            given = answer(success=False, error=problem_of(error, redactor))
        return _result(given)

    signature = inspect.signature(function, eval_str=True)
    # The SDK reads the schemas from the signature: this one tells what the caller really gets.
    returns = Annotated[CallToolResult, answer]
    call.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]
    call.__annotations__ = {
        name: parameter.annotation for name, parameter in signature.parameters.items()
    } | {"return": returns}
    del call.__wrapped__
    server.add_tool(
        call,
        title=title,
        description=inspect.cleandoc(function.__doc__ or ""),
        annotations=ToolAnnotations(
            title=title,
            read_only_hint=read_only,
            destructive_hint=destructive,
            idempotent_hint=read_only,
            open_world_hint=open_world,
        ),
    )
    tool = server._tool_manager.get_tool(function.__name__)
    assert tool is not None
    tool.parameters["additionalProperties"] = False


def _result(answer: Answer) -> CallToolResult:
    plain = _sendable(answer.model_dump(exclude_none=True))
    return CallToolResult(
        content=[TextContent(type="text", text=json.dumps(plain, ensure_ascii=False))],
        structured_content=plain,
        is_error=not answer.success,
    )


def _sendable(value: Any) -> Any:
    """Plain data whose strings UTF-8 can hold: agents and callers may say lone surrogates."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case dict():
            return {_sendable(key): _sendable(item) for key, item in value.items()}
        case list() | tuple():
            return [_sendable(item) for item in value]
        case _:
            return value


def _failed(code: str, message: str, remedy: str) -> CallToolResult:
    return _result(Answer(success=False, error=Problem(code=code, message=message, remedy=remedy)))


def _nearest(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given[:80], known, 1)
    return f"did you mean '{near[0]}'?" if near else f"use one of: {', '.join(sorted(known))}"
