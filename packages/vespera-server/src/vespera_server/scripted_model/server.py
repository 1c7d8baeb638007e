"""The HTTP side: loopback only, one thread per connection, every wait ends at close()."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Self

from vespera_server.scripted_model.connection import Connection
from vespera_server.scripted_model.request_log import RequestLog, RequestRecord
from vespera_server.scripted_model.scripts import Choose, Script, Scripts


class ScriptedModel:
    """The scripted Messages API on 127.0.0.1. Use as a context manager, or start() and close().

    Args:
        scripts: Name to script; see the package's text for how one is chosen.
        choose: Looks at a request first; returns a script's name, or None for the usual rules.
        errand_reply: Text for the CLI's requests without tools.
        port: 0 picks a free one.
    """

    def __init__(
        self,
        scripts: Mapping[str, Script] | None = None,
        *,
        choose: Choose | None = None,
        errand_reply: str = "ok",
        port: int = 0,
    ) -> None:
        self.scripts = Scripts(scripts or {}, choose, errand_reply)
        self.log = RequestLog()
        self.closing = threading.Event()
        self._started_at = time.monotonic()
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """What to put into ANTHROPIC_BASE_URL. Raises RuntimeError before start()."""
        if self._server is None:
            raise RuntimeError("the scripted model is not running; call start() or use `with`")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """What has been answered so far."""
        return self.log.snapshot()

    def wait_for(
        self, wanted: Callable[[RequestRecord], bool], timeout: float = 30.0
    ) -> RequestRecord:
        """Waits up to `timeout` seconds for a matching record; raises TimeoutError."""
        return self.log.wait_for(wanted, timeout)

    def add(self, name: str, script: Script) -> None:
        """Adds or replaces a script while the server runs."""
        self.scripts.add(name, script)

    def elapsed(self) -> float:
        """Seconds since this object was made: the clock of the log."""
        return time.monotonic() - self._started_at

    def start(self) -> Self:
        """Binds and serves in a background thread. Raises OSError when the port is taken."""
        if self._server is not None:
            raise RuntimeError("the scripted model is already running")
        self.closing.clear()
        self._server = _Server(self, self._port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="scripted-model", daemon=True
        )
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends every stall and connection, and joins every thread. Harmless when repeated."""
        server, self._server = self._server, None
        if server is None:
            return
        self.closing.set()
        server.shutdown()
        server.end_connections()
        server.server_close()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() joins them
    request_queue_size = 256  # many agents start at once

    def __init__(self, model: ScriptedModel, port: int) -> None:
        self.model = model
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), Connection)

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is its own business; the log has the record."""

    def end_connections(self) -> None:
        """Wakes the threads that wait for the next request of a kept-alive connection."""
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the peer was faster
