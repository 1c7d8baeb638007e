"""Responsible for a map that is true: its places exist, its snippets and commands run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from vespera_server.scripted_model import Reply, Script, ScriptedModel, Text

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / "docs" / "architecture-map.md"
TEXT = MAP.read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<item>.+?) \| (?P<state>[a-z ]+) \| (?P<where>.+) \|$", re.MULTILINE)
PLACE = re.compile(r"`((?:packages|crates|docs|tests|benchmarks|\.github)/[^` ]+|\.ci/run)`")
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)[-1].splitlines()


def rows() -> list[re.Match[str]]:
    return [row for row in ROW.finditer(TEXT) if row["state"] != "state"]


def test_every_row_has_one_of_three_states() -> None:
    assert len(rows()) > 60
    for row in rows():
        assert row["state"] in {"here", "replaced", "not yet"}, row["item"]


def test_every_place_named_exists() -> None:
    missing = {
        f"{row['item']}: {place}"
        for row in rows()
        for place in PLACE.findall(row["where"])
        if not (ROOT / place).exists()
    }
    assert not missing


def claude() -> Path:
    """The CLI that the SDK's wheel carries."""
    spec = find_spec("claude_agent_sdk")
    assert spec, "claude-agent-sdk is not installed"
    assert spec.origin
    return Path(spec.origin).parent / "_bundled" / "claude"


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which `claude` is the real CLI and its model a script on loopback."""
    home, tools = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    tools.mkdir()
    (tools / "claude").symlink_to(claude())
    with ScriptedModel({"default": Script(Reply(Text("hello")))}) as model:
        yield {
            "HOME": str(home),
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "ANTHROPIC_BASE_URL": model.base_url,
            "ANTHROPIC_API_KEY": "any",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            **{key: value for key, value in os.environ.items() if key == "VESPERA_BACKEND"},
        }


@pytest.mark.claude
@pytest.mark.parametrize("number", range(1, len(SNIPPETS) + 1))
def test_snippet_runs(number: int, scripted: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(SNIPPETS[number - 1])
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=scripted, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def checkout(folder: Path) -> Path:
    """A copy of the sources: the commands write into the tree that they are run in."""
    folder.mkdir()
    for name in ("Cargo.toml", "Cargo.lock", "chaos", "crates", "packages"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source,
                folder / name,
                ignore=shutil.ignore_patterns("*.so", "__pycache__", "target"),
            )
        elif source.exists():
            shutil.copy(source, folder / name)
    # Registry crates stay compiled between runs; the wheels of an earlier run must not.
    target = ROOT / "target" / "documented-commands"
    shutil.rmtree(target / "wheels", ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    (folder / "target").symlink_to(target)
    return folder


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif("VESPERA_REQUIRE_RUST" not in os.environ, reason="runs with a Rust toolchain")
def test_the_four_development_commands_run(tmp_path: Path) -> None:
    assert len(COMMANDS) == 5, "one cd and four commands"
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True)
    shutil.copy(shutil.which("maturin") or "", environment / "bin" / "maturin")
    env = {key: value for key, value in os.environ.items() if not key.startswith("CARGO_TARGET")}
    env |= {
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(environment),
        "MATURIN_NO_INSTALL_RUST": "1",
    }
    folder = checkout(tmp_path / "checkout")
    script = "set -eu\n" + "\n".join(COMMANDS)
    done = subprocess.run(
        ["sh", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "module loaded rust" in done.stdout
