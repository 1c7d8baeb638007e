"""Responsible for a prompt on its way to a ``result``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Turn"]


@dataclass(slots=True)
class Turn:
    """Abandoned: nobody waits for it any more."""

    uuid: str
    answer: asyncio.Future[Mapping[str, Any]]
    abandoned: bool = False
    expired: tuple[str, float] | None = None  # which limit of time passed
