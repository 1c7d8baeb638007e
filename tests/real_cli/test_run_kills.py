"""The short form of chaos/run_kills.py: `vespera run` killed at random moments and resumed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vespera_agent_spawner as spawner

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cli", ["fake", pytest.param("real", marks=pytest.mark.claude)])
def test_a_killed_batch_ends_once_and_leaves_nothing(cli: str) -> None:
    if not spawner.RUST_AGENT_SPAWNER_AVAILABLE:
        pytest.skip("the Python backend does not promise to leave nothing")
    more = ["--real"] if cli == "real" else []
    command = [sys.executable, str(ROOT / "chaos/run_kills.py"), "--kills", "4", "--smoke", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
