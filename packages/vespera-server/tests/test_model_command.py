"""`vespera model` as a user calls it, and what the commands say of themselves."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from places import Place
from vespera_server.cli import app
from vespera_server.run.serve_model import DEFAULT_ANSWER

ONE = '[[tasks]]\nid = "a"\nprompt = "x"\n'


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.environment["CLAUDE_CONFIG_DIR"] = str(tmp_path / "config")
    found.write(ONE)
    return found


@contextmanager
def serving(place: Place, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command at work, its two variables in the place's environment."""
    with subprocess.Popen(
        [sys.executable, "-m", "vespera_server", "model", *arguments],
        cwd=place.work,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            for _ in range(2):
                line = process.stdout.readline()
                found = re.fullmatch(r"export (ANTHROPIC_\w+)=(\S+)\n", line)
                assert found, line
                place.environment[found[1]] = found[2]
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_without_a_script_every_prompt_has_an_answer(number: int, place: Place) -> None:
    with serving(place) as model:
        for _ in range(2):
            answer = place.json("tasks.toml")
            assert answer["tasks"][0]["result"] == DEFAULT_ANSWER
        model.send_signal(number)
        _, said = model.communicate(timeout=30)
        assert (model.returncode, "Traceback" in said) == (0, False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_may_be_ended_as_soon_as_its_lines_are_there(number: int, place: Place) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    # Nobody reads its stderr, which is full: it comes no further than to its two lines.
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "vespera_server", "model"],
            cwd=place.work,
            env=place.environment,
            stdout=subprocess.PIPE,
            stderr=writing,
        ) as process:
            assert process.stdout is not None
            for _ in range(2):
                assert process.stdout.readline()
            process.send_signal(number)
            # At its end what it had to say is written.
            with open(reading, "rb", closefd=False) as stream:
                os.close(writing)
                said = stream.read().decode()
            assert (process.wait(30), "Traceback" in said) == (0, False)
    finally:
        os.close(reading)


def test_a_script_is_walked_by_each_conversation(place: Place) -> None:
    place.write(
        'scripted = [{ tool = "Bash", input = { command = "echo" } }, { text = "seven" }]\n',
        "s.toml",
    )
    with serving(place, "--script", "s.toml"):
        assert [place.json("tasks.toml")["tasks"][0]["result"] for _ in range(2)] == ["seven"] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--script", "nowhere.toml"), "nowhere.toml"),
        (("--script", "tasks.toml"), "tasks.toml:1: tasks: there is no such field"),
        (("--script", "both.toml"), "give exactly one of text, tool and fail"),
    ],
)
def test_a_script_that_is_none_is_exit_code_2(
    arguments: tuple[str, ...], words: str, place: Place
) -> None:
    place.write('scripted = [{ text = "x", fail = 400 }]', "both.toml")
    done = place.vespera("model", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "Value error" not in done.stderr


def test_a_port_that_is_taken_is_exit_code_2(place: Place) -> None:
    with serving(place):
        port = place.environment["ANTHROPIC_BASE_URL"].rpartition(":")[2]
        done = place.vespera("model", "--port", port)
    assert done.returncode == 2
    assert f"--port {port}: Address already in use" in done.stderr


def test_help_is_wrapped_by_the_terminal_alone() -> None:
    texts = [command.help or "" for command in app.registered_commands]
    assert all(texts)
    assert not [text for text in texts if "\n" in text.replace("\n\n", "")]
