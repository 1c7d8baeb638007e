"""Responsible for what agents spend: counted by difference, held against budgets.

Tokens are counted while a turn runs (each message of the model tells its usage, and repeats it in
every frame of that message) and corrected by the turn's result, which tells the whole. Dollars are
told by results alone. Cached input that is only read is not counted: a long conversation reads all
of itself again in every request, at a tenth of the price.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vespera_agent_spawner.config import Budget
    from vespera_agent_spawner.results import TurnResult

__all__ = ["Meter", "Purse", "tokens_in_and_out", "tokens_of"]

_TAKEN = ("input_tokens", "cache_creation_input_tokens")

# Spending is judged over so many seconds, and an alarm is said once in them.
_WINDOW = 600.0
# A single result at the start would look like a rate of its own.
_SHORTEST = 60.0


def tokens_of(usage: Any) -> int:
    """All tokens of a ``usage`` of the API that count."""
    return sum(tokens_in_and_out(usage))


def tokens_in_and_out(usage: Any) -> tuple[int, int]:
    """Tokens in and out of a ``usage`` of the API; the Rust twin is in src/agent/claude.rs."""
    if not isinstance(usage, Mapping):
        return 0, 0
    return sum(_count(usage, name) for name in _TAKEN), _count(usage, "output_tokens")


def _count(usage: Mapping[str, Any], name: str) -> int:
    count = usage.get(name)
    return count if type(count) is int and count > 0 else 0


class Purse:
    """What one agent or one fleet may spend, and has spent. ``name`` is the setting's path."""

    def __init__(
        self,
        budget: Budget,
        name: str,
        alarm: Callable[[str], object],
        on_empty: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = budget
        self._name = name
        self._alarm = alarm
        self._on_empty = on_empty
        self._clock = clock
        self._recent: deque[tuple[float, float]] = deque()
        self._silent_until = 0.0
        self._began = clock()
        self.usd = 0.0
        self.tokens = 0

    @property
    def left_usd(self) -> float | None:
        """Dollars that may still be spent; None without such a limit."""
        limit = self._budget.usd
        return None if limit is None else max(0.0, limit - self.usd)

    @property
    def empty(self) -> str | None:
        """Why nothing more may be spent, in words; None while something may."""
        usd, tokens = self._budget.usd, self._budget.tokens
        if usd is not None and self.usd >= usd:
            return f"{self._name}.usd={usd:g} is spent ({self.usd:.4f} USD)"
        if tokens is not None and self.tokens >= tokens:
            return f"{self._name}.tokens={tokens} are used ({self.tokens})"
        return None

    def spend(self, usd: float, tokens: int) -> None:
        """Something was spent; ``tokens`` may be negative, as a result corrects what was counted
        before it."""
        self.usd += usd
        self.tokens += tokens
        if usd and self._budget.usd_per_hour is not None:
            self._watch(usd, self._budget.usd_per_hour)
        if self._on_empty is not None and (words := self.empty) is not None:
            tell, self._on_empty = self._on_empty, None
            tell(words)

    def _watch(self, usd: float, limit: float) -> None:
        now = self._clock()
        self._recent.append((now, usd))
        while self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()
        seconds = min(_WINDOW, max(_SHORTEST, now - self._began))
        rate = sum(spent for _, spent in self._recent) / seconds * 3600
        if rate > limit and now >= self._silent_until:
            self._silent_until = now + _WINDOW
            self._alarm(
                f"spending runs at {rate:.2f} USD per hour, more than "
                f"{self._name}.usd_per_hour={limit:g}"
            )


class Meter:
    """Counts what one agent spends, into the purses that it is paid from."""

    def __init__(self, purses: Sequence[Purse]) -> None:
        self._purses = purses
        self._messages: dict[str, int] = {}
        self._usd = 0.0

    @property
    def empty(self) -> str | None:
        """Why nothing more may be spent, in words; None while something may."""
        return next((words for purse in self._purses if (words := purse.empty)), None)

    def message(self, frame: Mapping[str, Any]) -> str | None:
        """A frame of the model; returns why nothing more may be spent."""
        message = frame.get("message")
        if not isinstance(message, Mapping):
            return None
        name, tokens = str(message.get("id")), tokens_of(message.get("usage"))
        more = tokens - self._messages.get(name, 0)
        self._messages[name] = tokens
        return self._spend(0.0, more)

    def turn(self, result: TurnResult) -> str | None:
        """A turn's result, which tells all that its messages told, and the money."""
        counted, self._messages = sum(self._messages.values()), {}
        told = tokens_of(result["usage"])
        return self._spend(result.get("cost_usd") or 0.0, max(told, counted) - counted)

    def lost(self, total_usd: float | None) -> str | None:
        """A turn ended without a result of its own; ``total_usd`` is what the session has cost."""
        self._messages = {}
        return self._spend(max(0.0, (total_usd or 0.0) - self._usd), 0)

    def whole(self, usd: float) -> None:
        """The money of an agent whose turns are somebody else's: it is told at its end."""
        self._spend(usd, 0)

    def _spend(self, usd: float, tokens: int) -> str | None:
        self._usd += usd
        for purse in self._purses:
            purse.spend(usd, tokens)
        return self.empty
