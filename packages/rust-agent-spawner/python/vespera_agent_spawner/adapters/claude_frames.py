"""Responsible for the frames of the Claude CLI: those we send, and what a ``result`` means.

Nothing here touches a process. Unknown kinds and fields are the caller's to pass through.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from vespera_agent_spawner.results import Outcome, TurnResult

__all__ = [
    "NO_PERMISSION_HANDLER",
    "answer_to",
    "control_request",
    "encode",
    "outcome_of",
    "turn_result",
    "user_frame",
]

NO_PERMISSION_HANDLER = "no permission handler; list the tool in allowed_tools"

_BY_SUBTYPE = {
    "error_max_turns": Outcome.LIMIT_EXCEEDED,
    "error_max_budget_usd": Outcome.BUDGET_EXCEEDED,
}
_BY_STATUS = {
    401: Outcome.AUTH_FAILED,
    403: Outcome.AUTH_FAILED,
    429: Outcome.RATE_LIMITED,
    529: Outcome.RATE_LIMITED,
}


def encode(frame: Mapping[str, Any]) -> bytes:
    """One line of NDJSON. ``ensure_ascii`` keeps U+2028 and lone surrogates off the wire."""
    return json.dumps(frame, separators=(",", ":")).encode("ascii") + b"\n"


def user_frame(prompt: str, uuid: str) -> dict[str, Any]:
    """A prompt. Its ``uuid`` comes back in the result's ``user_message_uuids``."""
    return {
        "type": "user",
        "session_id": "",
        "uuid": uuid,
        "message": {"role": "user", "content": prompt},
        "parent_tool_use_id": None,
    }


def control_request(request_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Something we ask of the CLI."""
    return {"type": "control_request", "request_id": request_id, "request": dict(request)}


def answer_to(frame: Mapping[str, Any]) -> dict[str, Any]:
    """Our answer to something the CLI asks; it never waits for a person.

    The ``request_id`` stands *inside* ``response``: outside, the CLI waits 120 s for it.
    """
    request = frame.get("request")
    subtype = request.get("subtype") if isinstance(request, Mapping) else None
    response: dict[str, Any] = {"request_id": frame.get("request_id")}
    if subtype == "can_use_tool":
        response["subtype"] = "success"
        response["response"] = {"behavior": "deny", "message": NO_PERMISSION_HANDLER}
    else:
        response["subtype"] = "error"
        response["error"] = f"the host has no handler for '{subtype}'"
    return {"type": "control_response", "response": response}


def answer_with(frame: Mapping[str, Any], response: Mapping[str, Any]) -> dict[str, Any]:
    """A handler's answer to something the CLI asks."""
    inside = {
        "subtype": "success",
        "request_id": frame.get("request_id"),
        "response": dict(response),
    }
    return {"type": "control_response", "response": inside}


def permission_response(decision: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What ``on_permission`` returned as the CLI reads it.

    True allows; a mapping allows with that input instead; False, None and text deny (the text is
    the reason). Raises ``TypeError`` for anything else.
    """
    if decision is True:
        return {"behavior": "allow", "updatedInput": dict(asked)}
    if decision is False or decision is None:
        return {"behavior": "deny", "message": "denied by on_permission"}
    if isinstance(decision, str):
        return {"behavior": "deny", "message": decision}
    if isinstance(decision, Mapping):
        return {"behavior": "allow", "updatedInput": dict(decision)}
    raise TypeError(
        f"on_permission returned {type(decision).__name__}; return True, False, a reason (str) "
        "or the tool's input (dict)"
    )


def outcome_of(frame: Mapping[str, Any]) -> Outcome:
    """What a ``result`` frame says about its turn."""
    # An interrupted turn calls itself error_during_execution: cancelled is not failed.
    if str(frame.get("terminal_reason") or "").startswith("aborted"):
        return Outcome.CANCELLED
    subtype = str(frame.get("subtype") or "")
    if subtype in _BY_SUBTYPE:
        return _BY_SUBTYPE[subtype]
    if subtype == "success" and not frame.get("is_error"):
        return Outcome.COMPLETED
    status = frame.get("api_error_status")
    return _BY_STATUS.get(status, Outcome.FAILED) if isinstance(status, int) else Outcome.FAILED


def is_final(outcome: str) -> bool:
    """True when the CLI goes on with nothing after it, whatever background tasks there were."""
    return outcome in (Outcome.BUDGET_EXCEEDED, Outcome.LIMIT_EXCEEDED)


def outcome_of_time_out(context: Mapping[str, Any]) -> Outcome:
    """A turn without a result: what the service said to what the CLI went on repeating."""
    return _BY_STATUS.get(context.get("retrying_status", 0), Outcome.TIMED_OUT)


def turn_result(
    frame: Mapping[str, Any], *, session_id: str, backend: str, cost_before: float | None
) -> TurnResult:
    """Describe a turn by its ``result`` frame.

    ``total_cost_usd`` is cumulative per process while ``usage`` counts the turn, so the turn's
    own cost is a difference: ``cost_before`` is the total that the turn before it told.
    """
    outcome = outcome_of(frame)
    text = frame.get("result")
    total = _number(frame, "total_cost_usd")
    usage = frame.get("usage")
    return TurnResult(
        outcome=outcome.value,
        result=text if isinstance(text, str) else None,
        session_id=str(frame.get("session_id") or session_id),
        is_error=bool(frame.get("is_error")) or outcome is not Outcome.COMPLETED,
        num_turns=int(_number(frame, "num_turns") or 0),
        duration_ms=int(_number(frame, "duration_ms") or 0),
        usage=dict(usage) if isinstance(usage, Mapping) else {},
        total_cost_usd=total,
        cost_usd=None if total is None else max(0.0, total - (cost_before or 0.0)),
        structured_output=frame.get("structured_output"),
        backend=backend,
        error=None if outcome is Outcome.COMPLETED else _why(frame, outcome),
    )


def _number(frame: Mapping[str, Any], name: str) -> float | None:
    """A field that should be a number: one that is none costs that field, not the turn."""
    value = frame.get(name)
    usable = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if usable else None  # type: ignore[arg-type]


def _why(frame: Mapping[str, Any], outcome: Outcome) -> str:
    if outcome is Outcome.CANCELLED:
        return "the turn was interrupted"
    errors = frame.get("errors")
    parts = [str(error) for error in errors] if isinstance(errors, list) else []
    text = frame.get("result")
    if isinstance(text, str) and text:
        parts.append(text)
    words = "; ".join(parts) or str(frame.get("terminal_reason") or "no reason given")
    status = frame.get("api_error_status")
    suffix = f" (HTTP {status})" if status is not None else ""
    return f"{frame.get('subtype') or 'result'}: {words}{suffix}"
