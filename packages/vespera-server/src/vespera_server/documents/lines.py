"""Responsible for the line on which a value of a data file stands.

Asked only when something is wrong, so that it may take its time; the parsers that are used for
the data tell no lines, or (YAML) tell them in a form of their own. The text is known to be valid.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any

import yaml

__all__ = ["line_of"]

Path = tuple[str | int, ...]
# One token of JSON or JSON5; white space matches nothing.
_TOKEN = re.compile(
    r"(?P<comment>//[^\n]*|/\*.*?\*/)"
    r"|(?P<string>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    r"|(?P<mark>[{}\[\],:])"
    r"|(?P<word>[^\s{}\[\],:\"'/]+)",
    re.DOTALL,
)


def line_of(text: str, format: str, path: Path) -> int | None:
    """The line (from 1) of the value at ``path``, or of the innermost part of it that is there."""
    if format == "jsonl":
        return path[0] + 1 if path and isinstance(path[0], int) else None
    for length in range(len(path), 0, -1):
        line = _exact(text, format, path[:length])
        if line is not None:
            return line
    return 1


def _exact(text: str, format: str, path: Path) -> int | None:
    if format == "toml":
        return _line_in_toml(text, path)
    if format == "yaml":
        return _line_in_yaml(text, path)
    for found, offset in _values(text):
        if found == path:
            return text.count("\n", 0, offset) + 1
    return None


def _line_in_toml(text: str, path: Path) -> int | None:
    """The statement after which the path is there: TOML is read from the top down, so every
    beginning that parses is the file as far as that line."""
    lines = text.split("\n")
    begin = 0
    for end in range(1, len(lines) + 1):
        try:
            data = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # in the middle of a statement
        if _has(data, path):
            while not lines[begin].strip() or lines[begin].lstrip().startswith("#"):
                begin += 1
            return begin + 1
        begin = end
    return None


def _has(data: Any, path: Path) -> bool:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _line_in_yaml(text: str, path: Path) -> int | None:
    node = yaml.compose(text, yaml.SafeLoader)
    line = node.start_mark.line if node else 0
    for part in path:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if getattr(key, "value", None) == part:
                    node, line = value, key.start_mark.line
                    break
            else:
                return None
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                return None
            node = node.value[part]
            line = node.start_mark.line
        else:
            return None
    return int(line) + 1


def _values(text: str) -> Iterator[tuple[Path, int]]:
    """Every value of a JSON or JSON5 text with its path and where it (or its key) begins."""
    path: list[str | int] = []  # of the value that is being read; open containers end in a part
    kinds: list[str] = []
    key_at: int | None = None
    expecting_key = False
    for token in _TOKEN.finditer(text):
        if token["comment"]:
            continue
        mark = token["mark"]
        if mark and mark in "}]":
            kinds.pop()
            path.pop()
        elif mark == ",":
            if kinds[-1] == "[":
                path[-1] = int(path[-1]) + 1
            else:
                expecting_key = True
        elif mark == ":":
            continue
        elif expecting_key and kinds and kinds[-1] == "{":
            path[-1] = _key(token[0])
            key_at, expecting_key = token.start(), False
        else:
            yield tuple(path), token.start() if key_at is None else key_at
            key_at = None
            if mark:
                kinds.append(mark)
                path.append("" if mark == "{" else 0)
                expecting_key = mark == "{"


def _key(text: str) -> str:
    if text[0] not in "\"'":
        return text
    import json5

    return str(json5.loads(text))
