"""The demo's parts that need no CLI: tasks, surroundings, the look from outside, the table."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vespera_server.demo import processes
from vespera_server.demo.project import BUG, FIX, write_project
from vespera_server.demo.rows import Row
from vespera_server.demo.screen import console_for, findings, table
from vespera_server.demo.surroundings import Surroundings
from vespera_server.demo.tasks import TASKS, tasks_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def run_tests(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unittest"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60)


def test_the_project_has_exactly_the_bug_that_the_edit_agent_fixes(tmp_path: Path) -> None:
    project = tmp_path / "copy"
    write_project(project)
    assert "failures=1" in run_tests(project).stderr
    code = project / "inventory.py"
    code.write_text(code.read_text().replace(BUG, FIX))
    done = run_tests(project)
    assert (done.returncode, "OK" in done.stderr) == (0, True)


def test_agents_beyond_the_tasks_begin_again_with_ids_of_their_own() -> None:
    chosen = tasks_for(8)
    assert [agent_id for agent_id, _ in chosen][-2:] == ["edit-2", "test-2"]
    assert len({agent_id for agent_id, _ in chosen}) == 8
    assert sum(task.fails for task in TASKS) == sum(task.leaves_process for task in TASKS) == 1


def test_nothing_of_the_users_environment_gets_in_but_path_and_locale(tmp_path: Path) -> None:
    place = Surroundings.create(tmp_path)
    host = {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "HOME": "/nowhere/home",
        "HTTPS_PROXY": "http://dead",
        "ANTHROPIC_API_KEY": "sk-real",
        "CLAUDECODE": "1",
    }
    environment = place.environment("http://127.0.0.1:1", host)
    assert environment["PATH"].startswith("/bin" + os.pathsep)
    assert environment["HOME"] == str(tmp_path / "home")
    assert environment["NO_PROXY"] == environment["no_proxy"]
    assert "127.0.0.1" in environment["NO_PROXY"]
    assert environment["ANTHROPIC_API_KEY"] != "sk-real"
    assert not {"HTTPS_PROXY", "CLAUDECODE"} & set(environment)


@linux
def test_processes_are_found_by_their_directory_and_ended(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    with (
        subprocess.Popen(["sleep", "60"], cwd=inside, start_new_session=True) as found,
        subprocess.Popen(["sleep", "60"], cwd=outside) as other,
    ):
        try:
            assert {p.pid for p in processes.processes_in(inside)} == {found.pid}
            assert processes.end_processes_in(inside) == 1
            assert found.wait(10) == -9
            assert processes.processes_in(inside) == set()
            assert other.poll() is None
        finally:
            found.kill()
            other.kill()


@linux
def test_tree_memory_counts_the_descendants() -> None:
    alone = processes.tree_memory(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        together = processes.tree_memory(os.getpid())
        child.communicate(b"\n")
    assert alone is not None
    assert together is not None
    assert together > alone
    assert processes.tree_memory(child.pid) is None


def test_the_table_shows_what_is_known_and_the_problems_in_words() -> None:
    good = Row(
        "edit-1", TASKS[0], state="ended", outcome="completed", cost_usd=0.0123, memory=2**21
    )
    bad = Row("fail-1", TASKS[3], state="ended", outcome="completed", problems=["[odd] text"])
    console = console_for()
    with console.capture() as captured:
        console.print(table([good, bad]))
        for line in findings([good, bad]):
            console.print(line)
    shown = captured.get()
    assert "$0.012" in shown
    assert [line.split()[0] for line in shown.splitlines()[2:4]] == ["✓", "✗"]
    assert "fail-1: [odd] text" in shown
    assert (good.as_expected, bad.as_expected) == (True, False)
