"""What is seen of a run: a live table on a terminal, one line for each thing elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from vespera_server.redaction import Redactor
from vespera_server.run.account import account_in
from vespera_server.run.report import exit_code
from vespera_server.run.rows import Board
from vespera_server.run.screen import Screen
from vespera_server.tasks import Claim, Ending, Start, Summary, TaskNews, TaskQueue, TaskSpec


def claim(task_id: str, attempts: int = 1) -> Claim:
    config = {"model": "haiku", "prompt": "x"}
    return Claim(task_id, config, "session", Start.STARTED, attempts, "token", 0.0)


@pytest.fixture
def board(tmp_path: Path) -> Board:
    with TaskQueue(tmp_path / "tasks.db") as queue:
        queue.add([TaskSpec("a"), TaskSpec("[b]")])
        return Board(queue, scripted=False)


def shown(board: Board, *, terminal: bool) -> str:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, height=30, highlight=False)
    with Screen(console, board, Redactor()) as screen:
        for news in (
            TaskNews("started", claim("a")),
            TaskNews("restarted", claim("[b]", 2)),
            TaskNews("ended", claim("a"), "completed", None, 0.25, 3.0),
            TaskNews(
                "ended",
                claim("[b]", 2),
                "failed",
                "no [bold] luck: ANTHROPIC_API_KEY=abcdefgh",
                None,
                1.0,
            ),
            TaskNews("resumed", claim("c")),
        ):
            screen.hear(news, board.hear(news))
        screen.say("a word")
    return file.getvalue()


def test_a_table_on_a_terminal(board: Board) -> None:
    text = shown(board, terminal=True)
    for words in ("task", "haiku", "[b]", "failed", "restarted (2)", "$0.250", "a word"):
        assert words in text
    assert "0 of 2 ended · 1 at work · $0.250" in text


def test_lines_elsewhere(board: Board) -> None:
    lines = shown(board, terminal=False).splitlines()
    assert lines[0] == "a: started, model haiku"
    assert lines[1] == "[b]: restarted, attempt 2, model haiku"
    assert lines[2].startswith("a: completed, ")
    assert lines[2].endswith(" s, $0.250, model haiku")
    assert lines[3].endswith("model haiku: no [bold] luck: ANTHROPIC_API_KEY=[redacted]")
    assert lines[-1] == "a word"


@pytest.mark.parametrize(
    ("ending", "counts", "signal", "code"),
    [
        (Ending.DONE, {"completed": 2}, None, 0),
        (Ending.DONE, {}, None, 0),
        (Ending.DONE, {"completed": 2, "failed": 1}, None, 1),
        (Ending.STOPPED, {"completed": 2}, 2, 0),
        (Ending.STOPPED, {"completed": 2, "pending": 1}, 2, 130),
        (Ending.STOPPED, {"running": 1}, 15, 143),
        (Ending.STOPPED, {"running": 1}, None, 2),
        (Ending.BUDGET, {"pending": 1}, None, 3),
        (Ending.AUTH_FAILED, {"pending": 1}, None, 4),
    ],
)
def test_exit_codes(ending: Ending, counts: dict[str, int], signal: int | None, code: int) -> None:
    assert exit_code(Summary(ending, counts, 0.0), signal) == code


def test_the_account_is_named_never_its_key(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert account_in(home) == "the CLI's own login, if there is one"
    (tmp_path / ".claude.json").write_text('{"oauthAccount": {"emailAddress": "a@example.org"}}')
    assert account_in(home) == "your login a@example.org"
    assert account_in({**home, "ANTHROPIC_API_KEY": "s"}) == "your key in ANTHROPIC_API_KEY"
    cloud = account_in({**home, "CLAUDE_CODE_USE_VERTEX": "1", "ANTHROPIC_API_KEY": "s"})
    assert cloud == "your Google Vertex account (CLAUDE_CODE_USE_VERTEX)"
