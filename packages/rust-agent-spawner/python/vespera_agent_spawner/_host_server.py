"""Responsible for the MCP server that an agent's tools are: what the CLI says to it, and answers.

Its messages are JSON-RPC inside the CLI's control protocol; there is one answer to each and nothing
that the server says by itself, so that no stream is needed between the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from vespera_agent_spawner._calls import CallFailed, CallTimedOut, call
from vespera_agent_spawner.tools import SERVER, BadArguments, Offered, offered, text_of

__all__ = ["HostServer"]

_PROTOCOL = "2025-06-18"  # when the CLI does not say which one it speaks
_INVALID_REQUEST = -32600
_UNKNOWN_METHOD = -32601
_INVALID_PARAMS = -32602


class HostServer:
    """The tools of one agent. ``note`` is told of calls that failed."""

    def __init__(self, tools: tuple[Callable[..., Any], ...], note: Callable[[str], None]) -> None:
        self._tools = offered(tools)
        self._note = note
        self._calls: dict[str, asyncio.Task[Any]] = {}

    async def answer(self, message: Any) -> dict[str, Any]:
        """The answer to one message, as the CLI wants it even of a notification."""
        if not isinstance(message, Mapping):
            return _failure(None, _INVALID_REQUEST, "a message is an object")
        number = message.get("id")
        params = message.get("params")
        params = params if isinstance(params, Mapping) else {}
        match message.get("method"):
            case "initialize":
                return _success(number, _greeting(params))
            case "tools/list":
                listed = [one.listed for one in self._tools.values()]
                return _success(number, {"tools": listed})
            case "tools/call":
                return await self._called(number, params)
            case "ping":
                return _success(number, {})
            case "notifications/cancelled":
                self._cancel(params.get("requestId"))
                return _success(None, {})
            case str(method) if method.startswith("notifications/"):
                return _success(None, {})
            case method:
                return _failure(number, _UNKNOWN_METHOD, f"the host's server knows no '{method}'")

    async def _called(self, number: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        tool = self._tools.get(str(params.get("name")))
        if tool is None:
            known = ", ".join(self._tools)
            text = f"the host has no tool '{params.get('name')}'; it has: {known}"
            return _failure(number, _INVALID_PARAMS, text)
        arguments = params.get("arguments")
        key = repr(number)
        work = asyncio.ensure_future(
            self._run(tool, arguments if isinstance(arguments, Mapping) else {})
        )
        self._calls[key] = work
        try:
            await asyncio.wait({work})
        finally:
            self._calls.pop(key, None)
            work.cancel()
        if work.cancelled():
            return _success(number, _shown(f"tool '{tool.name}' was cancelled", failed=True))
        return _success(number, work.result())

    async def _run(self, tool: Offered, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            args, kwargs = tool.bound(arguments)
        except BadArguments as error:
            return _shown(f"tool '{tool.name}' does not take these arguments: {error}", failed=True)
        try:
            result = await call(tool.function, *args, deadline=tool.timeout, **kwargs)
            return _shown(text_of(result))
        except CallTimedOut:
            why = f"tool '{tool.name}' did not answer within {tool.timeout:g} s"
        except CallFailed as error:
            why = f"tool '{tool.name}' raised {error}"
        except Exception as error:
            why = f"tool '{tool.name}' returned what JSON cannot hold: {error}"
        self._note(why)
        return _shown(why, failed=True)

    def _cancel(self, number: Any) -> None:
        work = self._calls.get(repr(number))
        if work is not None:
            work.cancel()


def _greeting(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "protocolVersion": params.get("protocolVersion") or _PROTOCOL,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": SERVER, "version": "1"},
    }


def _shown(text: str, *, failed: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": failed}


def _success(number: Any, result: Mapping[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"jsonrpc": "2.0", "result": dict(result)}
    if number is not None:
        answer["id"] = number
    return answer


def _failure(number: Any, code: int, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": text}}
