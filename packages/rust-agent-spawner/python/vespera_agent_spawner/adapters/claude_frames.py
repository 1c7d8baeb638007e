"""Responsible for the frames of the Claude CLI: those we send, and what a ``result`` means.

Nothing here touches a process. Unknown kinds and fields are the caller's to pass through.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vespera_agent_spawner.events import frame_of
from vespera_agent_spawner.results import Outcome, TurnResult

__all__ = [
    "COST_BEFORE",
    "NO_PERMISSION_HANDLER",
    "Refused",
    "Retry",
    "answer_to",
    "ask_cost_before",
    "asked",
    "blamed",
    "control_request",
    "cost_before",
    "encode",
    "has_prompt",
    "is_final",
    "limit_ends",
    "limit_reached",
    "outcome_of",
    "read_retry",
    "turn_result",
    "unanswered",
    "user_frame",
]

#: Names our question for what a session has cost before.
COST_BEFORE = "vespera-cost-before"

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
_BY_ERROR = {
    "authentication_failed": Outcome.AUTH_FAILED,
    "rate_limit": Outcome.RATE_LIMITED,
    "overloaded": Outcome.RATE_LIMITED,
}


# The twins of these are in src/agent/refusal.rs.
_LONGEST_BACKOFF = 60.0  # a longer wait is no pause between tries but for a limit's end, seconds
_AUTH_PATIENCE = 3  # so many refusals in a row are no race of two logins any more

# No limit lasts longer than a month: a later end is none, and stops no fleet.
_LONGEST_LIMIT = 32 * 86_400.0


@dataclass(frozen=True, slots=True)
class Refused:
    """What the service answers instead of the model: the outcome to blame, and in which words."""

    outcome: Outcome
    words: str


@dataclass(frozen=True, slots=True)
class Retry:
    """An ``api_retry`` frame: the CLI asks the service again, of its own accord.

    ``hopeless``: the turn is to be stopped. ``limit_ends_in``: seconds, when the CLI waits for the
    end of a limit.
    """

    refused: Refused
    hopeless: bool
    limit_ends_in: float | None


def read_retry(frame: Mapping[str, Any]) -> Retry:
    """Read an ``api_retry`` frame."""
    error = frame.get("error")
    error = error if isinstance(error, str) else "no reason given"
    status = _whole(frame.get("error_status"))
    outcome = _BY_STATUS.get(status or 0) or _BY_ERROR.get(error, Outcome.FAILED)
    attempt = _whole(frame.get("attempt"))
    attempt = 1 if attempt is None else attempt
    most = _whole(frame.get("max_retries"))
    wait = (_number(frame.get("retry_delay_ms")) or 0.0) / 1000
    waits = outcome is Outcome.RATE_LIMITED and wait > _LONGEST_BACKOFF
    words = error + (f" (HTTP {status})" if status is not None else "") + f", try {attempt}"
    words += f" of {most}" if most is not None else ""
    words += f", the next in {wait:.0f} s" if waits else ""
    return Retry(
        Refused(outcome, words),
        waits or (outcome is Outcome.AUTH_FAILED and attempt >= _AUTH_PATIENCE),
        wait if waits else None,
    )


def unanswered(frame: Mapping[str, Any]) -> Outcome | None:
    """Why no model answered, when an ``assistant`` frame says so in the model's place. Without a
    login nothing is asked and nothing tried again: no status tells."""
    error = frame.get("error")
    return _BY_ERROR.get(error) if isinstance(error, str) else None


def blamed(frame: Mapping[str, Any], outcome: Outcome | None) -> Refused | None:
    """What a ``result`` means after an ``assistant`` frame that was ``unanswered``."""
    if outcome is None or outcome_of(frame) is not Outcome.FAILED:
        return None
    text = frame.get("result")
    return Refused(outcome, text if isinstance(text, str) else "no reason given")


def limit_reached(frame: Mapping[str, Any]) -> bool:
    """Whether the service takes no more work after this ``rate_limit_event``."""
    info = frame.get("rate_limit_info")
    return isinstance(info, Mapping) and info.get("status") == "rejected"


def limit_ends(frame: Mapping[str, Any], now: float) -> tuple[float, str] | None:
    """When the service takes work again (Unix seconds) and which limit that is; None when it
    takes some now, or does not say. ``now``: when the frame was read.
    """
    if frame.get("subtype") == "api_retry":
        wait = read_retry(frame).limit_ends_in
        return None if wait is None or wait > _LONGEST_LIMIT else (now + wait, "rate limit")
    info = frame.get("rate_limit_info")
    if not isinstance(info, Mapping) or info.get("status") != "rejected":
        return None
    # Over the plan's limit, but paid for beyond it: the service goes on.
    if info.get("overageStatus") in ("allowed", "allowed_warning"):
        return None
    at = _number(info.get("resetsAt"))
    if at is None or not now < at <= now + _LONGEST_LIMIT:
        return None
    kind = info.get("rateLimitType")
    return at, f"{kind} rate limit" if isinstance(kind, str) else "rate limit"


def asked(frame: Mapping[str, Any]) -> str:
    """What a ``control_request`` wants, for the log: the tool, else the kind of request."""
    request = frame.get("request")
    if not isinstance(request, Mapping):
        return ""
    return str(request.get("tool_name") or request.get("subtype") or "")


def _number(value: Any) -> float | None:
    """A field that should be a number: one that is none costs that field, not its frame."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(value: Any) -> int:
    return value if type(value) is int and abs(value) < 1 << 53 else int(_number(value) or 0)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


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


