"""Responsible for MCP over the process's own stdin and stdout.

The SDK reads stdin on a thread that only the end of stdin wakes, so that SIGTERM would wait for
the client. Here the event loop reads, a message has a largest size, and a signal ends the server
as the end of stdin does. While serving, descriptor 0 is /dev/null and descriptor 1 is stderr:
whatever else prints does not garble the conversation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import mcp_types
from mcp.server.mcpserver import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage

from vespera_agent_spawner._logging import logger_for

__all__ = ["serve_stdio", "signalled"]

_CHUNK = 1 << 16
_log = logger_for("server.stdio")


async def serve_stdio(server: MCPServer[Any], largest_message: int) -> int:
    """Serve until stdin ends or a signal comes; returns the exit code."""
    lowlevel = server._lowlevel_server
    with signalled() as stop:
        async with _wire(largest_message, stop) as (incoming, outgoing):
            options = lowlevel.create_initialization_options()
            await lowlevel.run(incoming, outgoing, options)
        return stop.code


class Stop:
    """A signal that asked for the end."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.code = 0

    def by(self, number: signal.Signals) -> None:
        self.code = 128 + number
        self.asked.set()


@contextlib.contextmanager
def signalled() -> Iterator[Stop]:
    """Within it SIGTERM, SIGINT and SIGHUP ask for the end instead of ending the process."""
    stop, loop = Stop(), asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in caught:
        loop.add_signal_handler(number, stop.by, number)
    try:
        yield stop
    finally:
        for number in caught:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _wire(largest: int, stop: Stop) -> AsyncIterator[tuple[Any, Any]]:
    if not (_is_pipe(0) and _is_pipe(1)):
        # A file or a terminal cannot be waited for; the SDK reads it on a thread.
        async with stdio_server() as streams:
            yield streams
        return
    reader, writer = await _own_descriptors(largest)
    to_server, incoming = create_context_streams[SessionMessage | Exception](0)
    outgoing, from_server = create_context_streams[SessionMessage](0)

    async def read() -> None:
        async with to_server:
            async for line in _lines(reader, largest, stop):
                await to_server.send(_message(line))

    async def write() -> None:
        async with from_server:
            async for each in from_server:
                text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                writer.write(text.encode() + b"\n")
                # A client that went away is found out by the end of stdin.
                with contextlib.suppress(ConnectionError):
                    await writer.drain()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        yield incoming, outgoing
        group.cancel_scope.cancel()


def _message(line: bytes | ValueError) -> SessionMessage | Exception:
    if isinstance(line, ValueError):
        return line
    text = line.decode("utf-8", "replace")
    try:
        return SessionMessage(_parse(text))
    except Exception as error:  # whatever a client sends, it is the client that is wrong
        return error


def _parse(text: str) -> mcp_types.JSONRPCMessage:
    adapter = mcp_types.jsonrpc_message_adapter
    try:
        return adapter.validate_json(text, by_name=False)
    except ValueError:
        if "\\u" not in text:
            raise
    # JSON can spell half a character, which the SDK does not read: its sender would wait for ever.
    plain = json.dumps(json.loads(text), ensure_ascii=False)
    return adapter.validate_json(plain.encode("utf-8", "replace"), by_name=False)


async def _lines(
    reader: asyncio.StreamReader, largest: int, stop: Stop
) -> AsyncIterator[bytes | ValueError]:
    """Lines until the end or a signal; one that is too long is skipped and told as an error."""
    asked = asyncio.ensure_future(stop.asked.wait())
    held, skipping = bytearray(), False
    try:
        while True:
            read = asyncio.ensure_future(reader.read(_CHUNK))
            try:
                await asyncio.wait({read, asked}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not read.done():
                    read.cancel()
            if stop.asked.is_set():
                return
            chunk = read.result()
            if not chunk:
                return
            *ended, rest = chunk.split(b"\n")
            for part in ended:
                held += part
                if skipping or len(held) > largest:
                    yield ValueError(f"a message of more than {largest} bytes was skipped")
                elif held.strip():
                    yield bytes(held)
                held.clear()
                skipping = False
            if not skipping:
                held += rest
            if len(held) > largest:
                held.clear()
                skipping = True
    finally:
        asked.cancel()


async def _own_descriptors(
    largest: int,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Take the conversation off descriptors 0 and 1."""
    loop = asyncio.get_running_loop()
    wire_in, wire_out = (os.fdopen(os.dup(number), mode) for number, mode in ((0, "rb"), (1, "wb")))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdout.flush()
    os.dup2(2, 1)
    reader = asyncio.StreamReader(limit=_CHUNK * 2)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), wire_in)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), wire_out
    )
    return reader, asyncio.StreamWriter(transport, protocol, None, loop)


def _is_pipe(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
