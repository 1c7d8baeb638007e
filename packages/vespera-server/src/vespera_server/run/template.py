"""Responsible for ``${name}`` in the texts of a task file.

The engine is the standard library's ``string.Template``. It was taken instead of jinja2, sandboxed
or not, since a task file needs values put in and nothing computed: prompts are full of braces and
percent signs that would have to be escaped for jinja, and an engine without expressions has
nothing to break out of. Only the braced form is a template here, so that ``$HOME`` and ``$5`` in
a prompt stay what they are; ``$${name}`` is a ``${name}`` that stays.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["UnknownName", "filled"]


class UnknownName(LookupError):
    """A template names what is not there; its text is for the user.

    ``path`` leads to the text within the value that was to be filled.
    """

    path: tuple[str | int, ...] = ()


class _Braced(string.Template):
    flags = re.VERBOSE
    # typeshed knows only what it becomes.
    pattern = r"""
        \$(?:
            (?P<escaped>\$(?=\{)) |
            (?P<named>(?!)) |
            \{(?P<braced>[A-Za-z_][\w-]*(?:\.[\w-]+)*)\} |
            (?P<invalid>(?=\{))
        )
    """  # type: ignore[assignment]


class _Texts(Mapping[str, str]):
    """Dotted names, looked up part by part, as texts."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names

    def __getitem__(self, name: str) -> str:
        return _as_text(name, _look_up(self._names, name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def filled(value: Any, names: Mapping[str, Any]) -> Any:
    """``value`` with all templates in its texts filled, at any depth.

    A text that is nothing but one template becomes the value itself: numbers stay numbers.
    Raises ``UnknownName``.
    """
    if isinstance(value, str):
        return _filled_text(value, names)
    if isinstance(value, Mapping):
        return {key: _member(key, item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_member(number, item, names) for number, item in enumerate(value)]
    return value


def _member(part: str | int, value: Any, names: Mapping[str, Any]) -> Any:
    try:
        return filled(value, names)
    except UnknownName as error:
        error.path = (part, *error.path)
        raise


def _filled_text(text: str, names: Mapping[str, Any]) -> Any:
    whole = _Braced(text)
    only = whole.get_identifiers()
    if len(only) == 1 and text == f"${{{only[0]}}}":
        value = _look_up(names, only[0])
        return value["path"] if isinstance(value, Mapping) and "path" in value else value
    try:
        return whole.substitute(_Texts(names))
    except ValueError:
        at = text.index("${")
        raise UnknownName(
            f"{text[at : at + 20]!r} is no template: write ${{name}}, or $${{ for a plain ${{"
        ) from None


def _look_up(names: Mapping[str, Any], name: str) -> Any:
    value: Any = names
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = ", ".join(sorted(map(str, value))) if isinstance(value, Mapping) else "none"
            raise UnknownName(f"${{{name}}}: {part!r} is not known; there is: {_short(known)}")
        value = value[part]
    return value


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, Mapping) and "path" in value:
        return str(value["path"])
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise UnknownName(f"${{{name}}} is a {type(value).__name__}, not a text; name a field of it")


def _short(text: str) -> str:
    return text if len(text) <= 300 else text[:300] + " …"
