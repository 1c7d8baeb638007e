"""Responsible for what is seen during a run: a live table, or plain lines where no terminal is."""

from __future__ import annotations

from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from vespera_server.redaction import Redactor
from vespera_server.run.rows import Board, Row
from vespera_server.tasks import TaskNews

__all__ = ["Screen", "row_line"]

_GOOD = "completed"


class Screen:
    """Shows a board on a console. Without a terminal: one line for each thing that happens.

    What stands there has gone through ``redactor``: errors hold the last words of programs.
    """

    def __init__(self, console: Console, board: Board, redactor: Redactor) -> None:
        self._console = console
        self._redactor = redactor
        self._board = board
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def hear(self, news: TaskNews, row: Row) -> None:
        """Something happened to a task."""
        if self._live is None:
            line = self._redactor.text(row_line(news.kind, row))
            self._console.print(line, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A word about the whole run."""
        text = self._redactor.text(text)
        self._board.note = text
        if self._live is None:
            self._console.print(text, markup=False, soft_wrap=True)

    def _picture(self) -> Group:
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
        for name in ("task", "state", "start", "model"):
            table.add_column(name, no_wrap=True)
        for name in ("time", "cost"):
            table.add_column(name, justify="right", no_wrap=True)
        room = max(4, self._console.height - 6)
        rows = [*self._board.ended, *self._board.working.values()][-room:]
        for row in rows:
            table.add_row(*_cells(row))
        lines = [Text(self._board.line())]
        if self._board.note:
            lines.append(Text(self._board.note, style="yellow"))
        return Group(table, *lines)


def row_line(kind: str, row: Row) -> str:
    """One thing that happened, as a line. The model stands on each: nobody mistakes a rehearsal."""
    parts = [f"{row.task_id}: {row.outcome or kind}"]
    if kind in ("resumed", "restarted") or row.attempts > 1:
        parts.append(f"attempt {row.attempts}")
    if kind == "ended":
        parts.append(f"{row.seconds:.1f} s")
        if row.cost_usd is not None:
            parts.append(f"${row.cost_usd:.3f}")
    parts.append(f"model {row.model}")
    line = ", ".join(parts)
    return f"{line}: {row.error}" if row.error else line


def _cells(row: Row) -> list[str]:
    start = row.start if row.attempts == 1 else f"{row.start} ({row.attempts})"
    if row.outcome is None:
        state = f"[cyan]{row.state}[/]"
    else:
        colour = "green" if row.outcome == _GOOD else "red"
        state = f"[{colour}]{row.outcome}[/]"
    return [
        escape(row.task_id),
        state,
        start,
        escape(row.model),
        f"{row.seconds:.1f}s",
        "" if row.cost_usd is None else f"${row.cost_usd:.3f}",
    ]
