"""A subinterpreter gets the Python backend, and can be destroyed afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fake_agents import FAKE

PROGRAM = """
import sys
try:
    import _xxsubinterpreters as interpreters
    make = lambda isolated: interpreters.create(isolated=isolated)
    run = interpreters.run_string
except ImportError:
    import _interpreters as interpreters
    make = lambda isolated: interpreters.create("isolated" if isolated else "legacy")
    run = interpreters.exec

def said(code, isolated):
    number = make(isolated)
    problem = run(number, f"import sys; sys.path[:] = {sys.path!r}\\n{code}")
    interpreters.destroy(number)
    if problem is not None:
        raise SystemExit(problem)

said(sys.argv[1], sys.argv[2] == "isolated")
import vespera_agent_spawner
print(vespera_agent_spawner.backend())
"""

TURN = f"""
import sys, warnings
warnings.simplefilter("ignore")
import vespera_agent_spawner as spawner
print(spawner.backend(), spawner.RUST_AGENT_SPAWNER_AVAILABLE)
try:
    spawner.spawn_claude_agent("inner", sys.executable, config={{"args": [{str(FAKE)!r}]}})
    print(spawner.execute_claude_json("inner", {{"prompt": "echo inside"}})["result"])
    print(spawner.shutdown_claude_agent("inner").code)
except spawner.SpawnError as error:
    print("isolated" in str(error))
sys.stdout.flush()
"""


def run(how: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, TURN, how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")


def test_a_turn_in_a_subinterpreter_runs_on_the_python_backend(backend: str) -> None:
    if backend == "python":
        pytest.skip("the same program: what it shows is which backend a subinterpreter gets")
    assert run("shared") == ["python False", "echo inside", "0", "rust", ""]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="isolation differs from 3.12 on")
def test_an_isolated_subinterpreter_is_told_what_it_cannot_do() -> None:
    assert run("isolated")[:2] == ["python False", "True"]
