"""Responsible for Python functions as tools of an agent: their schema, and the server they are.

Type hints become the JSON Schema, the docstring the description. The CLI sees an MCP server of the
host, whose messages travel in its control protocol; who calls the functions is in ``handlers``.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._validation import refuse
from vespera_agent_spawner.config import Duration, Setting
from vespera_agent_spawner.errors import ConfigError
from vespera_agent_spawner.hooks import HANDLER_DEADLINE, deadline

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["SERVER", "BadArguments", "Offered", "Tool", "full_name", "offered", "text_of"]

#: The name of the host's server; a tool is ``mcp__host__<name>`` to the CLI.
SERVER = "host"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """A Python function that an agent may call.

    ``name`` and ``description`` are the function's own when they are None. After ``timeout``
    (seconds, or text such as ``"5m"``) the model is told that it did not answer. What it returns is
    shown to the model: text as it is, anything else as JSON. One that raises is shown as an error
    with its reason. An async function runs on the event loop, any other in a thread of its own.
    """

    function: Callable[..., Any]
    name: str | None = None
    description: str | None = None
    timeout: Setting[Duration, float] = Setting(  # noqa: RUF009 - a descriptor
        deadline("tools.timeout"), HANDLER_DEADLINE
    )

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(
                f"Tool: {self.function!r} cannot be called",
                field="tools.function",
                value=repr(self.function),
                remedy="give a function",
            )
        for field in ("name", "description"):
            given = getattr(self, field)
            if given is not None and not isinstance(given, str):
                raise refuse(f"tools.{field}", given, "give text, or None for the function's own")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class BadArguments(Exception):
    """The model gave what the function does not take; the text is for the model."""


class Offered:
    """One tool with its schema."""

    def __init__(self, tool: Tool) -> None:
        self.function = tool.function
        self.timeout = tool.timeout
        self.name = tool.name or _name_of(tool.function)
        if not _NAME.fullmatch(self.name):
            raise _refused(
                tool.function,
                f"'{self.name}' is no name of a tool",
                "name it with Tool(function, name=...): letters, digits, _ and -",
            )
        given = tool.description or inspect.getdoc(_inner(tool.function)) or ""
        self.description = given.strip()
        self._parameters = _parameters_of(tool.function)
        self._model = _model_of(self.name, tool.function, self._parameters)
        schema = _schema_of(tool.function, self._model)
        #: As ``tools/list`` shows it.
        self.listed = {"name": self.name, "description": self.description, "inputSchema": schema}

    def bound(self, arguments: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The call's arguments, checked and converted; raises ``BadArguments``."""
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            raise BadArguments(_words(error.errors(include_url=False))) from None
        given = checked.model_fields_set
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for field, parameter in self._parameters.items():
            if parameter.kind is parameter.POSITIONAL_ONLY:
                args.append(getattr(checked, field))
            elif field in given:
                # A default is the function's own to fill in.
                kwargs[parameter.name] = getattr(checked, field)
        return args, kwargs


def offered(tools: tuple[Callable[..., Any], ...]) -> Mapping[str, Offered]:
    """The tools by name."""
    try:
        return _remembered(tools)
    except TypeError:
        # A callable object that cannot be hashed.
        return _offered(tools)


def _offered(tools: tuple[Callable[..., Any], ...]) -> Mapping[str, Offered]:
    found: dict[str, Offered] = {}
    for given in tools:
        one = Offered(given if isinstance(given, Tool) else Tool(given))
        if one.name in found:
            raise _refused(
                one.function,
                f"there are two tools '{one.name}'",
                "give one of them another name: Tool(function, name=...)",
            )
        found[one.name] = one
    return found


# Agents of a fleet mostly share their tools, and a schema takes longer than a start.
_remembered = functools.lru_cache(maxsize=16)(_offered)


def full_name(name: str) -> str:
    """The CLI's name of a tool, as ``allowed_tools`` and hooks know it."""
    return f"mcp__{SERVER}__{name}"


def text_of(result: Any) -> str:
    """What a tool returned, as the model reads it."""
    if isinstance(result, str):
        return result
    from pydantic_core import to_json

    return to_json(result).decode("utf-8")


# -- schema --------------------------------------------------------------------------------


def _name_of(function: Callable[..., Any]) -> str:
    return str(getattr(_inner(function), "__name__", type(function).__name__))


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """By names of our own: any name is good for a parameter, not every one for a field."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise _refused(
            function, f"its signature is not known ({error})", "wrap it in a function"
        ) from error
    parameters = list(signature.parameters.values())
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise _refused(
                function,
                f"parameter '{one}' has no schema",
                "name each parameter and give it a type",
            )
    return {f"p{number}": one for number, one in enumerate(parameters)}


def _model_of(
    name: str, function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]
) -> type[BaseModel]:
    try:
        from pydantic import ConfigDict, Field, create_model
    except ImportError as error:
        raise ConfigError(
            "tools: type hints become a JSON Schema with pydantic, which is not installed: "
            "pip install 'vespera-agent-spawner[tools]'",
            field="tools",
            value=name,
            remedy="pip install 'vespera-agent-spawner[tools]'",
        ) from error
    target = _inner(function)
    if isinstance(target, type):
        target = target.__init__  # type: ignore[misc]
    elif not inspect.isroutine(target):
        target = type(target).__call__
    try:
        hints = typing.get_type_hints(target, include_extras=True)
    except Exception as error:
        # Hints that are text are evaluated: anything may be raised.
        raise _refused(
            function,
            f"its type hints cannot be read ({error})",
            "write them as Python does, and import the types they name",
        ) from error
    fields: dict[str, Any] = {}
    for field, one in parameters.items():
        default = ... if one.default is one.empty else one.default
        fields[field] = (hints.get(one.name, Any), Field(default, alias=one.name, title=one.name))
    config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=False)
    try:
        return create_model(name, __config__=config, **fields)
    except Exception as error:
        # Not only its own kind: some constraints are tried.
        raise _refused(
            function, f"no schema can be made of its type hints ({error})", "use plain types"
        ) from error


def _schema_of(function: Callable[..., Any], model: type[BaseModel]) -> dict[str, Any]:
    from pydantic import PydanticUserError

    try:
        schema = model.model_json_schema()
    except PydanticUserError as error:
        raise _refused(
            function, f"no schema can be made of its type hints ({error})", "use plain types"
        ) from error
    schema.pop("title", None)
    for described in schema.get("properties", {}).values():
        described.pop("title", None)
    schema.setdefault("properties", {})
    # A default that JSON cannot say would keep the whole list from the CLI.
    try:
        checked: dict[str, Any] = json.loads(json.dumps(schema, allow_nan=False))
    except ValueError as error:
        raise _refused(
            function, f"JSON cannot say one of its defaults ({error})", "use None as the default"
        ) from error
    return checked


def _words(errors: Sequence[Mapping[str, Any]]) -> str:
    said = []
    for error in errors:
        where = ".".join(map(str, error["loc"]))
        said.append(f"{where}: {error['msg']}" if where else str(error["msg"]))
    return "; ".join(said)


def _refused(function: Callable[..., Any], why: str, remedy: str) -> ConfigError:
    return ConfigError(
        f"tools: {_name_of(function)}: {why}; {remedy}",
        field="tools",
        value=_name_of(function),
        remedy=remedy,
    )
