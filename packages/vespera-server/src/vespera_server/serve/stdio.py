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
    source, sink = _take_descriptors()
    reader, writer = await _reader(source), await _writer(sink)
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

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(write)
            yield incoming, outgoing
            group.cancel_scope.cancel()
    finally:
        for descriptor in (source, sink):
            # A terminal is shared with the shell, which does not expect it to be non-blocking.
            with contextlib.suppress(OSError):
                os.set_blocking(descriptor, True)


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
    reader: asyncio.StreamReader | _FileReader, largest: int, stop: Stop
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


def _take_descriptors() -> tuple[int, int]:
    """Take the conversation off descriptors 0 and 1."""
    sys.stdout.flush()
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return source, sink


class _FileReader:
    """Reads what cannot be waited for, since it is always there: a file, /dev/null."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def read(self, length: int) -> bytes:
        return await asyncio.to_thread(os.read, self._descriptor, length)


class _FileWriter:
    """Writes to what takes everything at once."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "wb", buffering=0, closefd=False)

    def write(self, line: bytes) -> None:
        self._file.write(line)

    async def drain(self) -> None:
        """Nothing is held back."""


async def _reader(descriptor: int) -> asyncio.StreamReader | _FileReader:
    if not _can_be_waited_for(descriptor):
        return _FileReader(descriptor)
    reader = asyncio.StreamReader(limit=_CHUNK * 2)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader


async def _writer(descriptor: int) -> asyncio.StreamWriter | _FileWriter:
    if not _can_be_waited_for(descriptor):
        return _FileWriter(descriptor)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop),
        os.fdopen(descriptor, "wb", buffering=0),
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


def _can_be_waited_for(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)
