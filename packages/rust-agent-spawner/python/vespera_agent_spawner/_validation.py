"""Responsible for the rule of each kind of value: what is accepted, what it becomes, and the
remedy for the rest.

The twin of the Rust ``rules.rs``, ``fields.rs`` and ``nearest.rs``, with the same texts: both pass
``tests/vectors/config.json``. A rule takes the value's path (``timeouts.turn``) and the value, and
returns the normalised value or raises ``ConfigError``. What only Python has is accepted here too:
tuples for lists, path objects for paths, functions.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from ._units import MAX_SECONDS, MAX_SIZE, parse_duration, parse_size
from .errors import ConfigError

T = TypeVar("T")
Rule: TypeAlias = Callable[[str, object], T]

OBJECT: Final = "give an object with named fields"
_PATH_OR_OBJECT: Final = "give the path of a JSON file or an object"
_DURATION: Final = 'give seconds (30) or a duration such as "250ms", "90s", "5m" or "1h30m"'
_DURATION_RANGE: Final = "give a duration from 0 to 1000000000 seconds"
_DURATION_POSITIVE: Final = "give a duration above 0 and up to 1000000000 seconds"
_SIZE: Final = 'give bytes (1048576) or a size such as "64KiB", "10MB" or "2GiB"'
_BOOLEAN: Final = "give true or false"
_TEXT: Final = "give a string"
_TEXT_EMPTY: Final = "give at least one character, or leave the field out"
_TEXT_NUL: Final = "remove the NUL character"
_TEXT_UTF8: Final = "give text that UTF-8 can hold (no lone surrogates)"
_NAME: Final = "give 1 to 128 characters without control characters"
_LIST: Final = 'give a list of strings, such as ["one", "another"]'
_UUID: Final = 'give a UUID such as "123e4567-e89b-42d3-a456-426614174000"'
_ENVIRONMENT: Final = 'give an object of strings, such as {"LANG": "C.UTF-8"}'
_ENVIRONMENT_NAME: Final = 'name variables with at least one character, without "=" or NUL'
_ENVIRONMENT_VALUE: Final = "give a string without NUL characters"
_FLAGS: Final = 'give an object such as {"debug-file": "/tmp/debug.log", "verbose": null}'
_FLAG_NAME: Final = "name the flag without its leading dashes: letters, digits, - and _"
_FLAG_VALUE: Final = "give a string, or null for a flag without a value"
_DEPTH: Final = "give JSON with at most 64 levels"
_JSON: Final = "give JSON: objects, lists, strings, finite numbers, true, false, null"
_FUNCTION: Final = "give one Python function"
_FUNCTIONS: Final = (
    "give Python functions (one, a list, or lists by name), in code: JSON carries none"
)

#: What stands for a value that may be a secret.
HIDDEN: Final = "<not shown>"
_MAX_DEPTH: Final = 64
_SHOWN_CHARACTERS: Final = 60
# Longer names are not compared: nobody mistypes them, and the cost is quadratic.
_LONGEST_COMPARED: Final = 64
# Python refuses to print whole numbers of more than a few thousand digits.
_LONGEST_PRINTED_BITS: Final = 256

_UUID_FORM: Final = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_FLAG_FORM: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def refuse(path: str, value: object, remedy: str) -> ConfigError:
    """The error for ``value`` at ``path``, to be raised by the caller."""
    message = f"{path or 'configuration'}: got {shown(value)}; {remedy}"
    return ConfigError(message, field=path, value=value, remedy=remedy)


def shown(value: object) -> str:
    """A value as a message may repeat it: strings quoted and cut, containers only by their kind
    (they may be large, or hold secrets)."""
    match value:
        case str() if len(value) > _SHOWN_CHARACTERS:
            return shown(value[:_SHOWN_CHARACTERS]) + "…"
        case int() if value.bit_length() > _LONGEST_PRINTED_BITS:
            return "a number of very many digits"
        case None | bool() | int() | float() | str():
            # A lone surrogate may be printed nowhere.
            text = json.dumps(value, ensure_ascii=False)
            return text.encode("utf-8", "backslashreplace").decode()
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return f"a Python {type(value).__name__}"


def join(path: str, name: str) -> str:
    """``timeouts`` and ``turn`` → ``timeouts.turn``."""
    return f"{path}.{name}" if path else name


def check_names(path: str, value: object, known: Iterable[str]) -> Mapping[str, object]:
    """An object whose names are all known; the first unknown one (in the alphabet) is refused."""
    names = tuple(known)
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        # The whole configuration has too many to name.
        raise refuse(path, value, f"{OBJECT}: {', '.join(names)}" if path else OBJECT)
    for name in sorted(value):
        if name not in names:
            remedy = _nearest_remedy("fields", name, names)
            # The message leaves the value out: a mistyped name may hold a secret.
            message = f"{path or 'configuration'}: no field {shown(name)}; {remedy}"
            raise ConfigError(message, field=join(path, name), value=value[name], remedy=remedy)
    return value


def optional(rule: Rule[T]) -> Rule[T | None]:
    """``rule``, or None."""
    return lambda path, value: None if value is None else rule(path, value)


def duration(path: str, value: object) -> float:
    """Seconds, zero included."""
    return _seconds(path, value, _DURATION_RANGE)


def positive_duration(path: str, value: object) -> float:
    """Seconds above zero: a time-out of nothing would always have passed."""
    seconds = _seconds(path, value, _DURATION_POSITIVE)
    if seconds == 0.0:
        raise refuse(path, value, _DURATION_POSITIVE)
    return seconds


def _seconds(path: str, value: object, out_of_range: str) -> float:
    seconds = parse_duration(value) if isinstance(value, str) else _real(value)
    if seconds is None:
        raise refuse(path, value, _DURATION)
    if not 0.0 <= seconds <= MAX_SECONDS:
        raise refuse(path, value, out_of_range)
    return seconds + 0.0  # turns -0.0 into 0.0


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def size(minimum: int) -> Rule[int]:
    """Whole bytes, at least ``minimum``."""

    def rule(path: str, value: object) -> int:
        out_of_range = f"give a size from {minimum} to {MAX_SIZE} bytes"
        if isinstance(value, float) and not minimum <= value <= float(MAX_SIZE):
            raise refuse(path, value, out_of_range)
        number = parse_size(value) if isinstance(value, str) else _whole(value)
        if number is None:
            raise refuse(path, value, _SIZE)
        if not minimum <= number <= MAX_SIZE:
            raise refuse(path, value, out_of_range)
        return number

    return rule


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def integer(minimum: int, maximum: int) -> Rule[int]:
    """A whole number from ``minimum`` to ``maximum``; a float is refused even if it is whole."""

    def rule(path: str, value: object) -> int:
        number = _whole(value)
        if number is None or not minimum <= number <= maximum:
            raise refuse(path, value, f"give a whole number from {minimum} to {maximum}")
        return number

    return rule


def number(maximum: int) -> Rule[float]:
    """A number from 0 to ``maximum``."""

    def rule(path: str, value: object) -> float:
        real = _real(value)
        if real is None or not 0.0 <= real <= maximum:
            raise refuse(path, value, f"give a number from 0 to {maximum}")
        return real + 0.0

    return rule


def boolean(path: str, value: object) -> bool:
    """True or false; 0 and 1 are not."""
    if not isinstance(value, bool):
        raise refuse(path, value, _BOOLEAN)
    return value


def prose(path: str, value: object) -> str:
    """Text for the model, which travels as JSON: any character, but at least one."""
    return _string(path, value, escapes="strict")


def text(path: str, value: object) -> str:
    """Text without NUL, at least one character."""
    return _without_nul(path, prose(path, value))


def system_text(path: str, value: object) -> str:
    """Text that goes to the system: a path object is accepted, and bytes that are not UTF-8 are
    where they are spelt as Python spells them (surrogate escapes)."""
    given = os.fsdecode(value) if isinstance(value, os.PathLike) else value
    return _without_nul(path, _string(path, given, escapes="surrogateescape"))


def argument(path: str, value: object) -> str:
    """An argument of a program, which may be empty."""
    return "" if isinstance(value, str) and not value else system_text(path, value)


def _string(path: str, value: object, *, escapes: str) -> str:
    if not isinstance(value, str):
        raise refuse(path, value, _TEXT)
    plain = str.__str__(value)  # a str subclass, such as a StrEnum, becomes a plain str
    if not plain:
        raise refuse(path, value, _TEXT_EMPTY)
    if not _fits_utf8(plain, escapes):
        raise refuse(path, value, _TEXT_UTF8)
    return plain


def _fits_utf8(value: str, escapes: str) -> bool:
    try:
        value.encode("utf-8", escapes)
    except UnicodeEncodeError:
        return False
    return True


def _without_nul(path: str, value: str) -> str:
    if "\0" in value:
        raise refuse(path, value, _TEXT_NUL)
    return value


def name(path: str, value: object) -> str:
    """An agent's id."""
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or _CONTROL.search(value):
        raise refuse(path, value, _NAME)
    return _string(path, value, escapes="strict")


