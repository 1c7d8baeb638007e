"""Responsible for what is wrong with a tool's arguments, in words that a model can act on: which
field, what was given, and what to give instead."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from vespera_agent_spawner._validation import _nearest_remedy, shown
from vespera_server.documents.errors import dotted
from vespera_server.redaction import Redactor
from vespera_server.settings.problems import names_at

__all__ = ["wrong_arguments"]

_TOLD = 5
# Longer text is not repeated: cut, a secret in it would not be known for one.
_LONGEST_SHOWN = 60
_SHOULD = re.compile(r"(?:Input|Value|(String|List|Dictionary)) should (?:be |(have |match ))?(.+)")


def wrong_arguments(
    tool: str, error: ValidationError, model: type[BaseModel], redactor: Redactor
) -> tuple[str, str]:
    """Message and remedy for arguments of ``tool`` that ``model`` refused."""
    told = [_told(fault, model, redactor) for fault in error.errors(include_url=False)[:_TOLD]]
    message = "; ".join(message for message, _ in told)
    remedy = "; ".join(dict.fromkeys(remedy for _, remedy in told))
    return f"{tool}: {message}"[:2000], remedy[:2000]


def _told(fault: Mapping[str, Any], model: type[BaseModel], redactor: Redactor) -> tuple[str, str]:
    path = tuple(fault["loc"])
    field = dotted(path)
    if fault["type"] == "missing":
        missing = names_at(model, path[:-1]).get(str(path[-1]))
        words = f": {missing.description}" if missing and missing.description else ""
        return f"{field} is missing", f"give {field}{words}"
    if fault["type"] == "extra_forbidden":
        known = tuple(names_at(model, path[:-1]))
        remedy = _nearest_remedy("fields", str(path[-1])[:_LONGEST_SHOWN], known)
        return f"{dotted(path[:-1])} has no field {str(path[-1])[:_LONGEST_SHOWN]!r}", remedy
    message = str(fault["msg"]).removeprefix("Value error, ")
    said = f"{field} = {_shown(fault['input'], redactor)}: {message[:1].lower()}{message[1:]}"
    found = _SHOULD.match(message)
    if found is None:
        return said, f"correct {field}"
    kind, verb, what = found.groups()
    if kind is None:
        return said, f"give {field} as {what}"
    with_ = "that matches " if verb == "match " else "with " if verb else ""
    return said, f"give {field} as a {kind.lower()} {with_}{what}"


def _shown(value: object, redactor: Redactor) -> str:
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        return f"text of {len(value)} characters"
    return redactor.text(shown(value))
