"""Responsible for turning what a caller asks for into an agent's configuration, within the
operator's ceilings.

A wish beyond a ceiling is refused with its name, never cut silently. Three things hold for every
agent, since a caller may write files where agents work: settings in the working directory are not
read (they may name hooks, which are programs), no MCP server but those of the operator's choice is
started, and tools outside of the ceiling do not exist for the CLI.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vespera_agent_spawner import AgentConfig, Timeouts
from vespera_agent_spawner.transcripts import path_in
from vespera_server.environment import select
from vespera_server.problems import Refused
from vespera_server.redaction import Redactor
from vespera_server.serve.options import PERMISSION_MODES, TOOL_RULE, ServerOptions
from vespera_server.serve.places import Places

__all__ = ["AGENT_ID", "MODEL", "Policy", "Wish"]

#: Ids become names of files and words in logs.
AGENT_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MODEL = r"^[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,127}$"

# A task waits for its place as long as the server lives.
_FOREVER = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What a caller asks for."""

    agent_id: str
    command: str = "claude"
    timeout_seconds: float = 300.0
    working_directory: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    allowed_tools: Sequence[str] | None = None
    permission_mode: str | None = None
    max_turns: int | None = None
    prompt: str | None = None


class Policy:
    """The operator's decisions, applied. ``host`` is the environment to choose from."""

    def __init__(self, options: ServerOptions, host: Mapping[str, str] | None = None) -> None:
        self.options = options
        self.places = Places(options.roots, read_only=options.read_only)
        self.environment = select(options.environment, options.environment_names, host)
        self.redactor = Redactor.for_environment(self.environment)

    def agent(self, wish: Wish) -> AgentConfig:
        """The configuration of an agent.

        Raises ``Refused``, ``OutsideWorkspace``, ``OSError`` or ``ConfigError``.
        """
        if not re.fullmatch(AGENT_ID, wish.agent_id):
            raise Refused(
                "invalid_agent_id",
                f"agent_id {wish.agent_id[:80]!r} is no name",
                "use 1 to 64 letters, digits, dots, dashes or underscores; a letter or digit first",
            )
        given: dict[str, Any] = {
            "agent_id": wish.agent_id,
            "program": self._program(wish.command),
            "working_directory": self.places.directory(wish.working_directory),
            "environment": self.environment,
            "inherit_environment": False,
            "model": self._model(wish.model),
            "append_system_prompt": wish.system_prompt or None,
            "permission_mode": self._permission_mode(wish.permission_mode),
            "max_turns": wish.max_turns,
            "prompt": wish.prompt,
            "timeouts": Timeouts(
                startup=self.options.startup_timeout,
                turn=self._turn_timeout(wish.timeout_seconds),
                queue=_FOREVER if wish.prompt is not None else 30.0,
            ),
        }
        given |= self._tools(wish.allowed_tools)
        return AgentConfig(**given)

    def with_budget(self, config: AgentConfig, budget: float | None) -> AgentConfig:
        """The same agent, which may spend so many US dollars; the CLI itself keeps to it."""
        if budget is None:
            return config
        flags = {**config.extra_args, "max-budget-usd": f"{budget:.6f}"}
        return dataclasses.replace(config, extra_args=flags)

    def transcript(self, agent_id: str) -> Path | None:
        """Where what the agent says is kept."""
        directory = self.options.transcript_dir
        return None if directory is None else Path(path_in(directory, agent_id))

    def _program(self, command: str) -> str:
        programs = self.options.programs
        if command not in programs:
            raise Refused(
                "program_not_allowed",
                f"command {command[:80]!r} is none of this server's programs",
                f"use one of {', '.join(sorted(programs))}",
            )
        return programs[command]

    def _model(self, model: str | None) -> str | None:
        allowed = self.options.models
        if model is None:
            # With a list the first of it is meant: the CLI's own default may not be on it.
            return allowed[0] if allowed else None
        if (allowed is not None and model not in allowed) or not re.fullmatch(MODEL, model):
            raise Refused(
                "model_not_allowed",
                f"model {model[:80]!r} is not allowed here",
                f"use one of {', '.join(allowed)}" if allowed else "give a model's name",
            )
        return model

    def _permission_mode(self, mode: str | None) -> str:
        if mode is None:
            # Always said: the user's own settings may have a default above the ceiling.
            return "default" if self.options.at_most("default") else self.options.permission_mode
        if mode not in PERMISSION_MODES or not self.options.at_most(mode):
            raise Refused(
                "permission_not_allowed",
                f"permission_mode {mode[:40]!r} is more than this server allows",
                f"leave it out, or use at most '{self.options.permission_mode}'",
            )
        return mode

    def _turn_timeout(self, seconds: float) -> float:
        ceiling = self.options.turn_timeout
        if not 0 < seconds <= ceiling:
            raise Refused(
                "timeout_not_allowed",
                f"timeout_seconds {seconds:g} is not within this server's limits",
                f"give more than 0 and at most {ceiling:g} seconds",
            )
        return seconds

    def _tools(self, wanted: Sequence[str] | None) -> dict[str, Any]:
        ceiling = self.options.tools
        if wanted is not None:
            for rule in wanted:
                self._check_tool(rule)
        chosen = tuple(ceiling if wanted is None else wanted)
        flags: dict[str, str | None] = {
            "strict-mcp-config": None,
            "setting-sources": ",".join(self.options.setting_sources),
        }
        if "*" in chosen:
            chosen = tuple(rule for rule in chosen if rule != "*")
        if wanted is not None or "*" not in ceiling:
            # The tools that exist at all; an allowed one beyond them would not be found.
            flags["tools"] = ",".join(sorted({_base(rule) for rule in chosen}))
        return {"allowed_tools": chosen or None, "extra_args": flags}

    def _check_tool(self, rule: str) -> None:
        ceiling = self.options.tools
        known = TOOL_RULE.fullmatch(rule) is not None
        if known and ("*" in ceiling or rule in ceiling or _base(rule) in ceiling):
            return
        raise Refused(
            "tool_not_allowed",
            f"tool {rule[:80]!r} is not allowed here",
            f"use some of {', '.join(ceiling) or 'none'}; the operator can allow more with --tool",
        )


def _base(rule: str) -> str:
    """``Bash`` of ``Bash(git log:*)``."""
    return rule.partition("(")[0]
