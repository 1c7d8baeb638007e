"""Responsible for everything that is settled before a process starts, for both backends.

A ``Launch`` is the configuration made concrete: a program that exists, argv, environment,
directory, session id, the ``initialize`` request and the private files that carry long values.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._ids import random_uuid
from vespera_agent_spawner._tracing import trace_context
from vespera_agent_spawner.adapters import Adapter, adapter_named
from vespera_agent_spawner.adapters.claude import json_text
from vespera_agent_spawner.adapters.environment import (
    Environment,
    environment_for,
    host_number,
)
from vespera_agent_spawner.adapters.locate import find_program
from vespera_agent_spawner.adapters.lookups import Lookups
from vespera_agent_spawner.errors import ConfigError, SpawnError
from vespera_agent_spawner.handlers import offering
from vespera_agent_spawner.hooks import shape_of
from vespera_agent_spawner.transcripts import begin_transcript

if TYPE_CHECKING:
    from vespera_agent_spawner.backends._protocol import Ownership
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["Launch", "prepare"]

# Longer values leave argv. One argument may hold 128 KiB; all of them and the environment
# share a quarter of the stack limit.
_INLINE_LIMIT = 8 * 1024

# Values that hold tokens in practice go through a file at any length: argv is public.
_ALWAYS_IN_FILE = frozenset({"mcp_config", "settings"})


@dataclass(slots=True)
class Launch:
    """What a backend needs to start one agent. ``discard()`` removes the private files."""

    agent_id: str
    session_id: str
    program: str
    argv: list[str]
    environment: Environment
    working_directory: str
    initialize: dict[str, Any] | None
    host_death_grace: float
    cgroup: str | None = None
    transcript: str | None = None
    private_directory: str | None = field(default=None)

    @property
    def goes_on(self) -> bool:
        """Whether the session has been in a process before, which has cost something."""
        return self.initialize is not None and any(
            word.startswith("--resume=") or word == "--continue" for word in self.argv
        )

    def discard(self) -> None:
        """Remove the private files; safe to call twice."""
        directory, self.private_directory = self.private_directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)


@dataclass(slots=True)
class _Pattern:
    """A launch, for others of a list that differ from it in their prompt and their ids alone."""

    launch: Launch
    ownership: Ownership | None
    #: Which state of the host's environment it has.
    host: int
    #: Where in argv the session id is.
    place: int | None
    #: In which moment it was last looked at whether it holds.
    moment: int

    def again(self, agent_id: str) -> Launch:
        """The next one."""
        first, session_id = self.launch, random_uuid()
        argv = first.argv.copy()
        if self.place is not None:
            argv[self.place] = f"--session-id={session_id}"
        return Launch(
            agent_id,
            session_id,
            first.program,
            argv,
            first.environment,
            first.working_directory,
            first.initialize,
            first.host_death_grace,
            first.cgroup,
        )


# No launch is made of these.
_APART = frozenset(
    {
        "agent_id",
        "limits",
        "on_permission",
        "overflow",
        "priority",
        "prompt",
        "retry",
        "timeouts",
        "workspace",
    }
)

# Whoever has one of these has something of its own.
_OWN = frozenset({"budget", "fork_session", "resume", "session_id", "tools", "transcript"})


# Mappings of text to text: of others two may be equal and not the same, as 1 and True are.
_TEXTS = frozenset({"environment", "extra_args"})


def _likeness(config: AgentConfig) -> Hashable:
    """Equal for configurations whose launches differ in their ids alone; None where none may."""
    values = vars(config)
    if (named := values.get("_named")) is None:
        return None
    parts: list[object] = []
    for name in named:
        value = values[name]
        if name in _APART:
            # That there is one may be refused all the same.
            if value is not None and name != "agent_id":
                parts.append(name)
            continue
        if name in _OWN:
            if value is not None and value is not False:
                return None
            continue
        if name in _TEXTS:
            value = tuple(value.items())
        elif name == "hooks" and value is not None:
            value = shape_of(value)
        parts += (name, value)
    likeness = tuple(parts)
    try:
        hash(likeness)
    except TypeError:
        return None
    return likeness


def prepare(
    config: AgentConfig,
    unenforced: Sequence[str] = (),
    ownership: Ownership | None = None,
    lookups: Lookups | None = None,
) -> Launch:
    """Settle a configuration; raises ``ConfigError``, ``SpawnError`` or ``ProgramNotFound``.

    A limit that the backend cannot keep (``unenforced``) is refused: silence would be a promise.
    """
    checked = unenforced and config.limits is not None
    if lookups is None or checked or trace_context(config.environment):
        return _prepared(config, unenforced, ownership, lookups or Lookups())
    likeness = _likeness(config) if config.agent_id is not None else None
    if likeness is None:
        return _prepared(config, unenforced, ownership, lookups)
    key = ("launch", lookups.here, likeness)
    pattern = lookups.known(key)
    if isinstance(pattern, _Pattern) and pattern.ownership is ownership:
        moment = lookups.moment
        if pattern.moment == moment != 0 or pattern.host == host_number():
            pattern.moment = moment
            return pattern.again(str(config.agent_id))
    launch = _prepared(config, unenforced, ownership, lookups)
    if launch.private_directory is None:
        word = f"--session-id={launch.session_id}"
        place = launch.argv.index(word) if word in launch.argv else None
        lookups.keep(key, _Pattern(launch, ownership, host_number(), place, 0))
    return launch


def _prepared(
    config: AgentConfig, unenforced: Sequence[str], ownership: Ownership | None, lookups: Lookups
) -> Launch:
    adapter = adapter_named(config.adapter)
    grace = ownership.host_death_grace if ownership else None
    # Not its JSON text: paths that are not UTF-8 keep their bytes only here.
    mapping: dict[str, Any] = dict(config._changed())
    if config.budget is not None:
        mapping["budget"] = config.budget._given()
    _refuse_unknown(config, adapter, mapping)
    for name in unenforced:
        value = getattr(config.limits, name) if config.limits is not None else None
        if value is not None:
            raise ConfigError(
                f"limits.{name}: this backend cannot enforce it on this system",
                field=f"limits.{name}",
                value=value,
                remedy="leave it out, or set it around the whole program (ulimit, a cgroup)",
            )
    if config.agent_id is None:
        raise ConfigError(
            "agent_id: an agent needs an id", field="agent_id", value=None, remedy="give one"
        )
    directory = _working_directory(config, lookups)
    _check_added(config, directory)
    own = config.environment
    trace = trace_context(own)
    environment = environment_for(
        config.inherit_environment, {**trace, **own} if trace else own, directory
    )
    program = _program(config.program or adapter.program, environment, directory, lookups)
    if config.hooks is not None or config.tools is not None:
        mapping = offering(config, mapping)
    session_id = _session_id(config)
    private, files = _private_files(mapping, adapter)
    try:
        argv = adapter.argv(mapping, program, session_id, files)
        if config.transcript is not None:
            begin_transcript(config, session_id)
    except BaseException:
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)
        raise
    return Launch(
        agent_id=config.agent_id,
        session_id=session_id,
        program=program,
        argv=argv,
        environment=environment,
        working_directory=directory,
        initialize=adapter.initialize(mapping),
        host_death_grace=adapter.host_death_grace if grace is None else grace,
        cgroup=ownership.cgroup if ownership else None,
        transcript=config.transcript,
        private_directory=private,
    )


def _program(name: str | None, environment: Environment, directory: str, lookups: Lookups) -> str:
    # Only a relative path means something else in another directory.
    relative = name is not None and os.sep in name and not name.startswith(os.sep)
    where = directory if relative else None
    key = ("program", name, environment.get("PATH"), environment.get("HOME"), where)
    return lookups.found(key, lambda: find_program(name, environment, directory))


def _session_id(config: AgentConfig) -> str:
    if config.session_id is not None:
        return str(config.session_id)
    if config.resume is not None and not config.fork_session:
        return str(config.resume)
    return random_uuid()


def _working_directory(config: AgentConfig, lookups: Lookups) -> str:
    chosen = config.working_directory
    if not chosen:
        return lookups.here
    key: Hashable = chosen
    if not chosen.startswith(os.sep):
        key = (chosen, lookups.here, host_number())
    return lookups.found(key, lambda: _existing_directory(config, chosen, lookups))


def _existing_directory(config: AgentConfig, chosen: str, lookups: Lookups) -> str:
    directory = Path(chosen).expanduser()
    if not directory.is_absolute():
        directory = Path(lookups.here, directory)
    if not directory.is_dir():
        exists = directory.exists()
        raise SpawnError(
            f"agent '{config.agent_id}': working directory {directory} "
            f"{'is not a directory' if exists else 'does not exist'}; create it or choose another",
            errno=errno.ENOTDIR if exists else errno.ENOENT,
            program=str(config.program or ""),
            stage="chdir",
            context={"agent_id": config.agent_id},
        )
    return str(directory)


def _check_added(config: AgentConfig, directory: str) -> None:
    """The CLI says nothing of a directory that is not there, and its tools are refused later."""
    for index, given in enumerate(config.add_dirs or ()):
        place = Path(directory, given)
        # Whose home "~" is, is the CLI's to say.
        if given.startswith("~") or place.is_dir():
            continue
        why = "is not a directory" if place.exists() else "does not exist"
        remedy = "create it, or leave it out"
        raise ConfigError(
            f"add_dirs[{index}]: {place} {why}; {remedy}",
            field=f"add_dirs[{index}]",
            value=given,
            remedy=remedy,
            context={"agent_id": config.agent_id},
        )


def _refuse_unknown(config: AgentConfig, adapter: Adapter, given: Mapping[str, Any]) -> None:
    if config.program is None and adapter.program is None:
        raise ConfigError(
            f"program: adapter '{adapter.name}' has none of its own; give its name or path",
            field="program",
            value=None,
            remedy="give its name or path",
        )
    if not adapter.unknown:
        return
    for name in adapter.unknown:
        if name in given:
            value = getattr(config, name)
            raise ConfigError(
                f"{name}: adapter '{adapter.name}' has no such setting; leave it out, or put it "
                "into args",
                field=name,
                value=value,
                remedy="leave it out, or put it into args",
            )


def _private_files(
    mapping: Mapping[str, Any], adapter: Adapter
) -> tuple[str | None, dict[str, str]]:
    """Write long and secret values to 0600 files in a 0700 directory of their own."""
    texts: dict[str, str] = {}
    for name in adapter.file_flags:
        value = mapping.get(name)
        if value is None:
            continue
        text = value if isinstance(value, str) else json_text(value)
        secret = name in _ALWAYS_IN_FILE and not isinstance(value, str)
        if secret or len(text.encode()) > _INLINE_LIMIT:
            texts[name] = text
    if not texts:
        return None, {}
    directory = Path(tempfile.mkdtemp(prefix="vespera-"))
    files: dict[str, str] = {}
    for name, text in texts.items():
        suffix = ".txt" if name.endswith("prompt") else ".json"
        path = directory / (name + suffix)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        files[name] = str(path)
    return str(directory), files
