"""Responsible for what a fleet's configuration makes of an agent's: checks, defaults, ceilings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._validation import refuse
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.backends import Backend, Ownership
from vespera_agent_spawner.backends._cgroup import delegated
from vespera_agent_spawner.config import AgentConfig, Budget, SupervisorConfig
from vespera_agent_spawner.errors import ConfigError
from vespera_agent_spawner.handlers import check_handlers
from vespera_agent_spawner.transcripts import path_in

if TYPE_CHECKING:
    from vespera_agent_spawner.spending import Purse

__all__ = ["checked_config", "checked_runs", "may_stand", "ownership_of", "settled"]


def checked_config(config: AgentConfig | Mapping[str, Any]) -> AgentConfig:
    """As a configuration, its functions looked at."""
    if not isinstance(config, AgentConfig):
        if not isinstance(config, Mapping):
            raise refuse("config", config, "give an AgentConfig, or a mapping of its fields")
        config = AgentConfig.from_mapping(config)
    check_handlers(config)
    return config


def checked_runs(configs: Iterable[AgentConfig | Mapping[str, Any]]) -> list[AgentConfig]:
    """The same, of agents that end by themselves; an error says which of them it is about."""
    if isinstance(configs, AgentConfig | Mapping | str) or not isinstance(configs, Iterable):
        raise refuse("configs", configs, "give a list of AgentConfig")
    checked = []
    for index, config in enumerate(configs):
        try:
            checked.append(_checked_run(config))
        except ConfigError as error:
            words, context = f"configs[{index}]: {error}", {**error.context, "index": index}
            raise ConfigError(
                words, field=error.field, value=error.value, remedy=error.remedy, context=context
            ) from None
    return checked


def _checked_run(config: AgentConfig | Mapping[str, Any]) -> AgentConfig:
    checked = checked_config(config)
    if checked.prompt is None and not adapter_named(checked.adapter).runs_to_exit:
        raise ConfigError(
            "prompt: run and as_completed need one; give a prompt, or spawn a session",
            field="prompt",
            value=None,
            remedy="give a prompt, or spawn a session",
        )
    return checked


def settled(
    config: AgentConfig,
    agent_id: str,
    fleet: SupervisorConfig,
    common: Purse | None,
    own: Purse | None = None,
) -> AgentConfig:
    """With what the fleet says where the agent says nothing, and what both purses leave."""
    changes: dict[str, Any] = {}
    if config.agent_id is None:
        changes["agent_id"] = agent_id
    if config.timeouts is None:
        changes["timeouts"] = fleet.timeouts
    if config.limits is None:
        changes["limits"] = fleet.limits
    if config.transcript is None and fleet.transcript_dir is not None:
        changes["transcript"] = path_in(fleet.transcript_dir, agent_id)
    if common is None and config.budget is None:
        return config._having(changes)
    adapter = adapter_named(config.adapter)
    left = None if common is None else common.left_usd
    budget = config.budget.usd if config.budget is not None else None
    if own is not None and budget is not None:
        budget = own.left_usd
    ceilings = [max(0.01, one) for one in (left, budget) if one is not None]
    if ceilings and not (adapter.runs_to_exit or adapter.relayed):
        # What one agent may spend at most, as its CLI counts within a turn.
        changes["budget"] = Budget(usd=min(ceilings))
    return config._having(changes)


def ownership_of(config: SupervisorConfig, backend: Backend) -> Ownership:
    """What the fleet says on its trees; raises ``ConfigError`` for what the backend cannot keep."""
    chosen = Ownership(config.host_death_grace)
    if config.cgroup is None:
        return chosen
    if backend.name != "rust":
        raise ConfigError(
            "cgroup: the Python backend cannot use one",
            field="cgroup",
            value=config.cgroup,
            remedy="leave it out, or use backend='rust'",
        )
    return dataclasses.replace(chosen, cgroup=delegated(config.cgroup))


def may_stand(config: AgentConfig) -> bool:
    """Whether nothing has to be done, or looked at, when it starts."""
    starts_cold = config.resume is None and config.session_id is None and not config.fork_session
    counted = config.budget is not None or (
        config.limits is not None and config.limits.cpu_seconds is not None
    )
    return starts_cold and not counted and config.transcript is None