def uuid(path: str, value: object) -> str:
    """A UUID in its usual form, made lower case."""
    if not isinstance(value, str) or not _UUID_FORM.fullmatch(value):
        raise refuse(path, value, _UUID)
    return value.lower()


def choice(*names: str) -> Rule[str]:
    """One of ``names``."""

    def rule(path: str, value: object) -> str:
        written = str.__str__(value) if isinstance(value, str) else ""
        if written not in names:
            raise refuse(path, value, _nearest_remedy("values", written, names))
        return written

    return rule


def sequence(rule: Rule[T]) -> Rule[tuple[T, ...]]:
    """A list or tuple, each element by ``rule``."""

    def each(path: str, value: object) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise refuse(path, value, _LIST)
        return tuple(rule(f"{path}[{i}]", item) for i, item in enumerate(value))

    return each


def environment(path: str, value: object) -> dict[str, str]:
    """Environment variables. Their values may be secrets, so no error repeats them."""
    if not isinstance(value, Mapping):
        raise refuse(path, HIDDEN, _ENVIRONMENT)
    for variable in value:
        is_name = isinstance(variable, str) and variable and not {"=", "\0"} & set(variable)
        if not is_name or not _fits_utf8(variable, "surrogateescape"):
            raise refuse(path, HIDDEN, _ENVIRONMENT_NAME)
    for variable in sorted(value):
        content = value[variable]
        if not isinstance(content, str) or "\0" in content:
            raise refuse(join(path, variable), HIDDEN, _ENVIRONMENT_VALUE)
        if not _fits_utf8(content, "surrogateescape"):
            raise refuse(join(path, variable), HIDDEN, _TEXT_UTF8)
    return {str.__str__(variable): str.__str__(value[variable]) for variable in value}


