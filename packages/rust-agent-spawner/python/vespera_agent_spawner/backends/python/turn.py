"""Responsible for what is remembered of a prompt until its ``result`` frame comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Turn"]


@dataclass(slots=True)
class Turn:
    """A prompt on its way to a ``result``. Abandoned: nobody waits for it any more."""

    uuid: str
    answer: asyncio.Future[Mapping[str, Any]]
    abandoned: bool = False
    #: Which limit of time passed, and its seconds.
    expired: tuple[str, float] | None = None
