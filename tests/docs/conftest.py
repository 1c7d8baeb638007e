"""Surroundings of pages that are carried out: wheels instead of an index, a model on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from vespera_agent_spawner.adapters.locate import find_program
from vespera_agent_spawner.errors import AgentError
from vespera_server.demo.surroundings import Surroundings
from vespera_server.scripted_model import Reply, Script, ScriptedModel, Text

ROOT = Path(__file__).resolve().parents[2]
# The root chooses the import mode "importlib", in which tests cannot import their neighbours.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install vespera-server` would find on an index, built from these sources."""
    folder = tmp_path_factory.mktemp("wheels")
    pure = ROOT / "packaging/pure_wheel.py"
    commands = [
        [sys.executable, *map(str, (pure, ROOT / "packages" / name, folder))]
        for name in ("rust-agent-spawner", "rust-file-ops")
    ]
    server = ROOT / "packages/vespera-server"
    commands.append([sys.executable, "-m", "build", "-nw", f"--outdir={folder}", str(server)])
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this interpreter has installed, without our own packages: pip finds it satisfied."""
    folder = tmp_path_factory.mktemp("dependencies")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "vespera" not in entry.name and not entry.name.startswith(("pip", "__")):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="session")
def offline(wheels: Path, dependencies: Path) -> dict[str, str]:
    """Variables with which pip takes our wheels, and their dependencies from this interpreter."""
    return {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONPATH": str(dependencies),
    }


@pytest.fixture
def user(tmp_path: Path, offline: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment of somebody who reads the docs: a CLI, an account (scripted), a home."""
    try:
        program = find_program(os.environ.get("VESPERA_TEST_CLAUDE"), os.environ)
    except AgentError as error:
        if os.environ.get("VESPERA_REQUIRE_CLAUDE") == "1":
            raise
        pytest.skip(f"needs the real Claude CLI: {error}")
    root = tmp_path / "u"
    root.mkdir()
    place = Surroundings.create(root)
    programs = root / "bin"
    programs.mkdir()
    (programs / "claude").symlink_to(program)
    with ScriptedModel({"default": Script(then=Reply(Text("done")))}) as model:
        environment = place.environment(model.base_url)
        own = Path(sys.executable).parent
        yield {
            **environment,
            **offline,
            "PATH": os.pathsep.join([str(own), str(programs), environment["PATH"]]),
            "XDG_STATE_HOME": str(root / "state"),
            **{key: value for key, value in os.environ.items() if key == "VESPERA_BACKEND"},
        }
