"""Responsible for the text of a file becoming data, by the format that its name tells."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import json5
import yaml

from vespera_server.documents.errors import DocumentError, dotted
from vespera_server.documents.lines import line_of

__all__ = ["FORMATS", "Document", "read_document"]

FORMATS = ("toml", "yaml", "json5", "json", "jsonl")
_SUFFIXES = {"yml": "yaml", "ndjson": "jsonl"}
_MAX_BYTES = 64 << 20
_LINE_IN = re.compile(r"line (\d+)|:(\d+) ")


@dataclass(frozen=True)
class Document:
    """What a file says. ``name`` is how errors call it."""

    name: str
    format: str
    text: str
    data: Any

    def line(self, path: tuple[str | int, ...]) -> int | None:
        """The line at which the value at ``path``, or the nearest thing around it, begins."""
        return line_of(self.text, self.format, path)

    def error(
        self, path: tuple[str | int, ...], problem: str, value: Any = None, remedy: str = ""
    ) -> DocumentError:
        """What is wrong with the value at ``path``."""
        return DocumentError(
            problem,
            file=self.name,
            line=self.line(path),
            field=dotted(path),
            value=value,
            remedy=remedy,
        )


def read_document(path: Path, format: str | None = None, text: str | None = None) -> Document:
    """Read a file; ``text`` is its content when it is no file (standard input).

    Raises ``DocumentError`` for what cannot be read or is not of the format, ``OSError`` as usual.
    """
    name = str(path)
    suffix = path.suffix.lstrip(".").lower()
    chosen = format or _SUFFIXES.get(suffix, suffix)
    if format is not None and format not in FORMATS:
        remedy = f"use one of {', '.join(FORMATS)}"
        raise DocumentError(
            f"{format!r} is no format; {remedy}",
            file=name,
            field="--format",
            value=format,
            remedy=remedy,
        )
    if chosen not in FORMATS:
        raise DocumentError(
            f"the format is not known by the name; use one of {', '.join(FORMATS)} as its end, "
            "or --format",
            file=name,
        )
    if text is None:
        raw = path.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise DocumentError(f"{len(raw)} bytes are more than {_MAX_BYTES}", file=name)
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise DocumentError("this is not UTF-8", file=name, line=line) from error
    return Document(name, chosen, text, _parse(name, chosen, text))


def _parse(name: str, format: str, text: str) -> Any:
    if format == "jsonl":
        return _json_lines(name, text)
    try:
        match format:
            case "toml":
                return tomllib.loads(text)
            case "yaml":
                return yaml.load(text, _Strict)
            case "json5":
                return json5.loads(text, allow_duplicate_keys=False)
            case _:
                return json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        problem, line = _where(error)
        raise DocumentError(problem, file=name, line=line) from error


def _json_lines(name: str, text: str) -> list[Any]:
    """Empty lines stay, as None: an item's number is its line's."""
    found: list[Any] = []
    for number, line in enumerate(text.split("\n"), 1):
        try:
            found.append(json.loads(line, object_pairs_hook=_without_duplicates))
        except (ValueError, RecursionError) as error:
            if line.strip():
                problem = getattr(error, "msg", str(error))
                raise DocumentError(problem, file=name, line=number) from error
            found.append(None)
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return found


def _where(error: Exception) -> tuple[str, int | None]:
    """What is wrong, and on which line, as far as the parser tells."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return str(error.problem), error.problem_mark.line + 1
    if isinstance(error, json.JSONDecodeError):
        return error.msg, error.lineno
    text = " ".join(str(error).split())
    found = _LINE_IN.search(text)
    return text, int(found[1] or found[2]) if found else None


class _Strict(yaml.SafeLoader):
    """As SafeLoader, but a key that is there twice is refused and a date stays text."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _text(loader: _Strict, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Strict.add_constructor("tag:yaml.org,2002:map", _mapping)
_Strict.add_constructor("tag:yaml.org,2002:timestamp", _text)
