"""Responsible for what an operator cannot have meant: said when `vespera serve` begins, not by the
first agent, when nobody looks."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

from vespera_agent_spawner.adapters.locate import DEFAULT_PROGRAM, find_program
from vespera_agent_spawner.errors import ConfigError, SpawnError
from vespera_server.serve.options import ServerOptions
from vespera_server.serve.places import expanded
from vespera_server.serve.policy import Policy

__all__ = ["check_beginning"]

# As of CLI 2.1.330, with the names of a few earlier ones. A CLI may have others: unknown is a
# warning, never a refusal.
_TOOLS = (
    *("Agent", "AskUserQuestion", "Bash", "BashOutput", "CronCreate", "CronDelete", "CronList"),
    *("Edit", "EnterPlanMode", "EnterWorktree", "ExitPlanMode", "ExitWorktree", "Glob", "Grep"),
    *("KillShell", "LS", "LSP", "ListAgents", "ListMcpResourcesTool", "Monitor", "MultiEdit"),
    *("NotebookEdit", "NotebookRead", "PowerShell", "Read", "ReadMcpResourceTool"),
    *("ReportFindings", "ScheduleWakeup", "SendMessage", "Skill", "SlashCommand", "Task"),
    *("TaskCreate", "TaskGet", "TaskList", "TaskOutput", "TaskStop", "TaskUpdate", "TodoWrite"),
    *("ToolSearch", "WebFetch", "WebSearch", "Workflow", "Write", "*"),
)


def check_beginning(options: ServerOptions, policy: Policy) -> list[str]:
    """Warnings about what is odd. Raises ``ConfigError`` for what cannot work."""
    for name, program in options.programs.items():
        _check_program(name, program, policy)
    if options.transcript_dir is not None:
        _check_transcripts(options.transcript_dir)
    return list(_odd_tools(options))


def _check_program(name: str, program: str, policy: Policy) -> None:
    if (name, program) == (DEFAULT_PROGRAM, DEFAULT_PROGRAM):
        return  # nobody chose it, and file tools work without
    try:
        find_program(program, policy.environment, policy.places.roots[0])
    except SpawnError as error:
        remedy = str(error.context.get("remedy") or "give a path that exists")
        why = str(error).partition(" Remedy: ")[0].rstrip(".")
        raise ConfigError(
            f"programs.{name}: {why}; {remedy}",
            field=f"programs.{name}",
            value=program,
            remedy=remedy,
        ) from error


def _check_transcripts(directory: str) -> None:
    place = expanded(directory, "transcript_dir")
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(None, "it cannot be written")
    except OSError as error:
        remedy = "name a directory that you may write"
        raise ConfigError(
            f"transcript_dir: {directory}: {error.strerror}; {remedy}",
            field="transcript_dir",
            value=directory,
            remedy=remedy,
        ) from error


def _odd_tools(options: ServerOptions) -> Iterator[str]:
    for rule in options.tools:
        name = rule.partition("(")[0]
        if name in _TOOLS or name.startswith("mcp__"):
            continue
        near = difflib.get_close_matches(name, _TOOLS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "agents have it if their CLI does"
        yield f"tools: '{name}' is no tool of the CLI that is known here; {hint}"
