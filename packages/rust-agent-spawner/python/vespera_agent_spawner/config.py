"""Responsible for the configuration of agents and supervisors: frozen dataclasses that check and
normalise what they are given.

Durations accept seconds or text such as ``"5m"`` and read back as float seconds; sizes accept
bytes or text such as ``"2GiB"`` and read back as int. A value that cannot work raises
``ConfigError`` with the field's path, the value and the remedy. The rules are those of the Rust
crate ``vespera-config``; ``config_schema.json`` beside this file is made from it.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from . import _validation as rules
from ._validation import Rule, optional

__all__ = ["AgentConfig", "Budget", "Limits", "RetryPolicy", "SupervisorConfig", "Timeouts"]

C = TypeVar("C")
R = TypeVar("R")
W = TypeVar("W", contravariant=True)

Duration: TypeAlias = float | str
Size: TypeAlias = int | str
Text: TypeAlias = str | None
PathText: TypeAlias = str | os.PathLike[str] | os.PathLike[bytes]

#: A rule of its own: the mode may change while an agent lives.
PERMISSION_MODE = rules.choice(
    "default", "manual", "acceptEdits", "auto", "dontAsk", "plan", "bypassPermissions"
)

_IDLE_STATES = ("model", "tool", "mcp", "subagent", "permission")
_RETRY_ON = (
    "failed",
    "timed_out",
    "killed",
    "out_of_memory",
    "limit_exceeded",
    "rate_limited",
    "incomplete",
    "spawn_failed",
)


class _NoEntries(dict[str, Any]):
    """An empty default. Dataclasses refuse unhashable defaults; this one is never handed out, as
    every rule copies."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Setting(Generic[W, R]):
    """A field that is checked when it is set: accepts a ``W``, reads back as an ``R``."""

    def __init__(self, rule: Rule[R], default: R) -> None:
        self.rule = rule
        self.default = default
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    if TYPE_CHECKING:
        # A descriptor that only sets is not asked on reading: the instance's own value is found,
        # at a fifth of the cost.
        def __get__(self, instance: object | None, owner: type) -> R: ...

    def __repr__(self) -> str:
        return repr(self.default)  # in a signature

    def __set__(self, instance: object, value: W) -> None:
        # The dataclass knows no other default than this.
        ours: object = self
        given: Any = self.default if value is ours else value
        # Most fields of most configurations have their default, which needs no check; a mapping
        # is copied by its rule.
        if given is self.default and not isinstance(given, dict):
            vars(instance)[self.name] = given
        else:
            vars(instance)[self.name] = self.rule(self.name, given)


