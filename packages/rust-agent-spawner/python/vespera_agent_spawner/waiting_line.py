"""Responsible for the order of those who wait for a place: by priority, then as they came.

A list of runs comes in one order and leaves in the same: one row for each priority costs each of
them the same, however many wait, where a heap of all compares with a dozen others on the way.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Entry", "Line", "Prospect", "Ticket"]

# So many who wait no more may stay in the line, or half of it.
_FEW_WITHDRAWN = 64


class Prospect(Protocol):
    """Somebody in the queue who can be made ready to follow another without the event loop."""

    def prepare(self) -> bool:
        """Stand by. False: this one cannot, and starts as everybody else."""

    def has_begun(self) -> bool:
        """Whether another's end has started it."""

    def withdraw(self) -> bool:
        """Stand by no more. False: it has begun."""


@dataclass(slots=True, eq=False)
class Ticket:
    """Somebody's turn in the queue; ``tell`` hears None for a place, or why there will be none."""

    reserve: int
    tell: Callable[[Exception | None], None]
    #: For whom, as whoever asked put it.
    subject: object = None
    prospect: Prospect | None = None
    waits: bool = True


#: The priority's opposite, the number in the order of coming, and whose it is.
Entry = tuple[int, int, Ticket]


class Line:
    """Those who wait. Some of them may wait no more: they leave when their turn comes."""

    def __init__(self) -> None:
        #: Whose turn it is; None when the line is empty.
        self.first: Entry | None = None
        # None of them is empty.
        self._rows: dict[int, deque[Entry]] = {}
        # A heap of the rows' keys.
        self._ranks: list[int] = []
        self._length = 0
        # At most so many of them wait no more.
        self._withdrawn = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Entry]:
        """In their order."""
        for rank in sorted(self._ranks):
            yield from self._rows[rank]

    def waiting(self) -> Iterator[Ticket]:
        """Those who still wait, in their order."""
        return (ticket for *_, ticket in self if ticket.waits)

    def join(self, entry: Entry) -> None:
        """Take one's place; one that had left finds it again."""
        rank = entry[0]
        row = self._rows.get(rank)
        if row is None:
            row = self._rows[rank] = deque()
            heapq.heappush(self._ranks, rank)
        if not row or row[-1] < entry:
            row.append(entry)
        else:
            # Who comes back was at the front: few have come back before it.
            before = []
            while row[0] < entry:
                before.append(row.popleft())
            row.appendleft(entry)
            row.extendleft(reversed(before))
        self._length += 1
        if self.first is None or entry < self.first:
            self.first = entry

    def pop(self) -> Entry:
        """The first one, which leaves; raises ``IndexError`` when there is none."""
        rank = self._ranks[0]
        row = self._rows[rank]
        entry = row.popleft()
        self._length -= 1
        if row:
            self.first = row[0]
        else:
            heapq.heappop(self._ranks)
            del self._rows[rank]
            self._look()
        return entry

    def withdraw(self, ticket: Ticket) -> None:
        """It waits no more."""
        ticket.waits = False
        # Behind one who waits for hours others come and go.
        self._withdrawn += 1
        if self._withdrawn > max(_FEW_WITHDRAWN, self._length // 2):
            self._close_up()

    def _close_up(self) -> None:
        """Who waits no more leaves at once."""
        rows = {
            rank: deque(entry for entry in row if entry[2].waits)
            for rank, row in self._rows.items()
        }
        self._rows = {rank: row for rank, row in rows.items() if row}
        # A sorted list is a heap.
        self._ranks = sorted(self._rows)
        self._length = sum(map(len, self._rows.values()))
        self._withdrawn = 0
        self._look()

    def _look(self) -> None:
        self.first = self._rows[self._ranks[0]][0] if self._ranks else None
