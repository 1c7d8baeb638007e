"""State on disk: closed to others, bounded by age and size, the oldest ended first."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from vespera_agent_spawner.errors import ConfigError
from vespera_server.state import StateDirectory, collect
from vespera_server.state.directory import DATABASE
from vespera_server.tasks import TaskQueue, TaskSpec

DAY = 86400.0


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(tmp_path / "state")


def make(state: StateDirectory, label: str, *, days: float = 0, ended: bool = True) -> Path:
    """A run with one task and a megabyte of transcript, so many days old."""
    path = state.new_run(label)
    with TaskQueue(path / DATABASE) as queue:
        queue.add([TaskSpec("a")])
        if ended:
            claim = queue.claim()
            assert claim is not None
            queue.finish(claim, "completed")
    (path / "transcripts").mkdir()
    (path / "transcripts" / "a").write_bytes(os.urandom(1 << 20))
    when = time.time() - days * DAY
    for file in [*path.rglob("*"), path]:
        os.utime(file, (when, when))
    return path


def labels(state: StateDirectory) -> set[str]:
    return {run.name.split("-")[1] for run in state.list_runs()}


def test_a_new_run_is_closed_to_others(state: StateDirectory) -> None:
    state.root.mkdir(mode=0o755)
    path = state.new_run("a label / with ü")
    assert path.name.split("-")[1] == "a"
    for directory in (state.root, state.runs, path):
        assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_somebody_elses_directory_is_refused(state: StateDirectory) -> None:
    state.root.mkdir()
    os.chown(state.root, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"):
        state.new_run("a")


def test_too_old_goes_whatever_it_is(state: StateDirectory) -> None:
    make(state, "old", days=31)
    make(state, "left", days=31, ended=False)
    make(state, "young", days=29, ended=False)
    told = collect(state, dry_run=True)
    assert {gone.why for gone in told.removed} == {"age"}
    assert labels(state) == {"old", "left", "young"}
    collect(state)
    assert labels(state) == {"young"}


def test_over_the_size_the_oldest_ended_go_first(state: StateDirectory) -> None:
    make(state, "left", days=9, ended=False)
    for days in (3, 2, 1):
        make(state, f"n{days}", days=days)
    kept = collect(state, max_size=int(2.9 * (1 << 20)))
    assert labels(state) == {"left", "n1"}
    assert [gone.why for gone in kept.removed] == ["size", "size"]
    assert kept.over == 0
    kept = collect(state, max_size=1 << 20)
    assert labels(state) == {"left"}
    assert kept.over > 0


def test_a_run_at_work_is_never_removed(state: StateDirectory) -> None:
    path = make(state, "busy", days=99, ended=False)
    with TaskQueue(path / DATABASE) as queue:
        assert queue.claim() is not None
        os.utime(path / DATABASE, (0, 0))
        (run,) = state.list_runs()
        assert (run.alive, run.has_ended) == (True, False)
        assert not state.remove(run)
        collect(state, max_age=1.0, max_size=1)
        assert labels(state) == {"busy"}
    collect(state, max_age=1.0, now=time.time() + DAY)
    assert labels(state) == set()


def test_a_removal_that_was_cut_off_is_finished(state: StateDirectory) -> None:
    path = make(state, "half")
    path.rename(state.runs / f".removing-{path.name}")
    collect(state)
    assert list(state.runs.iterdir()) == []


def test_what_is_no_run_is_left_alone(state: StateDirectory) -> None:
    assert state.list_runs() == []
    path = state.new_run("empty")
    (run,) = state.list_runs()
    assert (run.path, run.has_ended, run.size) == (path, True, 0)
