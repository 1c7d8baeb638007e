"""What the READMEs show runs as it stands there: the real CLI from PATH, a scripted model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import Reply, Script, ScriptedModel, Text

pytestmark = pytest.mark.claude

ROOT = Path(__file__).resolve().parent.parent.parent
SNIPPETS = [
    pytest.param(snippet, id=f"{readme}-{number}")
    for readme in (
        *("README.md", "packages/rust-agent-spawner/README.md"),
        "packages/vespera-server/README.md",
    )
    for number, snippet in enumerate(
        re.findall(r"^```python\n(.*?)^```", (ROOT / readme).read_text("utf-8"), re.M | re.S)
    )
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(
    snippet: str, claude: str, model: ScriptedModel, place: Surroundings
) -> None:
    model.add("default", Script(Reply(Text("There is one file."))))
    programs = place.root / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(claude)
    environment = place.environment(model.base_url)
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    directory = place.copy_for("reader")
    directory.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "print(" in snippet:
        assert "completed" in done.stdout
