"""One HTTP connection: reads requests, sends the decided step, records the outcome."""

from __future__ import annotations

import json
import socket
import uuid
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from vespera_server.scripted_model import wire
from vespera_server.scripted_model.request import ModelRequest
from vespera_server.scripted_model.request_log import RequestRecord
from vespera_server.scripted_model.scripts import Decision
from vespera_server.scripted_model.steps import Failure, Reply, Stall

if TYPE_CHECKING:
    from vespera_server.scripted_model.server import ScriptedModel


class Connection(BaseHTTPRequestHandler):
    """Handles `/v1/messages` and `/v1/messages/count_tokens`; the rest is 404."""

    protocol_version = "HTTP/1.1"
    server_version = "vespera-scripted-model"

    @property
    def model(self) -> ScriptedModel:
        """The object that owns this server."""
        return cast("ScriptedModel", self.server.model)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: the request log is the log."""

    def do_HEAD(self) -> None:
        """Claude Code probes its base URL so."""
        self._answer_elsewhere()

    def do_GET(self) -> None:
        """Nothing is served by GET."""
        self._answer_elsewhere()

    def do_POST(self) -> None:
        """The two endpoints."""
        self._began = self.model.elapsed()
        path = urlsplit(self.path).path
        raw = self._read_body()
        if path not in ("/v1/messages", "/v1/messages/count_tokens"):
            self._record("404 not_found_error")
            self._send_failure(Failure(404, f"no such endpoint: POST {path}"))
            return
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            self._record("400 invalid_request_error")
            self._send_failure(Failure(400, "the body is not a JSON object"))
            return
        request = ModelRequest(body, {k.lower(): v for k, v in self.headers.items()})
        if path.endswith("/count_tokens"):
            self._record("200 count_tokens", request)
            self._send_json(200, {"input_tokens": request.estimated_tokens})
            return
        decision = self._decide(request)
        self._perform(decision, request)

    def _decide(self, request: ModelRequest) -> Decision:
        try:
            return self.model.scripts.decide(request)
        except Exception as error:  # a callable step is the test's code: tell, do not die
            text = f"a scripted step raised {type(error).__name__}: {error}"
            return Decision(Failure(400, text), request.marker, None)

    def _perform(self, decision: Decision, request: ModelRequest) -> None:
        """Sends the step. The record is written before the last byte leaves, so that a client
        that has its answer finds it in the log."""
        step = decision.step
        if isinstance(step, Stall):
            self._record("stall", request, decision)
            self.model.closing.wait(step.seconds)
            self.close_connection = True
            return
        self.model.closing.wait(step.delay)
        if isinstance(step, Failure):
            self._record(f"{step.status} {step.error_type}", request, decision)
            self._send_failure(step)
        elif not request.stream:
            self._record(f"200 {step.stop_reason}", request, decision)
            self._send_json(200, wire.message(step, request))
        else:
            try:
                ending = self._stream(step, request)
            except OSError:
                self.close_connection = True
                self._record("client gone", request, decision)
                return
            self._record(f"200 {ending}", request, decision)
            self._end_stream(ending)

    def _stream(self, reply: Reply, request: ModelRequest) -> str:
        """Sends all events but the end; returns how the stream ends."""
        self.send_response(200)
        self._send_common_headers("text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(wire.events(reply, request)):
            if number == reply.break_after:
                return reply.break_by
            if number and reply.pace:
                self.model.closing.wait(reply.pace)
            self._send_chunk(event)
        return reply.stop_reason

    def _end_stream(self, ending: str) -> None:
        if ending == "stall":
            self.model.closing.wait()
        if ending in ("cut", "stall"):
            self.close_connection = True
            return
        if ending == "error":
            self._send_chunk(wire.error_event())
        self._send_chunk(b"")

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return bytes(body)

    def _answer_elsewhere(self) -> None:
        self._began = self.model.elapsed()
        self._record("404 not_found_error")
        self._send_failure(Failure(404, f"no such endpoint: {self.command} {self.path}"))

    def _send_failure(self, failure: Failure) -> None:
        body = wire.error_body(failure, f"req_{uuid.uuid4().hex[:24]}")
        extra = {} if failure.retry_after is None else {"retry-after": f"{failure.retry_after:g}"}
        self._send_json(failure.status, body, extra)

    def _send_json(
        self, status: int, body: dict[str, Any], extra: dict[str, str] | None = None
    ) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self._send_common_headers("application/json")
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _send_common_headers(self, content_type: str) -> None:
        self.send_header("Content-Type", content_type)
        self.send_header("request-id", f"req_{uuid.uuid4().hex[:24]}")

    def _send_chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def setup(self) -> None:
        """Small events must not wait for each other (Nagle)."""
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def _record(
        self,
        answer: str,
        request: ModelRequest | None = None,
        decision: Decision | None = None,
    ) -> None:
        self.model.log.append(
            RequestRecord(
                method=self.command,
                path=self.path,
                answer=answer,
                received_at=self._began,
                duration=self.model.elapsed() - self._began,
                script=decision.script if decision else None,
                step=decision.number if decision else None,
                request=request,
            )
        )
