"""Responsible for the shape of every answer."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vespera_server.problems import Problem

__all__ = ["Answer"]


class Answer(BaseModel):
    """What every tool answers."""

    model_config = ConfigDict(extra="forbid")

    success: bool = Field(description="Whether it worked; if not, `error` says why.")
    backend: str | None = Field(
        default=None, description="The engine that did the work: 'rust' or 'python'."
    )
    message: str | None = Field(default=None, description="The same in words.")
    error: Problem | None = None
