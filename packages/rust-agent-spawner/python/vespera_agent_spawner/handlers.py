"""Responsible for what an agent's host is asked: permissions, hooks and calls of its tools.

Each ask is answered by a task of its own, so that neither the stream nor another ask waits for it.
A handler that raises or is over its deadline denies, or is a tool's error, with its reason; what
the CLI withdraws and what is left at the agent's end is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner import hooks as hooking
from vespera_agent_spawner._calls import CallFailed, CallTimedOut, call
from vespera_agent_spawner._host_server import HostServer
from vespera_agent_spawner._logging import AgentLogger, logger_for
from vespera_agent_spawner.adapters import claude_frames as frames
from vespera_agent_spawner.errors import AgentError, ConfigError
from vespera_agent_spawner.hooks import HANDLER_DEADLINE
from vespera_agent_spawner.tools import SERVER, full_name, offered

if TYPE_CHECKING:
    from vespera_agent_spawner.backends._protocol import LiveSession
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["Handlers", "check_handlers", "offering"]

PERMISSION_DEADLINE = HANDLER_DEADLINE


def check_handlers(config: AgentConfig) -> None:
    """Refuse functions that cannot work before a process is started for them."""
    if config.hooks is not None:
        hooking.wire_of(config.hooks)
    if config.tools is None:
        return
    if not isinstance(config.tools, tuple):
        raise ConfigError(
            "tools: give a list of functions",
            field="tools",
            value=repr(config.tools),
            remedy="give a list of functions",
        )
    offered(config.tools)
    servers = config.mcp_config
    if isinstance(servers, Mapping):
        servers = servers.get("mcpServers")
        if isinstance(servers, Mapping) and SERVER in servers:
            raise ConfigError(
                f"mcp_config: a server named '{SERVER}' stands in the way of the host's own tools",
                field="mcp_config",
                value=SERVER,
                remedy="give it another name",
            )


def offering(config: AgentConfig, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as data, with what the CLI must be told of the host's functions.

    A tool that the host gives is one that the agent may use: its name is added to
    ``allowed_tools``.
    """
    told = {**mapping, "hooks": hooking.wire_of(config.hooks)}
    if config.tools is not None:
        # Otherwise the CLI may hold the schemas back until the model searches for them.
        host = {"type": "sdk", "name": SERVER, "alwaysLoad": True}
        server = {"mcpServers": {SERVER: host}}
        # Beside the user's own mcp_config, which may be a file: the flag may be given twice.
        told["args"] = [*(mapping.get("args") or ()), f"--mcp-config={json.dumps(server)}"]
        names = [full_name(name) for name in offered(config.tools)]
        own = list(mapping.get("allowed_tools") or ())
        told["allowed_tools"] = [*own, *(name for name in names if name not in own)]
    return told


class Handlers:
    """The functions of one agent's host, and the calls of them that are under way."""

    def __init__(self, config: AgentConfig, session: LiveSession) -> None:
        self._loop = asyncio.get_running_loop()
        self._session = session
        self._on_permission = config.on_permission
        self._config = config
        self._server = None if config.tools is None else HostServer(config.tools, self._failed)
        self._working: dict[str, asyncio.Task[None]] = {}

    @property
    def _log(self) -> AgentLogger:
        return logger_for("agent_spawner.agent", self._config.agent_id)

    @functools.cached_property
    def _hooks(self) -> dict[str, hooking.Hook]:
        # Most agents end without a call.
        return hooking.hooks_by_id(self._config.hooks)

    @staticmethod
    def wanted(config: AgentConfig) -> bool:
        """Whether there is anything to ask."""
        return (
            config.on_permission is not None or config.hooks is not None or config.tools is not None
        )

    def hear(self, line: bytes) -> None:
        """Something is asked, or not any more."""
        frame = json.loads(line)
        ask = str(frame.get("request_id"))
        if frame.get("type") == "control_cancel_request":
            if (task := self._working.pop(ask, None)) is not None:
                task.cancel()
            return
        task = self._loop.create_task(self._answer(ask, frame))
        self._working[ask] = task
        task.add_done_callback(lambda done: self._done(ask, done))

    def close(self) -> None:
        """The agent is over: nobody wants to hear an answer. From any thread."""
        # Most agents end with nothing under way, and waking a loop costs a turn of it.
        if not self._working:
            return
        # A loop that is closed runs no handler any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel_all)

    def _cancel_all(self) -> None:
        for task in tuple(self._working.values()):
            task.cancel()

    def _done(self, ask: str, task: asyncio.Task[None]) -> None:
        if self._working.get(ask) is task:
            del self._working[ask]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("an ask has no answer: %r", error)

    async def _answer(self, ask: str, frame: Mapping[str, Any]) -> None:
        asked = frame.get("request")
        request: Mapping[str, Any] = asked if isinstance(asked, Mapping) else {}
        try:
            match request.get("subtype"):
                case "can_use_tool" if self._on_permission is not None:
                    answer = frames.answer_with(frame, await self._decision(request))
                case "hook_callback":
                    answer = await self._hooked(frame, request)
                case "mcp_message" if self._server is not None:
                    said = await self._server.answer(request.get("message"))
                    answer = frames.answer_with(frame, {"mcp_response": said})
                case _:
                    answer = frames.answer_to(frame)
            frames.encode(answer)
        except Exception as error:
            # Also what a handler returned that JSON cannot hold.
            self._failed(f"no answer to {request.get('subtype')}: {error!r}")
            answer = frames.refusal(frame, f"the host failed: {error!r}")
        # An answer that nobody can hear: the agent ends, and its end is reported.
        with contextlib.suppress(AgentError):
            self._session.answer(ask, answer)

    async def _decision(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Let ``on_permission`` decide; whoever raises or takes too long denies."""
        handler, given = self._on_permission, request.get("input")
        given = given if isinstance(given, dict) else {}
        assert handler is not None
        limit = PERMISSION_DEADLINE
        try:
            decision = await call(handler, request.get("tool_name"), given, deadline=limit)
            response = frames.permission_response(decision, given)
            json.dumps(response)
        except CallTimedOut:
            return {
                "behavior": "deny",
                "message": f"on_permission did not answer within {limit:g} s",
            }
        except CallFailed as error:
            why = f"on_permission raised {error}"
        except Exception as error:
            why = f"on_permission raised {error!r}"
        else:
            return response
        self._failed(f"{why}: denied")
        return {"behavior": "deny", "message": why}

    async def _hooked(self, frame: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
        name = str(request.get("callback_id"))
        hook = self._hooks.get(name)
        if hook is None:
            return frames.refusal(frame, f"the host has no hook '{name}'")
        happened = request.get("input")
        happened = dict(happened) if isinstance(happened, Mapping) else {}
        # The name by which the hook was given, whatever the event calls itself.
        event = name.rpartition("-")[0]
        try:
            decision = await call(hook.handler, happened, deadline=hook.timeout)
            said = hooking.answer_of(event, decision)
            json.dumps(dict(said))
        except CallTimedOut:
            why = f"a hook of {event} did not answer within {hook.timeout:g} s"
        except CallFailed as error:
            why = f"a hook of {event} raised {error}"
        except Exception as error:
            why = f"a hook of {event} failed: {error}"
        else:
            return frames.answer_with(frame, said)
        self._failed(why)
        if hooking.denies(event):
            return frames.answer_with(frame, hooking.refusal(event, why))
        return frames.refusal(frame, why)

    def _failed(self, why: str) -> None:
        self._log.warning("%s", why)
