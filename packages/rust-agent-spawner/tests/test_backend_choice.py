"""Which backend is used: a missing or broken extension, a demand, a choice per call.

Each test is a host process of its own, since a process settles what `auto` is once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vespera_agent_spawner as spawner
from fake_agents import FAKE, Agents
from vespera_agent_spawner import backends

PACKAGE = Path(spawner.__file__).parent
REPORT = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import vespera_agent_spawner as spawner
    told = {"flag": spawner.RUST_AGENT_SPAWNER_AVAILABLE, "backend": spawner.backend()}
    told["quiet_import"] = not seen
    config = {"args": [sys.argv[1]]}
    for name in ("a", "b"):
        spawner.spawn_claude_agent(name, sys.executable, config=config)
    told["turn"] = spawner.execute_claude_json("a", {"prompt": "echo hi"})["backend"]
    told["list"] = [info.backend for info in spawner.list_agents()]
    told["status"] = spawner.agent_status("a").backend
    told["containment"] = [spawner.containment(), spawner.agent_status("a").containment]
    told["exit"] = [spawner.shutdown_claude_agent(name).code for name in ("a", "b")]
told["warnings"] = [str(warning.message) for warning in seen]
print(json.dumps(told))
"""
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name == "vespera_agent_spawner._native":
            raise ImportError("built for another machine")
sys.meta_path.insert(0, Block())
"""


def host(
    code: str, *, path: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a host program; `path` goes before everything that is installed."""
    environment = {key: value for key, value in os.environ.items() if key != "VESPERA_BACKEND"}
    if path is not None:
        code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code, str(FAKE)],
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(params=["missing", "broken", "refused"])
def no_extension(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path | None]:
    """Code to run first and a folder to import from, so that the extension does not load."""
    if request.param == "refused":
        return BLOCK, None
    copy = tmp_path / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    if request.param == "broken":
        (copy / "_native.abi3.so").write_bytes(b"\x7fELF and then nothing")
    return "", tmp_path


def test_without_the_extension_everything_says_python_and_one_warning_why(
    no_extension: tuple[str, Path | None],
) -> None:
    before, path = no_extension
    answer = told(host(before + REPORT, path=path))
    [warning] = answer.pop("warnings")
    assert "'pgroup'" in warning
    assert "VESPERA_BACKEND=python" in warning
    assert answer == {
        "flag": False,
        "backend": "python",
        "quiet_import": True,
        "turn": "python",
        "list": ["python", "python"],
        "status": "python",
        "containment": ["pgroup", "pgroup"],
        "exit": [0, 0],
    }


def test_a_demand_that_cannot_be_met_raises_with_its_cause(
    no_extension: tuple[str, Path | None],
) -> None:
    before, path = no_extension
    code = """
import vespera_agent_spawner as spawner
try:
    spawner.spawn_claude_agent("a")
except spawner.ConfigError as error:
    print(__import__("json").dumps({
        "flag": spawner.RUST_AGENT_SPAWNER_AVAILABLE, "field": error.field, "value": error.value,
        "code": error.code, "cause": isinstance(error.__cause__, ImportError),
        "said": str(error.__cause__) in str(error), "remedy": bool(error.remedy)}))
"""
    answer = told(host(before + code, path=path, VESPERA_BACKEND="rust"))
    assert answer == {
        "flag": False,
        "field": "VESPERA_BACKEND",
        "value": "rust",
        "code": "backend_unavailable",
        "cause": True,
        "said": True,
        "remedy": True,
    }


def test_asking_for_python_warns_of_nothing(no_extension: tuple[str, Path | None]) -> None:
    before, path = no_extension
    answer = told(host(before + REPORT, path=path, VESPERA_BACKEND="python"))
    assert answer["warnings"] == []
    assert answer["turn"] == "python"


def test_the_variable_sets_what_auto_is(backend: str) -> None:
    answer = told(host(REPORT, VESPERA_BACKEND=backend))
    assert answer["flag"] is (backend == "rust")
    assert answer["list"] == [backend, backend]
    assert (answer["backend"], answer["turn"], answer["status"]) == (backend,) * 3
    assert answer["warnings"] == []
    assert ("pgroup" in answer["containment"]) is (backend == "python")


def test_an_unknown_name_in_the_variable_is_named(tmp_path: Path) -> None:
    done = host("import vespera_agent_spawner as s; s.backend()", VESPERA_BACKEND="cobol")
    assert done.returncode == 1
    assert "VESPERA_BACKEND: 'cobol' is no backend" in done.stderr


@pytest.mark.native
def test_both_backends_live_in_one_process(agents: Agents) -> None:
    mine = agents.spawn()
    agents.backend = other = {"rust": "python", "python": "rust"}[first := agents.backend]
    if backends.rust_problem():
        pytest.skip("one backend here")
    theirs = agents.spawn()
    assert agents.say(mine, "echo a")["backend"] == first
    assert agents.say(theirs, "echo b")["backend"] == other
    assert spawner.agent_status(mine).backend == first
    assert spawner.agent_status(theirs).backend == other
