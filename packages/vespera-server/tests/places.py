"""Responsible for a place in which tests run `vespera` as users do, with nothing of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["CLI", "Place", "wait_for"]

CLI = Path(__file__).with_name("session_cli.py")


class Place:
    """A directory to run in, with state of its own and nothing of the user's."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.work.mkdir()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(root / "home"),
            "VESPERA_STATE__DIRECTORY": str(root / "state"),
            "VESPERA_SUPERVISOR__MEMORY_RESERVE": "0",
            **{key: value for key, value in os.environ.items() if key == "VESPERA_BACKEND"},
        }

    def write(self, text: str, name: str = "tasks.toml") -> None:
        (self.work / name).write_text(text)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "vespera_server", "run", *arguments, "--claude", str(CLI)]

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            **more,
        )

    def vespera(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Any other command."""
        return subprocess.run(
            [sys.executable, "-m", "vespera_server", *arguments],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            **more,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.work,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def json(self, *arguments: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["exit_code"] == done.returncode
        return answer

    def databases(self) -> list[Path]:
        return sorted((self.root / "state" / "runs").glob("*/tasks.db"))


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text().strip():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.02)
