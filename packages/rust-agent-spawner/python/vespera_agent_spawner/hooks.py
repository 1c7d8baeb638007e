"""Responsible for hooks in Python: what the CLI is told of them, and what their answers mean.

A hook is called with the event as the CLI describes it (``hook_event_name``, ``tool_name``,
``tool_input``, …). Who calls it, with which deadline, is in ``handlers``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, TypeAlias

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._validation import Rule, positive_duration
from vespera_agent_spawner.config import Duration, Setting
from vespera_agent_spawner.errors import ConfigError

__all__ = [
    "HANDLER_DEADLINE",
    "Hook",
    "answer_of",
    "hooks_by_id",
    "refusal",
    "shape_of",
    "wire_of",
]

# Events, each with the matchers and the deadlines of its hooks.
Shape: TypeAlias = tuple[tuple[str, tuple[tuple[str | None, float], ...]], ...]

#: How long a hook or a tool may take when nothing else is said, in seconds.
HANDLER_DEADLINE = 60.0

# The CLI's own patience is longer than ours, so that it hears our reason.
_MARGIN = 10

# The CLI's own, as of 2.1.330.
_EVENTS = """
    PreToolUse PostToolUse PostToolUseFailure PostToolBatch Notification UserPromptSubmit
    UserPromptExpansion SessionStart SessionEnd Stop StopFailure SubagentStart SubagentStop
    PreCompact PostCompact PreModelSwitch PostModelSwitch PermissionRequest PermissionDenied Setup
    TeammateIdle TaskCreated TaskCompleted Elicitation ElicitationResult ConfigChange
    WorktreeCreate WorktreeRemove InstructionsLoaded CwdChanged FileChanged DirectoryAdded
    MessageDisplay
"""
_KNOWN_EVENTS = {event.lower(): event for event in _EVENTS.split()}

# So alike are slips of a letter or an ending. A newer CLI's PreToolBatch is not so near to
# PostToolBatch.
_NEAR = 0.85

# Events that can still be stopped, or whose handler tells the model what it did wrong. A handler
# of another event that fails is told to the CLI, which goes on: a failing Stop hook that said no
# would keep the agent from ever stopping.
_DENIES = ("PreToolUse", "PermissionRequest", "UserPromptSubmit", "PostToolUse")


def deadline(field: str) -> Rule[float]:
    """A handler without a deadline could hold its agent for ever."""
    return lambda _, value: positive_duration(field, value)


@dataclass(frozen=True)
class Hook:
    """A function that is called at an event of the CLI.

    ``matcher`` is the CLI's pattern of tool names (``"Bash"``, ``"Write|Edit"``), None for all.
    Without an answer within ``timeout`` (seconds, or text such as ``"5m"``) the event is denied.

    The function gets the event as a dict. None or True says nothing; False and text deny (the text
    is the reason); a mapping is passed to the CLI as its hook output. An async function runs on the
    event loop, any other in a thread of its own.
    """

    handler: Callable[[dict[str, Any]], Any]
    matcher: str | None = None
    timeout: Setting[Duration, float] = Setting(  # noqa: RUF009 - a descriptor
        deadline("hooks.timeout"), HANDLER_DEADLINE
    )

    def __post_init__(self) -> None:
        if not callable(self.handler):
            raise ConfigError(
                f"Hook: {self.handler!r} cannot be called",
                field="hooks.handler",
                value=repr(self.handler),
                remedy="give a function",
            )
        if self.matcher is not None and not isinstance(self.matcher, str):
            raise ConfigError(
                f"Hook: {self.matcher!r} is no pattern of tool names",
                field="hooks.matcher",
                value=repr(self.matcher),
                remedy='give text, as in "Write|Edit", or None for all tools',
            )

    def __call__(self, event: dict[str, Any]) -> Any:
        return self.handler(event)


def hooks_by_id(hooks: Mapping[str, Any] | None) -> dict[str, Hook]:
    """Every hook under the name by which the CLI calls it; equal hooks give equal names."""
    found: dict[str, Hook] = {}
    for event, given in _listed(hooks):
        for hook in given:
            found[f"{event}-{len(found)}"] = hook if isinstance(hook, Hook) else Hook(hook)
    return found


def wire_of(hooks: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The hooks as ``initialize`` tells the CLI of them; not to be changed."""
    return _wire(shape_of(hooks))


