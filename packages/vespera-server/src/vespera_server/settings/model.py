"""Responsible for which settings there are, and what each may be.

Supervisors and agents have their settings from ``vespera-config``, whose rules both backends of
the engine share: they are checked by the engine's own classes and not described a second time. So
are those of the MCP server, by ``ServerOptions``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from vespera_agent_spawner import AgentConfig, SupervisorConfig
from vespera_agent_spawner import _validation as rules
from vespera_server.environment import check_groups
from vespera_server.serve.options import ServerOptions
from vespera_server.state.keeping import DEFAULT_MAX_AGE, DEFAULT_MAX_SIZE

__all__ = [
    "OPERATORS",
    "PREFIX",
    "RESERVED",
    "RunSettings",
    "Settings",
    "SettingsSources",
    "StateSettings",
    "agent_settings",
]

PREFIX = "VESPERA_"
#: Sections that a project's files may not have: who is to be limited may write those files.
OPERATORS = frozenset({"serve"})
#: What the program sets for each task and nobody else may.
RESERVED = frozenset({"agent_id", "session_id", "resume", "fork_session", "transcript"})


def agent_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings of an agent; they stay as they were written, to be merged."""
    for name in RESERVED & set(value):
        raise rules.refuse(name, value[name], "leave it out: vespera sets it for each task")
    AgentConfig.from_mapping(value)
    return dict(value)


def _supervisor_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    SupervisorConfig.from_mapping(value)
    return dict(value)


def _server_options(value: Mapping[str, Any]) -> dict[str, Any]:
    ServerOptions.from_mapping(value)
    return dict(value)


def _groups(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return value if value is None else check_groups(value, "")


def _by(rule: Callable[[str, object], Any]) -> BeforeValidator:
    return BeforeValidator(lambda value: rule("", value))


AgentSettings = Annotated[dict[str, Any], AfterValidator(agent_settings)]
SupervisorSettings = Annotated[dict[str, Any], AfterValidator(_supervisor_settings)]
ServeSettings = Annotated[dict[str, Any], AfterValidator(_server_options)]
Groups = Annotated[tuple[str, ...] | None, AfterValidator(_groups)]
Size = Annotated[
    int, _by(rules.size(1 << 20)), Field(json_schema_extra={"type": ["integer", "string"]})
]
Duration = Annotated[
    float, _by(rules.positive_duration), Field(json_schema_extra={"type": ["number", "string"]})
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StateSettings(_Section):
    """What is kept on disk."""

    directory: str | None = Field(
        default=None, description="Where; null: the platform's place for a user's state."
    )
    max_size: Size = Field(default=DEFAULT_MAX_SIZE, description='Bytes, or text such as "2GiB".')
    max_age: Duration = Field(
        default=DEFAULT_MAX_AGE,
        description='Seconds, or text such as "30d": older runs are removed.',
    )


class RunSettings(_Section):
    """`vespera run`."""

    agents: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="How many at once; null: what the machine allows.",
    )
    budget_usd: float | None = Field(
        default=None, ge=0, le=1e9, description="US dollars after which nothing more is started."
    )
    lease: Duration = Field(
        default=30.0, description="Seconds after which a silent process loses its tasks."
    )
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Serve Prometheus metrics on loopback; 0: a free port.",
    )
    environment: Groups = Field(
        default=None,
        description="Groups of your variables that agents get, as `vespera doctor` lists them; "
        "null: all.",
    )
    environment_names: tuple[str, ...] = Field(
        default=(), description="Further variables that agents get, where groups are chosen."
    )


class Settings(_Section):
    """Settings of `vespera`."""

    supervisor: SupervisorSettings = Field(
        default_factory=dict, description="Settings of the fleet: a SupervisorConfig."
    )
    agent: AgentSettings = Field(
        default_factory=dict, description="Settings of every agent: an AgentConfig."
    )
    roles: dict[str, AgentSettings] = Field(
        default_factory=dict, description="Named presets of settings of agents."
    )
    run: RunSettings = Field(default_factory=RunSettings)
    serve: ServeSettings = Field(
        default_factory=dict,
        description="`vespera serve`; only in the user's own file and the environment.",
    )
    state: StateSettings = Field(default_factory=StateSettings)


class SettingsSources(BaseSettings, Settings):
    """What the sources of pydantic-settings want to know; never made, ``layers`` asks them."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        pyproject_toml_table_header=("tool", "vespera"),
    )
