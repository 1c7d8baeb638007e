"""Responsible for the money of one server: what is spent, set aside and left. It starts nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vespera_agent_spawner import BudgetExceeded
from vespera_server.serve.member import Member
from vespera_server.serve.options import ServerOptions

__all__ = ["Purse"]


class Purse:
    """US dollars within the operator's budget; ``living`` are those who may still spend."""

    def __init__(self, options: ServerOptions, living: Callable[[], Iterable[Member]]) -> None:
        self._options = options
        self._living = living
        self._by_ended = 0.0

    @property
    def spent(self) -> float:
        """What all agents have cost."""
        return self._by_ended + sum(member.cost_usd or 0.0 for member in self._living())

    def close_account(self, member: Member) -> None:
        """An agent has ended, and costs no more."""
        self._by_ended += member.cost_usd or 0.0

    def refuse_overspending(self) -> None:
        """Raises ``BudgetExceeded`` when all is spent."""
        budget = self._options.budget_usd
        if budget is not None and self.spent >= budget:
            raise BudgetExceeded(
                f"the budget of this server is spent: {self.spent:.4f} of {budget:.4f} US dollars"
            )

    def share(self) -> float | None:
        """What the next agent may cost: what is set aside for it cannot be spent by another.

        None is no limit. Raises ``BudgetExceeded`` when nothing is left to be set aside.
        """
        whole, each = self._options.budget_usd, self._options.agent_budget_usd
        if whole is None:
            return each
        self.refuse_overspending()
        reserved = sum(max(m.reserved or 0.0, m.cost_usd or 0.0) for m in self._living())
        left = whole - self._by_ended - reserved
        share = min(left, whole / self._options.max_agents if each is None else each)
        if share <= 0:
            raise BudgetExceeded(
                f"all of this server's budget ({whole:.4f} US dollars) is spent or set aside for "
                "agents that live"
            )
        return share
