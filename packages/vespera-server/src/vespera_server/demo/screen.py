"""What the user sees: one live table while the agents work, the same table complete at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from vespera_server.demo.rows import Row

_MIN_WIDTH = 100  # in a pipe rich assumes 80 columns, which would cut every cell
_COLOURS = {"working": "cyan", "starting": "yellow", "ending": "yellow", "waiting": "dim"}


def console_for(*, stderr: bool = False) -> Console:
    """A console that is wide enough for the table when it is not a terminal."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=_MIN_WIDTH)
    return console


class Progress:
    """The live table; on something that is no terminal, one line per change of state."""

    def __init__(self, console: Console, rows: Sequence[Row]) -> None:
        self._console = console
        self._rows = rows
        self._told: dict[str, str] = {}
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, get_renderable=self._table, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.update()
        if self._live:
            self._live.stop()

    def update(self) -> None:
        """Call now and then from the thread that owns the screen."""
        if self._live:
            return  # it refreshes itself
        for row in self._rows:
            if self._told.get(row.agent_id) != row.state:
                self._told[row.agent_id] = row.state
                verdict = f": {row.outcome}" if row.state == "ended" else ""
                self._console.print(f"{row.agent_id:<14} {row.state}{verdict}")

    def _table(self) -> Table:
        return table(self._rows)


def table(rows: Sequence[Row]) -> Table:
    """All rows; cells that are not known yet are empty."""
    result = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("", "agent", "outcome"):
        result.add_column(name, no_wrap=True)
    for name in ("turns", "time", "first\noutput", "tokens\nin/out", "cost", "tree\nMiB", "swept"):
        result.add_column(name, justify="right", no_wrap=True)
    result.add_column("backend/tier", overflow="fold")
    for row in rows:
        result.add_row(*_cells(row))
    return result


def findings(rows: Sequence[Row]) -> list[str]:
    """Problems and notes as lines of rich markup."""
    lines = [f"[red]{row.agent_id}: {escape(text)}[/]" for row in rows for text in row.problems]
    return lines + [f"[dim]{row.agent_id}: {escape(text)}[/]" for row in rows for text in row.notes]


def _cells(row: Row) -> list[str]:
    ended = row.state == "ended"
    tokens = "" if row.input_tokens is None else f"{row.input_tokens}/{row.output_tokens or 0}"
    verdict = ""
    if ended:
        verdict = "[green]✓[/]" if row.as_expected else "[red]✗[/]"
    return [
        verdict,
        row.agent_id,
        str(row.outcome) if ended else f"[{_COLOURS.get(row.state, 'dim')}]{row.state}[/]",
        "" if row.turns is None else str(row.turns),
        _seconds(row.duration),
        _seconds(row.first_output),
        tokens,
        "" if row.cost_usd is None else f"${row.cost_usd:.3f}",
        "" if row.memory is None else f"{row.memory / 2**20:.0f}",
        "" if row.orphans_swept is None else str(row.orphans_swept),
        f"{row.backend}/{row.containment}" if row.backend else "",
    ]


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}s"
