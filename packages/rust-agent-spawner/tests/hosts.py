"""Responsible for host programs of their own: what a signal, a fork or an exit does to a process.

A host speaks to its test in JSON lines on stdout, so that the test waits for news, never for time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import pytest

from fake_agents import FAKE, Agents, eventually, traced

__all__ = ["PREAMBLE", "Host", "unshared"]

PREAMBLE = """
import json, os, signal, sys, threading, time, warnings
import vespera_agent_spawner as spawner

# A suite that a shell runs in the background has it ignored, and so have its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

BACKEND, FAKE, TRACE = sys.argv[1:4]

def spawn(name, how="", **config):
    return spawner.spawn_claude_agent(name, sys.executable, config={
        "args": [FAKE], "environment": {"FAKE_CLAUDE": how, "FAKE_TRACE": TRACE},
        "timeouts": {"startup": 20}, **config}, backend=BACKEND)

def say(name, prompt, **fields):
    return spawner.execute_claude_json(name, {"prompt": prompt, **fields})

def tell(**news):
    print(json.dumps(news), flush=True)
"""


class Host:
    """A Python program that uses the package; killed at the end of the ``with`` if still there."""

    def __init__(
        self, backend: str, trace: str, code: str, folder: Path, *, stdin: int | None = None
    ) -> None:
        script = folder / "host.py"
        script.write_text(PREAMBLE + code)
        self.process = subprocess.Popen(
            [sys.executable, str(script), backend, str(FAKE), trace],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "VESPERA_BACKEND"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def news(self) -> dict[str, Any]:
        """The next line that the host tells."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the host told nothing: {self.process.communicate()[1]}")
        told: dict[str, Any] = json.loads(line)
        return told

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ends(self, within: float = 30) -> str:
        """Wait for a clean end; returns what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=within)
        assert self.process.returncode == 0, errors
        return errors


def unshared(agents: Agents, folder: Path, before: str, code: str, *options: str) -> str:
    """Run a host under unshare(1); what it printed."""
    script = folder / "host.py"
    script.write_text(PREAMBLE + code)
    host = [sys.executable, str(script), agents.backend, str(FAKE), agents.trace]
    done = subprocess.run(
        ["unshare", *options, "sh", "-c", f'{before} exec "$@"', "-", *host],
        capture_output=True,
        text=True,
        timeout=90,
        env={**os.environ, "VESPERA_TEST": "1"},
    )
    if "unshare failed" in done.stderr or "cannot change root" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: not traced(agents.trace))
    return done.stdout
