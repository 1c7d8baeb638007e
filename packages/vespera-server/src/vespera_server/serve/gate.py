"""Responsible for who is let in over HTTP: the bearer token, and how often somebody may come.

It stands before everything else, so that a stranger's body is never read. The Host and Origin
headers are checked behind it, by the SDK.
"""

from __future__ import annotations

import hmac
import time

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Bucket", "Gate"]


class Bucket:
    """So many per minute, a sixth of them at once."""

    def __init__(self, per_minute: int, now: float | None = None) -> None:
        self._rate = per_minute / 60.0
        self._size = max(1.0, per_minute / 6.0)
        self._level = self._size
        self._at = time.monotonic() if now is None else now

    def take(self, now: float | None = None) -> float:
        """0 when one more is allowed, else the seconds until it will be."""
        now = time.monotonic() if now is None else now
        self._level = min(self._size, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self._rate


class Gate:
    """Lets requests with the token through, not more than so many per minute.

    Strangers have a limit of their own: their noise keeps nobody else out.
    """

    def __init__(self, app: ASGIApp, token: str, per_minute: int) -> None:
        self._app = app
        self._token = token.encode()
        self._known = Bucket(per_minute)
        self._strangers = Bucket(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"nothing here speaks {scope['type']}")
        known = self._has_token(Headers(scope=scope))
        wait = (self._known if known else self._strangers).take()
        if wait > 0:
            answer = _refusal(429, "rate_limited", "too many requests", "wait, then try again")
            answer.headers["retry-after"] = str(int(wait) + 1)
            await answer(scope, receive, send)
        elif not known:
            answer = _refusal(
                401,
                "unauthorized",
                "this server needs its bearer token",
                "send 'Authorization: Bearer TOKEN'; 'vespera serve' prints which file holds it",
            )
            answer.headers["www-authenticate"] = "Bearer"
            await answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _has_token(self, headers: Headers) -> bool:
        given = headers.getlist("authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        # Compared in constant time, whatever was given.
        same = hmac.compare_digest(token.strip().encode("latin-1", "replace"), self._token)
        return same and scheme.lower() == "bearer"


def _refusal(status: int, code: str, message: str, remedy: str) -> JSONResponse:
    error = {"code": code, "message": message, "remedy": remedy}
    return JSONResponse({"success": False, "error": error}, status)