def flags(path: str, value: object) -> dict[str, str | None]:
    """Flags for the CLI that have no field of their own."""
    if not isinstance(value, Mapping):
        raise refuse(path, value, _FLAGS)
    bad = [flag for flag in value if not isinstance(flag, str) or not _FLAG_FORM.fullmatch(flag)]
    if bad:
        raise refuse(path, min(bad, key=str), _FLAG_NAME)
    return {flag: _flag_value(join(path, flag), value[flag]) for flag in sorted(value)}


def _flag_value(path: str, value: object) -> str | None:
    if value is None or value == "":
        return "" if value == "" else None
    if not isinstance(value, str):
        raise refuse(path, value, _FLAG_VALUE)
    return system_text(path, value)


def json_object(path: str, value: object) -> dict[str, Any]:
    """An object of any JSON content, copied."""
    if not isinstance(value, Mapping):
        raise refuse(path, value, OBJECT)
    return {key: _json(path, value, item, _MAX_DEPTH - 1) for key, item in _items(path, value)}


def _items(path: str, value: Mapping[Any, Any]) -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if not isinstance(key, str) or not _fits_utf8(key, "strict"):
            raise refuse(path, value, _JSON)
        yield key, item


def _json(path: str, root: object, value: object, levels: int) -> Any:
    match value:
        case Mapping() | list() | tuple() if levels == 0:
            raise refuse(path, root, _DEPTH)
        case Mapping():
            return {k: _json(path, root, item, levels - 1) for k, item in _items(path, value)}
        case list() | tuple():
            return [_json(path, root, item, levels - 1) for item in value]
        case int() if not -(2**63) <= value < 2**64:
            return _json(path, root, _real(value), levels)  # as Rust reads it
        case None | bool() | int():
            return value
        case float() if value - value == 0.0:  # neither infinite nor NaN
            return value
        case str() if _fits_utf8(value, "strict"):
            return str.__str__(value)
        case _:
            raise refuse(path, root, _JSON)