class _Settings:
    """What the configuration classes share: reading mappings, writing JSON, a short repr."""

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Self:
        """Build from plain data, as JSON or TOML give it.

        Unknown names, wrong types and impossible values raise ``ConfigError``; absent names take
        their defaults.
        """
        return cls._read("", mapping)

    @classmethod
    def _read(cls, path: str, value: object) -> Self:
        if isinstance(value, cls):
            return value
        settings = _settings_of(cls)
        given = rules.check_names(path, value, settings)
        checked = {
            name: setting.rule(rules.join(path, name), given[name])
            for name, setting in settings.items()
            if name in given
        }
        return cls(**checked)

    def to_mapping(self) -> dict[str, Any]:
        """The normalised configuration as plain data. Functions are left out (None)."""
        return {name: _plain(getattr(self, name)) for name in _settings_of(type(self))}

    def _given(self) -> dict[str, Any]:
        """``to_mapping`` without what has its default: all that a reader needs, in a fraction of
        the time."""
        return {
            name: value._given() if isinstance(value, _Settings) else _plain(value)
            for name, value in self._changed()
        }

    def _changed(self) -> list[tuple[str, Any]]:
        """The fields that have not their default, in the order of their definition."""
        values, shape = vars(self), _shape_of(type(self))
        # A start asks, and most fields of most configurations were never named.
        named = sorted(values.get(_NAMED, shape.order), key=shape.order.__getitem__)
        return [(name, values[name]) for name in named if values[name] != shape.defaults[name]]

    def _with(self, **changes: Any) -> Self:
        """A copy with other values: they are checked, the rest was."""
        settings = _settings_of(type(self))
        return self._having(
            {name: settings[name].rule(name, value) for name, value in changes.items()}
        )

    def _having(self, changes: Mapping[str, Any]) -> Self:
        """A copy with other values that a configuration has checked already."""
        changed = object.__new__(type(self))
        # A copied table is one piece of memory; values entered one by one are forty.
        values = vars(self).copy()
        values.update(changes)
        if (named := values.get(_NAMED)) is not None:
            values[_NAMED] = named | changes.keys()
        object.__setattr__(changed, "__dict__", values)
        return changed

    def to_json(self) -> str:
        """The normalised configuration as JSON text.

        Bytes of paths and arguments that are not UTF-8 become ``?``: this text is to be read, the
        bytes themselves travel apart.
        """
        text = json.dumps(self.to_mapping(), ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8", "replace").decode("utf-8")

    def __repr__(self) -> str:
        parts = []
        for name, setting in _settings_of(type(self)).items():
            value = getattr(self, name)
            if value == setting.default:
                continue
            # A configuration is logged sooner or later, and the environment holds keys.
            shown = (
                "{" + ", ".join(map(repr, value)) + ": …}" if name == "environment" else repr(value)
            )
            parts.append(f"{name}={shown}")
        return f"{type(self).__name__}({', '.join(parts)})"


def _sparing(cls: type[C]) -> type[C]:
    """Let instances begin with the defaults. A dataclass's own ``__init__`` sets field after
    field, and most fields of most configurations have their default: that took a tenth of a
    start."""
    after = getattr(cls, "__post_init__", None)
    shape = _shape_of(cls)

    @functools.wraps(cls.__init__)
    def __init__(self: C, **given: Any) -> None:
        if not given.keys() <= shape.settings.keys():
            rules.check_names("", given, shape.settings)
        values = shape.defaults.copy()
        for name in shape.mappings:
            values[name] = {}
        values[_NAMED] = shape.mappings.union(given)
        for name, value in given.items():
            # What has its default needs no check; a mapping is copied by its rule.
            if value is not shape.defaults[name] or name in shape.mappings:
                values[name] = shape.settings[name].rule(name, value)
        object.__setattr__(self, "__dict__", values)
        if after is not None:
            after(self)

    setattr(cls, "__init__", __init__)  # noqa: B010 - as mypy refuses the plain assignment
    # Nobody sets a field any more but this function. A descriptor left behind would keep the
    # interpreter from its short way to an instance's own values, and a start reads dozens.
    for name in shape.settings:
        delattr(cls, name)
    return cls


class _Shape:
    """What the fields of a configuration class are, looked at once."""

    def __init__(self, cls: type[Any]) -> None:
        # vars(), since getattr() on the class would give the default.
        self.settings: dict[str, Setting[Any, Any]] = {
            field.name: vars(cls)[field.name] for field in fields(cls)
        }
        self.defaults = {name: one.default for name, one in self.settings.items()}
        self.order = {name: at for at, name in enumerate(self.settings)}
        #: The fields whose default is a mapping: each instance has its own, and it may fill.
        self.mappings = frozenset(
            name for name, value in self.defaults.items() if isinstance(value, dict)
        )


_SHAPES: dict[type[Any], _Shape] = {}

# Where an instance that began with the defaults keeps the names of the fields that may differ.
_NAMED = "_named"


def _shape_of(cls: type[Any]) -> _Shape:
    shape = _SHAPES.get(cls)
    if shape is None:
        shape = _SHAPES[cls] = _Shape(cls)
    return shape


def _settings_of(cls: type[Any]) -> dict[str, Setting[Any, Any]]:
    return _shape_of(cls).settings


def _plain(value: object) -> Any:
    match value:
        case _Settings():
            return value.to_mapping()
        case Mapping():
            members = {key: _plain(item) for key, item in value.items()}
            return None if any(map(_holds_functions, value.values())) else members
        case list() | tuple():
            return None if value and all(map(callable, value)) else [_plain(item) for item in value]
        case _:
            return None if callable(value) else value


def _holds_functions(value: object) -> bool:
    return callable(value) or (isinstance(value, tuple) and any(map(callable, value)))


def _idle(path: str, value: object) -> float | dict[str, float]:
    if not isinstance(value, Mapping):
        return rules.positive_duration(path, value)
    states = rules.check_names(path, value, _IDLE_STATES)
    return {
        name: rules.positive_duration(rules.join(path, name), states[name])
        for name in sorted(states)
    }


@_sparing
@dataclass(frozen=True, kw_only=True, repr=False)
class Timeouts(_Settings):
    """How long each phase may last, in seconds; None is no limit.

    ``startup``: from the start of the process to its answer to ``initialize``, and as long before
    that for making its workspace. ``turn``: one turn, after which it is interrupted. ``idle``:
    silence, one duration or one per state (``model``, ``tool``, ``mcp``, ``subagent``,
    ``permission``; one duration for all leaves ``permission`` out: while somebody decides about a
    tool, ``turn``, ``idle`` and ``total`` wait); of several tools in flight the most patient state
    counts. ``total``: the whole run. ``queue``: waiting for a place in the supervisor; 0 does not
    wait. ``after_result``: from the last result to the end of the process. ``write``: how long the
    agent may take none of its input while some waits; then it is ended, as half a frame may have
    arrived. Time during which the host itself was stopped counts nowhere.
    """

    startup: Setting[Duration, float] = Setting(rules.positive_duration, 60.0)
    turn: Setting[Duration | None, float | None] = Setting(optional(rules.positive_duration), None)
    idle: Setting[Duration | Mapping[str, Duration] | None, float | dict[str, float] | None] = (
        Setting(optional(_idle), None)
    )
    total: Setting[Duration | None, float | None] = Setting(optional(rules.positive_duration), None)
    queue: Setting[Duration, float] = Setting(rules.duration, 30.0)
    after_result: Setting[Duration, float] = Setting(rules.duration, 10.0)
    write: Setting[Duration, float] = Setting(rules.positive_duration, 30.0)


@_sparing
@dataclass(frozen=True, kw_only=True, repr=False)
class Limits(_Settings):
    """What one agent's process tree may use; None is no limit.

    ``memory`` (bytes) and ``cpu_seconds`` are of the whole tree, ``open_files`` of each process,
    ``file_size`` (bytes) of each file; ``output`` (bytes) bounds the undelivered events on disk;
    ``nice`` is -20 to 19.
    """

    memory: Setting[Size | None, int | None] = Setting(optional(rules.size(1)), None)
    processes: Setting[int | None, int | None] = Setting(optional(rules.integer(1, 1 << 22)), None)
    open_files: Setting[int | None, int | None] = Setting(optional(rules.integer(1, 1 << 30)), None)
    cpu_seconds: Setting[Duration | None, float | None] = Setting(
        optional(rules.positive_duration), None
    )
    file_size: Setting[Size | None, int | None] = Setting(optional(rules.size(0)), None)
    output: Setting[Size, int] = Setting(rules.size(0), 1 << 30)
    nice: Setting[int | None, int | None] = Setting(optional(rules.integer(-20, 19)), None)


@_sparing
@dataclass(frozen=True, kw_only=True, repr=False)
class RetryPolicy(_Settings):
    """Whether and when a run is tried again; one attempt means never.

    ``attempts`` counts the first one. ``backoff`` (seconds) is the wait before the second and
    doubles with each further one; ``jitter`` (0 to 1) is the part of it that is random. ``on`` are
    the outcomes after which another attempt is made.
    """

    attempts: Setting[int, int] = Setting(rules.integer(1, 100), 1)
    backoff: Setting[Duration, float] = Setting(rules.duration, 1.0)
    jitter: Setting[float, float] = Setting(rules.number(1), 0.5)
    on: Setting[Sequence[str], tuple[str, ...]] = Setting(
        rules.sequence(rules.choice(*_RETRY_ON)), ("rate_limited", "spawn_failed")
    )


@_sparing
@dataclass(frozen=True, kw_only=True, repr=False)
class Budget(_Settings):
    """What may be spent: US dollars, and tokens in and out together. None is no limit.

    Cached input that is only read counts as no token. ``usd_per_hour`` stops nothing: the log
    warns when the last ten minutes' spending runs at more.
    """

    usd: Setting[float | None, float | None] = Setting(optional(rules.number(1_000_000_000)), None)
    tokens: Setting[int | None, int | None] = Setting(optional(rules.integer(0, 2**63 - 1)), None)
    usd_per_hour: Setting[float | None, float | None] = Setting(
        optional(rules.number(1_000_000_000)), None
    )


_TEXT = optional(rules.text)
_PROSE = optional(rules.prose)
_SYSTEM_TEXT = optional(rules.system_text)
_TEXTS = optional(rules.sequence(rules.text))
_OBJECT = optional(rules.json_object)
_PATH_OR_OBJECT = optional(rules.path_or_object)

_Texts: TypeAlias = Setting[Sequence[str] | None, tuple[str, ...] | None]
_PathOrObject: TypeAlias = Setting[
    PathText | Mapping[str, object] | None, str | dict[str, Any] | None
]
_Object: TypeAlias = Setting[Mapping[str, object] | None, dict[str, Any] | None]


@_sparing
@dataclass(frozen=True, kw_only=True, repr=False)
class AgentConfig(_Settings):
    """One agent: without a prompt a session, with one a run.

    None means: ``agent_id``, ``session_id`` generated; ``program`` the adapter's;
    ``working_directory`` the host's; ``timeouts``, ``limits``, ``retry``, ``budget`` the
    supervisor's; all others the program's own default. ``inherit_environment`` starts from the
    adapter's scrubbed copy of the host's environment, to which ``environment`` is added.
    ``mcp_config`` and ``settings`` are a file's path or its content. ``hooks`` (by the
    CLI's event: a function, a ``Hook`` or a list), ``tools`` (functions or ``Tool``) and
    ``on_permission`` take Python functions and cannot come from JSON; an async one runs on the
    event loop, any other in a thread of its own. ``workspace`` too: a function
    without arguments that gives an asynchronous context manager, which yields the working directory
    and is left when the agent's tree is empty. ``transcript`` is a file to
    which the raw frames of both directions are appended. ``extra_args`` are further flags of the
    CLI, named without dashes, None for a flag without a value.
    """

    agent_id: Setting[Text, Text] = Setting(optional(rules.name), None)
    adapter: Setting[str, str] = Setting(rules.choice("claude", "raw", "relay"), "claude")
    program: Setting[PathText | None, Text] = Setting(_SYSTEM_TEXT, None)
    args: Setting[Sequence[str], tuple[str, ...]] = Setting(rules.sequence(rules.argument), ())
    prompt: Setting[Text, Text] = Setting(_PROSE, None)
    working_directory: Setting[PathText | None, Text] = Setting(_SYSTEM_TEXT, None)
    environment: Setting[Mapping[str, str], dict[str, str]] = Setting(
        rules.environment, _NoEntries()
    )
    inherit_environment: Setting[bool, bool] = Setting(rules.boolean, True)
    model: Setting[Text, Text] = Setting(_TEXT, None)
    fallback_model: Setting[Text, Text] = Setting(_TEXT, None)
    effort: Setting[Text, Text] = Setting(
        optional(rules.choice("low", "medium", "high", "xhigh", "max")), None
    )
    system_prompt: Setting[Text, Text] = Setting(_PROSE, None)
    append_system_prompt: Setting[Text, Text] = Setting(_PROSE, None)
    allowed_tools: _Texts = Setting(_TEXTS, None)
    disallowed_tools: _Texts = Setting(_TEXTS, None)
    permission_mode: Setting[Text, Text] = Setting(optional(PERMISSION_MODE), None)
    mcp_config: _PathOrObject = Setting(_PATH_OR_OBJECT, None)
    settings: _PathOrObject = Setting(_PATH_OR_OBJECT, None)
    add_dirs: Setting[Sequence[PathText] | None, tuple[str, ...] | None] = Setting(
        optional(rules.sequence(rules.system_text)), None
    )
    agents: _Object = Setting(_OBJECT, None)
    hooks: Setting[Mapping[str, object] | None, dict[str, Any] | None] = Setting(
        rules.functions, None
    )
    tools: Setting[Sequence[Callable[..., Any]] | None, tuple[Callable[..., Any], ...] | None] = (
        Setting(rules.functions, None)
    )
    on_permission: Setting[Callable[..., Any] | None, Callable[..., Any] | None] = Setting(
        rules.function, None
    )
    workspace: Setting[Callable[..., Any] | None, Callable[..., Any] | None] = Setting(
        rules.function, None
    )
    output_schema: _Object = Setting(_OBJECT, None)
    include_partial_messages: Setting[bool, bool] = Setting(rules.boolean, False)
    session_id: Setting[Text, Text] = Setting(optional(rules.uuid), None)
    resume: Setting[Text, Text] = Setting(_TEXT, None)
    fork_session: Setting[bool, bool] = Setting(rules.boolean, False)
    max_turns: Setting[int | None, int | None] = Setting(
        optional(rules.integer(1, 1_000_000)), None
    )
    priority: Setting[int, int] = Setting(rules.integer(-1_000_000, 1_000_000), 0)
    timeouts: Setting[Timeouts | Mapping[str, object] | None, Timeouts | None] = Setting(
        optional(Timeouts._read), None
    )
    limits: Setting[Limits | Mapping[str, object] | None, Limits | None] = Setting(
        optional(Limits._read), None
    )
    retry: Setting[RetryPolicy | Mapping[str, object] | None, RetryPolicy | None] = Setting(
        optional(RetryPolicy._read), None
    )
    budget: Setting[Budget | Mapping[str, object] | None, Budget | None] = Setting(
        optional(Budget._read), None
    )
    overflow: Setting[str, str] = Setting(rules.choice("spill", "drop_oldest", "block"), "spill")
    transcript: Setting[PathText | None, Text] = Setting(_SYSTEM_TEXT, None)
    extra_args: Setting[Mapping[str, Text], dict[str, Text]] = Setting(rules.flags, _NoEntries())

    def __post_init__(self) -> None:
        """The CLI refuses these combinations itself, but only after it was started."""
        if self.fork_session and self.resume is None:
            remedy = "set resume to the session to fork, or leave fork_session out"
            raise rules.refuse("fork_session", True, remedy)
        if self.session_id is not None and self.resume is not None and not self.fork_session:
            remedy = "leave session_id out when resuming, or set fork_session"
            raise rules.refuse("session_id", self.session_id, remedy)


@_sparing
@dataclass(frozen=True, kw_only=True, repr=False)
class SupervisorConfig(_Settings):
    """A fleet of agents.

    ``max_agents``: alive at once (None: from memory and file descriptors); ``max_starting``:
    starting at once; ``start_interval``: least seconds between two starts. ``memory_reserve``:
    bytes that must be free per agent before one starts (None: 512 MiB for claude, 0 for raw).
    ``warm``: processes kept initialised. ``host_death_grace``: seconds for agents when the host
    dies (None: 0.25 for CLIs, 0 for raw). ``budget`` is the fleet's; ``retry``, ``timeouts`` and
    ``limits`` are defaults for agents. ``on_auth_failure``: ``"stop"`` starts nothing more,
    ``"continue"`` ends only that agent. ``cgroup``: an empty one delegated to this user.
    ``register``: whether ``vespera ps`` sees this supervisor.
    """

    max_agents: Setting[int | None, int | None] = Setting(
        optional(rules.integer(1, 1_000_000)), None
    )
    max_starting: Setting[int, int] = Setting(rules.integer(1, 1_000_000), 4)
    start_interval: Setting[Duration, float] = Setting(rules.duration, 0.0)
    memory_reserve: Setting[Size | None, int | None] = Setting(optional(rules.size(0)), None)
    warm: Setting[int, int] = Setting(rules.integer(0, 1_000_000), 0)
    host_death_grace: Setting[Duration | None, float | None] = Setting(
        optional(rules.duration), None
    )
    budget: Setting[Budget | Mapping[str, object] | None, Budget | None] = Setting(
        optional(Budget._read), None
    )
    retry: Setting[RetryPolicy | Mapping[str, object], RetryPolicy] = Setting(
        RetryPolicy._read, RetryPolicy()
    )
    timeouts: Setting[Timeouts | Mapping[str, object], Timeouts] = Setting(
        Timeouts._read, Timeouts()
    )
    limits: Setting[Limits | Mapping[str, object], Limits] = Setting(Limits._read, Limits())
    on_auth_failure: Setting[str, str] = Setting(rules.choice("stop", "continue"), "stop")
    cgroup: Setting[PathText | None, Text] = Setting(_SYSTEM_TEXT, None)
    backend: Setting[str, str] = Setting(rules.choice("auto", "rust", "python"), "auto")
    transcript_dir: Setting[PathText | None, Text] = Setting(_SYSTEM_TEXT, None)
    register: Setting[bool, bool] = Setting(rules.boolean, False)