def shape_of(hooks: Mapping[str, Any] | None) -> Shape:
    """What of them the CLI is told: who is called is no part of this."""
    return tuple(
        [
            (event, tuple([_matcher_and_timeout(hook) for hook in given]))
            for event, given in _listed(hooks)
        ]
    )


@functools.lru_cache(maxsize=64)
def _wire(hooks: Shape) -> dict[str, Any] | None:
    # The agents of a fleet mostly have the same hooks.
    for event, _ in hooks:
        _check_event(event)
    told: dict[str, list[dict[str, Any]]] = {}
    number = 0
    for event, given in hooks:
        for pattern, timeout in given:
            matcher: dict[str, Any] = {
                "matcher": pattern,
                "hookCallbackIds": [f"{event}-{number}"],
                "timeout": math.ceil(timeout) + _MARGIN,
            }
            if event in _DENIES:
                # A host that cannot answer at all denies as well.
                matcher["onFailure"] = "block"
            told.setdefault(event, []).append(matcher)
            number += 1
    return told or None


def _listed(hooks: Mapping[str, Any] | None) -> list[tuple[str, Sequence[Any]]]:
    if hooks is None:
        return []
    if not isinstance(hooks, Mapping):
        raise ConfigError(
            'hooks: functions without an event; name it, as in {"PreToolUse": guard}',
            field="hooks",
            value=repr(hooks),
            remedy='name the event, as in {"PreToolUse": guard}',
        )
    return [
        (event, given if isinstance(given, list | tuple) else (given,))
        for event, given in hooks.items()
    ]


def _check_event(event: str) -> None:
    """The CLI says nothing of an event that it does not have, and the hook would never be called.

    A newer CLI may have more, so only a name that is near to a known one is refused.
    """
    if event in _KNOWN_EVENTS.values():
        return
    from difflib import get_close_matches

    folded = event.lower().replace("_", "").replace("-", "")
    if near := get_close_matches(folded, _KNOWN_EVENTS, n=1, cutoff=_NEAR):
        remedy = f'did you mean "{_KNOWN_EVENTS[near[0]]}"?'
        raise ConfigError(
            f"hooks: the CLI has no event {event!r}; {remedy}",
            field=f"hooks.{event}",
            value=event,
            remedy=remedy,
        )
    logger_for("agent_spawner.supervisor").warning(
        "hooks: %r is no event that is known here; if the CLI does not have it either, its hooks "
        "are never called",
        event,
    )


def _matcher_and_timeout(given: Any) -> tuple[str | None, float]:
    # Twice for each agent, so nothing is made of a function that is right as it is.
    if type(given) is FunctionType:
        return None, HANDLER_DEADLINE
    hook = given if isinstance(given, Hook) else Hook(given)
    return hook.matcher, hook.timeout


def answer_of(event: str, decision: Any) -> Mapping[str, Any]:
    """What a hook returned as the CLI reads it; raises ``TypeError`` for what is no answer."""
    if decision is None or decision is True:
        return {}
    if decision is False:
        decision = f"denied by a hook of {event}"
    if isinstance(decision, str):
        return refusal(event, decision)
    if isinstance(decision, Mapping):
        return decision
    raise TypeError(
        f"it returned {type(decision).__name__}; return None, True, False, a reason (str) or the "
        "CLI's hook output (dict)"
    )


def refusal(event: str, reason: str) -> dict[str, Any]:
    """No, in the words of that event."""
    match event:
        case "PreToolUse":
            said = {"permissionDecision": "deny", "permissionDecisionReason": reason}
            return {"hookSpecificOutput": {"hookEventName": event, **said}}
        case "PermissionRequest":
            said_no = {"decision": {"behavior": "deny", "message": reason}}
            return {"hookSpecificOutput": {"hookEventName": event, **said_no}}
        case _:
            return {"decision": "block", "reason": reason}


def denies(event: str) -> bool:
    """Whether a handler of this event that fails has said no."""
    return event in _DENIES