def path_or_object(path: str, value: object) -> str | dict[str, Any]:
    """The path of a JSON file, or the JSON itself."""
    if isinstance(value, str | os.PathLike):
        return system_text(path, value)
    if isinstance(value, Mapping):
        return json_object(path, value)
    raise refuse(path, value, _PATH_OR_OBJECT)


def functions(path: str, value: object) -> Any:
    """A function, a list of them or an object of those. Empty containers become None."""
    match value:
        case Mapping() if all(isinstance(key, str) for key in value):
            members = {key: _one_or_more(item) for key, item in value.items()}
            for key in (key for key, given in members.items() if given is None):
                error = refuse(path, value, _FUNCTIONS)
                named = f"{join(path, key)}: got {shown(value[key])}; {_FUNCTIONS}"
                raise ConfigError(named, field=error.field, value=value, remedy=_FUNCTIONS)
            return members or None
        case [] | None:
            return None
        case _ if (given := _one_or_more(value)) is not None:
            return given
    raise refuse(path, value, _FUNCTIONS)


def function(path: str, value: object) -> Any:
    """One function, or None."""
    given = functions(path, value)
    if given is not None and not callable(given):
        raise refuse(path, value, _FUNCTION)
    return given


def _one_or_more(value: object) -> Any:
    if isinstance(value, list | tuple) and value and all(map(callable, value)):
        return tuple(value)
    return value if callable(value) else None


def _nearest_remedy(kind: str, written: str, known: tuple[str, ...]) -> str:
    near = _nearest(written, known)
    return f'did you mean "{near}"?' if near else f"known {kind}: {', '.join(known)}"


def is_near(written: object, name: str) -> bool:
    """Whether ``name`` was meant, probably."""
    return isinstance(written, str) and _nearest(written, (name,)) is not None


def _nearest(written: str, known: tuple[str, ...]) -> str | None:
    """The known name within a third of its length in edits (at least one), the first in the
    alphabet if several are as near. Case and ``-`` for ``_`` do not count."""
    if len(written) > _LONGEST_COMPARED:
        return None
    distances = ((_distance(_fold(written), _fold(name)), name) for name in known)
    near = [(edits, name) for edits, name in distances if edits <= max(1, len(name) // 3)]
    return min(near)[1] if near else None


def _fold(name: str) -> str:
    # ASCII only, as in Rust: other letters have several lower-case forms.
    return "".join(c.lower() if c.isascii() else c for c in name.replace("-", "_"))


def _distance(a: str, b: str) -> int:
    """Edits (insert, delete, replace, swap of neighbours) that turn ``a`` into ``b``."""
    before_previous: list[int] = []
    previous = list(range(len(b) + 1))
    for i in range(1, len(a) + 1):
        row = [i]
        for j in range(1, len(b) + 1):
            replaced = previous[j - 1] + (a[i - 1] != b[j - 1])
            edits = min(replaced, previous[j] + 1, row[j - 1] + 1)
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                edits = min(edits, before_previous[j - 2] + 1)
            row.append(edits)
        before_previous, previous = previous, row
    return previous[-1]
