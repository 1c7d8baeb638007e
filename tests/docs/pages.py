"""Responsible for a page of documentation as something that can be carried out, from the top down.

    ```toml tasks.toml      a block with a file's name is written to that file
    ```console              lines with `$ ` are commands of one shell, the others their output:
                            `…` stands for any text, on a line of its own for any lines
    ```python               is run
    ```yaml NAME.yml        a workflow: written, and its `run` steps are carried out

Blocks in other languages (`sh`) need what no test machine has, and are not run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

__all__ = ["Block", "Page"]

_BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_EXPRESSION = re.compile(r"\$\{\{ github\.\w+ \}\}")
_ANY = "…"
_SECONDS = 600


@dataclass(frozen=True)
class Block:
    """One fenced block. ``line`` is where it begins on its page."""

    language: str
    name: str | None
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """A Markdown page."""

    path: Path

    @property
    def blocks(self) -> Iterator[Block]:
        """All blocks, in order."""
        text = self.path.read_text("utf-8")
        for found in _BLOCK.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(found[1], found[2], found[3], line)

    def carry_out(self, directory: Path, environment: Mapping[str, str]) -> int:
        """Do what the page says in ``directory``; returns how many blocks were carried out."""
        done = 0
        for block in self.blocks:
            where = f"{self.path.name}:{block.line}"
            if block.name is not None:
                target = directory / block.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text)
                if block.language == "yaml":
                    _run_workflow(where, block.text, directory, environment)
            elif block.language == "console":
                _run_console(where, block.text, directory, environment)
            elif block.language == "python":
                _run([sys.executable, "-c", block.text], where, directory, environment)
            else:
                continue
            done += 1
        return done


def _run(
    command: list[str], where: str, directory: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{where}: exit code {done.returncode}\n{done.stdout}"
    return done


def _run_workflow(where: str, text: str, directory: Path, environment: Mapping[str, str]) -> None:
    for job in yaml.safe_load(text)["jobs"].values():
        # Secrets are the reader's own account, which the environment has already.
        given = {k: v for k, v in job.get("env", {}).items() if "secrets." not in v}
        own = {name: _EXPRESSION.sub("feature", value) for name, value in given.items()}
        for step in job["steps"]:
            if "run" in step:
                script = ["bash", "-ec", step["run"]]
                _run(script, f"{where}: {step['run']}", directory, {**environment, **own})


def _run_console(where: str, text: str, directory: Path, environment: Mapping[str, str]) -> None:
    mark = f"mark-{uuid.uuid4().hex}"
    script, expected = [], []
    for line in text.splitlines():
        if line.startswith("$ "):
            script += [line[2:], f"echo {mark}-$?"]
            expected.append((line[2:], list[str]()))
        else:
            expected[-1][1].append(line)
    answer = _run(["bash", "-c", "\n".join(script)], where, directory, environment).stdout
    parts = re.split(rf"{mark}-(\d+)\n", answer)
    for number, (command, lines) in enumerate(expected):
        output, code = parts[2 * number], int(parts[2 * number + 1])
        killed = "kill -9" in command or command.startswith("wait")
        assert code == 0 or killed, f"{where}: {command}: exit code {code}\n{output}"
        if lines:
            assert _matches(lines, output), f"{where}: {command}\nexpected {lines}\ngot {output}"


def _matches(expected: list[str], output: str) -> bool:
    """Whether the output is as shown; what a killed job says about itself does not count."""
    pattern = ""
    for line in expected:
        if line == _ANY:
            pattern += r"(?:.*\n)*"
        else:
            pattern += ".*".join(map(re.escape, line.split(_ANY))) + r"\n"
    said = [line for line in output.splitlines(keepends=True) if "Killed" not in line]
    return re.fullmatch(pattern, "".join(said)) is not None


def path_of(environment: Mapping[str, str], *first: Path) -> str:
    """A PATH that begins with some directories."""
    return os.pathsep.join([*map(str, first), environment.get("PATH", os.defpath)])
