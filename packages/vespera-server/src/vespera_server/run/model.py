"""Responsible for what a task file may hold.

A task has the fields of ``TaskEntry`` and, beside them, any setting of an agent. Those are checked
when the task is planned: until then they may be templates.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = ["FileRun", "ScriptedStep", "TaskEntry", "TaskFile"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ScriptedStep(_Part):
    """One answer of the scripted model, for `--scripted`: a text, a tool call or an HTTP error."""

    text: str | None = Field(default=None, description="The model says this.")
    tool: str | None = Field(default=None, description="The model calls this tool of the CLI.")
    input: dict[str, JsonValue] = Field(default={}, description="With `tool`: what it is given.")
    fail: int | None = Field(
        default=None,
        ge=400,
        le=599,
        description="An HTTP error; as the last step, for every request from there on.",
    )
    delay: float = Field(default=0.0, ge=0, le=3600, description="Seconds before the answer.")

    @model_validator(mode="after")
    def _one_of_three(self) -> Self:
        if sum(kind is not None for kind in (self.text, self.tool, self.fail)) != 1:
            raise ValueError("give exactly one of text, tool and fail")
        return self


class TaskEntry(BaseModel):
    """A task, or with `items` or `glob` one task for each item."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    id: str = Field(min_length=1, description="Name of the task; unlike all others.")
    prompt: str | None = Field(default=None, description="What the agent is told.")
    role: str | None = Field(default=None, description="A preset of [roles.NAME].")
    needs: list[str] = Field(
        default=[], description="Tasks that must complete first; `*` and `?` match several."
    )
    priority: int = Field(default=0, description="Higher goes first.")
    restart: bool = Field(
        default=True,
        description="False: end `incomplete` when the session cannot be resumed after a crash.",
    )
    items: list[JsonValue] | None = Field(
        default=None, description="One task for each: ${item}, ${item.FIELD}, ${index}."
    )
    glob: str | None = Field(
        default=None,
        description="One task for each file: ${item.path}, ${item.name}, ${item.stem}.",
    )
    scripted: list[ScriptedStep] = Field(
        default=[], description="What the model answers with `--scripted`."
    )

    @property
    def agent(self) -> dict[str, Any]:
        """The settings of the agent that stand beside the task's own fields."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.items is not None and self.glob is not None:
            raise ValueError("give items or glob, not both")
        return self


class FileRun(_Part):
    """The batch as a whole."""

    name: str | None = Field(default=None, description="How the run is called.")
    agents: int | None = Field(default=None, ge=1, le=1_000_000, description="How many at once.")
    budget_usd: float | None = Field(
        default=None, ge=0, le=1e9, description="US dollars after which nothing more is started."
    )


class TaskFile(_Part):
    """A file for `vespera run`."""

    run: FileRun = Field(default_factory=FileRun)
    vars: dict[str, str | int | float | bool] = Field(
        default={}, description="Values for ${NAME} in every text of the file."
    )
    agent: dict[str, JsonValue] = Field(default={}, description="Settings of every agent.")
    roles: dict[str, dict[str, JsonValue]] = Field(
        default={}, description="Named presets of settings of agents."
    )
    tasks: list[TaskEntry] = Field(min_length=1)