def has_prompt(lines: bytes) -> bool:
    """Whether one of these lines to the CLI is a prompt, whoever wrote them."""
    return b'"user"' in lines and any(
        (frame_of(line) or {}).get("type") == "user" for line in lines.splitlines()
    )


def control_request(request_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Something we ask of the CLI."""
    return {"type": "control_request", "request_id": request_id, "request": dict(request)}


def ask_cost_before() -> dict[str, Any]:
    """Asks a session that goes on, before its first prompt, what it has cost so far.

    The CLI takes what follows after its answer; a look at other sessions' transcripts is not
    asked for.
    """
    return control_request(COST_BEFORE, {"subtype": "get_usage", "skip_behaviors": True})


def cost_before(response: Mapping[str, Any]) -> float:
    """The answer to that, in dollars; 0 of a CLI that does not say."""
    told = response.get("response")
    session = told.get("session") if isinstance(told, Mapping) else None
    total = session.get("total_cost_usd") if isinstance(session, Mapping) else None
    return _number(total) or 0.0


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


def refusal(frame: Mapping[str, Any], why: str) -> dict[str, Any]:
    """The host cannot answer."""
    response = {"subtype": "error", "request_id": frame.get("request_id"), "error": why}
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
    reason = frame.get("terminal_reason")
    if reason and str(reason).startswith("aborted"):
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


def turn_result(
    frame: Mapping[str, Any],
    *,
    session_id: str,
    backend: str,
    cost_before: float | None,
    refused: Refused | None = None,
) -> TurnResult:
    """Describe a turn by its ``result`` frame, and by what we stopped it for (``refused``).

    ``total_cost_usd`` is cumulative for the session while ``usage`` counts the turn, so the turn's
    own cost is a difference: ``cost_before`` is the total that the turn before it told. Before the
    first turn of a process that is what the CLI restored of the session's earlier ones.
    """
    error: str | None = None
    if refused is not None:
        outcome, error = refused.outcome, f"the service said: {refused.words}"
    else:
        outcome = outcome_of(frame)
        if outcome is not Outcome.COMPLETED:
            error = _why(frame, outcome)
    text = frame.get("result")
    total = _number(frame.get("total_cost_usd"))
    usage = frame.get("usage")
    return TurnResult(
        # As the enumeration keeps it: its property takes three calls.
        outcome=outcome._value_,
        result=text if isinstance(text, str) else None,
        session_id=str(frame.get("session_id") or session_id),
        is_error=bool(frame.get("is_error")) or outcome is not Outcome.COMPLETED,
        num_turns=_count(frame.get("num_turns")),
        duration_ms=_count(frame.get("duration_ms")),
        # Frames are read from JSON, whose objects are dicts.
        usage=dict(usage) if isinstance(usage, dict) else {},
        total_cost_usd=total,
        cost_usd=None if total is None else max(0.0, total - (cost_before or 0.0)),
        structured_output=frame.get("structured_output"),
        backend=backend,
        error=error,
    )


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
    # A turn that the service refused calls itself a success; only other words say something.
    subtype = str(frame.get("subtype") or "success")
    return f"{words}{suffix}" if subtype == "success" else f"{subtype}: {words}{suffix}"
