"""Responsible for the official ``claude_agent_sdk`` on this engine: a transport for it.

One line more, and the CLI of a ``query()`` or a ``ClaudeSDKClient`` is an agent of a supervisor:
its tree ends with it and with its host, it has limits, it is counted and it waits for its place::

    options = ClaudeAgentOptions(…)
    async for message in query(prompt="…", options=options, transport=SupervisedTransport(options)):
        …

The SDK speaks as it always does: permissions, hooks and in-process MCP servers are its own, and the
command line is made by the SDK itself. It needs asyncio, and the extra ``claude-sdk``.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._tracing import trace_context
from vespera_agent_spawner.agent import Agent
from vespera_agent_spawner.config import AgentConfig, Limits, Timeouts
from vespera_agent_spawner.errors import AgentError, ConfigError, ProgramNotFound
from vespera_agent_spawner.events import Event, frame_of
from vespera_agent_spawner.supervisor import Supervisor

try:
    from claude_agent_sdk import (
        ClaudeAgentOptions,
        CLIConnectionError,
        CLINotFoundError,
        ProcessError,
        Transport,
        __version__,
    )
except ImportError as _missing:
    raise ImportError(
        "vespera_agent_spawner.claude_sdk is a transport of the official SDK, which is not "
        "installed: pip install 'vespera-agent-spawner[claude-sdk]'",
        name="claude_agent_sdk",
    ) from _missing

if TYPE_CHECKING:
    from vespera_agent_spawner.iteration import AgentEvents

__all__ = ["SupervisedTransport"]

# What the SDK gives a CLI: five seconds after the end of its input, five more after SIGTERM.
_GRACE = 10.0

_log = logger_for("agent_spawner.claude_sdk")


class SupervisedTransport(Transport):
    """The SDK's CLI as an agent.

    ``options`` are those that ``query()`` or the client gets: the SDK leaves what it would make
    flags of to its transport. ``supervisor`` owns the agent, and with ``warm`` it keeps CLIs that
    have booted for the next ones; without one all transports of an event loop share one, which
    lives as long as any of them. ``limits``, ``timeouts`` (``queue``, ``total`` and ``write``:
    turns are the SDK's), ``priority`` and ``transcript`` are those of ``AgentConfig``.
    """

    def __init__(
        self,
        options: ClaudeAgentOptions | None = None,
        *,
        supervisor: Supervisor | None = None,
        agent_id: str | None = None,
        limits: Limits | Mapping[str, object] | None = None,
        timeouts: Timeouts | Mapping[str, object] | None = None,
        priority: int = 0,
        transcript: str | os.PathLike[str] | None = None,
    ) -> None:
        self._options = options if options is not None else ClaudeAgentOptions()
        self._supervisor = supervisor
        ours = {
            "agent_id": agent_id,
            "limits": limits,
            "timeouts": timeouts,
            "priority": priority or None,
            "transcript": transcript,
        }
        self._ours = {name: value for name, value in ours.items() if value is not None}
        self._shared: _Shared | None = None
        self._agent: Agent | None = None
        self._connected = False
        # Its input is.
        self._open = False
        self._stderr = _StderrLines(self._options)

    @property
    def agent(self) -> Agent:
        """The agent: its usage, its info, its result. There is one once it is connected."""
        if self._agent is None:
            raise CLIConnectionError("not connected")
        return self._agent

    # -- what the SDK asks for -------------------------------------------------------------

    async def connect(self) -> None:
        """Start the CLI, once there is a place for it."""
        if self._connected:
            return
        config = self._config()
        try:
            self._agent = await (await self._owner()).spawn(config)
        except BaseException as error:
            await self._let_go()
            if isinstance(error, ConfigError) or not isinstance(error, AgentError):
                raise
            if isinstance(error, ProgramNotFound):
                raise CLINotFoundError(str(error)) from error
            raise CLIConnectionError(str(error)) from error
        self._connected = self._open = True

    async def write(self, data: str) -> None:
        """Lines of the SDK."""
        agent = self.agent
        if not self._open or agent.state.is_over:
            ended = f": {self._why(agent)}" if agent.state.is_over else ""
            raise CLIConnectionError(f"the CLI takes no more input{ended}")
        agent.write(data.encode())

    async def end_input(self) -> None:
        """Nothing more is written."""
        if self._agent is not None and self._open:
            self._open = False
            self._agent.end_input()

    def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """The CLI's frames; raises ``ProcessError`` with its stderr when it failed."""
        return self._messages(self.agent)

    def is_ready(self) -> bool:
        """Whether it takes input."""
        return self._open

    async def close(self) -> None:
        """End the tree: at most ten seconds in peace, then by force."""
        self._connected = self._open = False
        try:
            # Whoever is cancelled here leaves a tree that is being ended all the same.
            if self._agent is not None:
                await self._agent.shutdown(_GRACE)
        finally:
            await self._let_go()

    # -- how -------------------------------------------------------------------------------

    async def _messages(self, agent: Agent) -> AsyncIterator[dict[str, Any]]:
        events = cast("AgentEvents", aiter(agent))
        async for first in events:
            event: Event | None = first
            while event is not None:
                message = _message_of(event)
                if message is not None:
                    yield message
                event = events.at_hand()
            self._stderr.tell(agent)
        self._open = False
        self._stderr.tell(agent)
        status = agent._live.exit_status
        if agent._overspent is not None:
            raise ProcessError(f"the CLI was ended: {agent._overspent}")
        if status is not None and not status.success and status.by != "shutdown":
            code = status.code if status.signal is None else -status.signal
            stderr = agent.stderr_tail.strip()
            raise ProcessError(f"the CLI ended: {status.reason}", exit_code=code, stderr=stderr)

    def _why(self, agent: Agent) -> str:
        status = agent._live.exit_status
        return "it has ended" if status is None else status.reason

    async def _owner(self) -> Supervisor:
        if self._supervisor is not None:
            return self._supervisor
        self._shared = _Shared.of_this_loop()
        return await self._shared.enter()

    async def _let_go(self) -> None:
        shared, self._shared = self._shared, None
        if shared is not None:
            await shared.leave()

    def _config(self) -> AgentConfig:
        options = self._options
        if options.can_use_tool is not None and options.permission_prompt_tool_name is None:
            # As the SDK does for its own transport: asks come over the control protocol.
            options = replace(options, permission_prompt_tool_name="stdio")
        if options.user is not None:
            raise ConfigError(
                "options.user: an agent runs as its host's user; leave it out",
                field="options.user",
                value=options.user,
                remedy="leave it out, or start the host as that user",
            )
        directory = None if options.cwd is None else os.fspath(options.cwd)
        environment = tuple(_environment(options).items())
        config = _relayed(tuple(_command(options)), directory, environment)
        return config._with(**self._ours) if self._ours else config


# Checking a command line takes longer than starting it, and most of a fleet share theirs.
@functools.lru_cache(maxsize=16)
def _relayed(
    command: tuple[str, ...], directory: str | None, environment: tuple[tuple[str, str], ...]
) -> AgentConfig:
    return AgentConfig(
        adapter="relay",
        program=command[0],
        args=command[1:],
        working_directory=directory,
        environment=dict(environment),
    )


class _Shared:
    """The supervisor of all transports of one loop that were given none."""

    _by_loop: dict[asyncio.AbstractEventLoop, _Shared] = {}  # noqa: RUF012 - one for all

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._supervisor: Supervisor | None = None
        self._users = 0

    @classmethod
    def of_this_loop(cls) -> _Shared:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise CLIConnectionError("SupervisedTransport needs asyncio") from error
        for other in [other for other in cls._by_loop if other.is_closed()]:
            del cls._by_loop[other]
        return cls._by_loop.setdefault(loop, cls(loop))

    async def enter(self) -> Supervisor:
        self._users += 1
        if self._supervisor is None:
            self._supervisor = await Supervisor().__aenter__()
        return self._supervisor

    async def leave(self) -> None:
        self._users -= 1
        if self._users > 0:
            return
        if self._by_loop.get(self._loop) is self:
            del self._by_loop[self._loop]
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            await supervisor.shutdown()


class _StderrLines:
    """``options.stderr`` gets the CLI's stderr line by line, as far as the tail reaches."""

    def __init__(self, options: ClaudeAgentOptions) -> None:
        self._callback = options.stderr
        self._seen = ""

    def tell(self, agent: Agent) -> None:
        if self._callback is None:
            return
        tail = agent.stderr_tail
        whole = tail[: tail.rfind("\n") + 1] if not agent.state.is_over else tail
        if whole == self._seen:
            return
        new = whole.removeprefix(self._seen)
        if len(new) == len(whole) and self._seen:
            # The tail has moved on: go on behind the last of what was told.
            at = whole.find(self._seen[-256:])
            new = whole if at == -1 else whole[at + len(self._seen[-256:]) :]
        self._seen = whole
        for line in filter(None, map(str.rstrip, new.splitlines())):
            try:
                self._callback(line)
            except Exception:
                _log.debug("options.stderr raised", exc_info=True)


def _message_of(event: Event) -> dict[str, Any] | None:
    message = frame_of(event.raw)
    if message is None and event.kind == "oversize":
        _log.warning("a frame of %d bytes is over the cap and was skipped", event.length)
    elif message is None:
        # Some CLIs print what is no frame; a frame that was cut off is the end's to explain.
        _log.debug("a line that is no frame was skipped: %.200r", event.raw)
    return message


def _command(options: ClaudeAgentOptions) -> list[str]:
    """The command line as the SDK makes it: new options of the SDK need nothing here."""
    try:
        from claude_agent_sdk._internal.transport.subprocess_cli import SubprocessCLITransport

        own = SubprocessCLITransport(prompt="", options=options)
        own._cli_path = own._cli_path or own._find_cli()
        return own._build_command()
    except (AttributeError, ImportError, TypeError) as error:
        raise ConfigError(
            f"claude-agent-sdk {__version__} makes its command line in a way that is not known "
            f"here ({error!r})",
            field="claude_sdk",
            value=__version__,
            remedy="pip install 'vespera-agent-spawner[claude-sdk]' installs one that is",
        ) from error


def _environment(options: ClaudeAgentOptions) -> dict[str, str]:
    """What the SDK adds to the host's environment, which the engine rids of an outer CLI's."""
    environment = {
        # Asks for the frames by which the SDK knows when a run is over.
        "CLAUDE_CODE_SDK_READS_SESSION_STATE": "1",
        "CLAUDE_CODE_ENTRYPOINT": "sdk-py",
        **trace_context(options.env),
        **options.env,
        "CLAUDE_AGENT_SDK_VERSION": __version__,
    }
    if options.client_app is not None:
        environment["CLAUDE_AGENT_SDK_CLIENT_APP"] = options.client_app
    if options.enable_file_checkpointing:
        environment["CLAUDE_CODE_ENABLE_SDK_FILE_CHECKPOINTING"] = "true"
    if options.cwd is not None:
        environment["PWD"] = str(options.cwd)
    return environment
