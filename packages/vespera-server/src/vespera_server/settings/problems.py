"""Responsible for what is wrong with values that people wrote: which field, and what to do.

A name that nobody knows comes first: whatever is missing beside it is missing for its sake.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vespera_agent_spawner._validation import _nearest_remedy
from vespera_agent_spawner.errors import ConfigError

__all__ = ["problem_with", "problems_of", "unknown"]

Path = tuple[str | int, ...]


def problems_of(error: ValidationError, model: type[BaseModel]) -> Iterator[tuple[Path, str, Any]]:
    """Path, words and value of each thing that ``model``, or a rule of the engine, refused."""
    entries = sorted(error.errors(), key=lambda entry: entry["type"] != "extra_forbidden")
    for entry in entries:
        path, value = entry["loc"], entry["input"]
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            yield (*path, *_parts(cause.field)), problem_with(cause), cause.value
        elif entry["type"] == "extra_forbidden":
            yield path, unknown(str(path[-1]), names_at(model, path[:-1])), value
        elif entry["type"] == "missing":
            what = names_at(model, path[:-1]).get(str(path[-1]))
            words = f": {what.description}" if what is not None and what.description else ""
            yield path, f"it is missing{words}", None
        else:
            # pydantic's own prefix for what a validator raised says nothing to who wrote the value.
            yield path, f"{value!r}: {entry['msg'].removeprefix('Value error, ')}", value


def problem_with(error: ConfigError) -> str:
    """What the engine refused, where the field is named already."""
    if ": no field " in str(error):
        return f"there is no such field; {error.remedy}"  # its value may be anything, also a secret
    return f"{error.value!r}: {error.remedy}"


def unknown(name: str, known: Iterable[str]) -> str:
    """What is wrong with a name that is none of ``known``."""
    return f"there is no such field; {_nearest_remedy('fields', name, tuple(known))}"


def names_at(model: type[BaseModel], path: Sequence[str | int]) -> Mapping[str, FieldInfo]:
    """The fields that there may be at ``path`` of a model."""
    kind: Any = model
    for part in path:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = None if field is None else _member(field.annotation)
        else:
            arguments = typing.get_args(kind)
            kind = _member(arguments[-1]) if arguments else None
    known = isinstance(kind, type) and issubclass(kind, BaseModel)
    return kind.model_fields if known else {}


def _member(annotation: Any) -> Any:
    """What stands there if something does: ``list[X]`` of ``list[X] | None``."""
    if typing.get_origin(annotation) in (list, dict, tuple) or isinstance(annotation, type):
        return annotation
    members = [each for each in typing.get_args(annotation) if each is not type(None)]
    return _member(members[0]) if members else None


def _parts(field: str) -> tuple[str, ...]:
    return tuple(part for part in field.split(".") if part)
