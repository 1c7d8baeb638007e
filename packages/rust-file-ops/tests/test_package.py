"""The package itself: backend choice, identical signatures, errors that travel."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

import vespera_file_ops
from vespera_file_ops import api, errors
from vespera_file_ops.backends import python as python_backend
from vespera_file_ops.backends._protocol import FileOps

KEPT = [name for name in vars(FileOps) if not name.startswith("_")]

# A finder that refuses the extension, as an empty or a broken installation would.
WITHOUT_EXTENSION = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "vespera_file_ops._native":
            raise ImportError("the extension is broken")
sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *, backend: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "VESPERA_BACKEND"}
    if backend is not None:
        environment["VESPERA_BACKEND"] = backend
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


def test_the_signatures_are_identical(ops: ModuleType) -> None:
    assert sorted(KEPT) == sorted(python_backend.__all__)
    for name in KEPT:
        if name == "Workspace":
            # A class in the backends and a function of the module: only the arguments are one.
            arguments = inspect.signature(ops.Workspace).parameters
            assert arguments == inspect.signature(api.Workspace).parameters
            continue
        signature = inspect.signature(getattr(ops, name))
        assert signature == inspect.signature(getattr(python_backend, name)), name
        assert signature == inspect.signature(getattr(api, name)), name


def test_everything_public_is_exported_and_documented() -> None:
    for name in KEPT:
        function = getattr(vespera_file_ops, name)
        assert name in vespera_file_ops.__all__
        assert function.__doc__
    for name in errors.__all__:
        assert getattr(vespera_file_ops, name) is getattr(errors, name)
        assert getattr(errors, name).__doc__


def test_the_flag_follows_the_backend() -> None:
    assert (vespera_file_ops.backend() == "rust") is vespera_file_ops.RUST_FILE_OPS_AVAILABLE


SHOW = (
    "import vespera_file_ops as v; print(v.backend(), v.RUST_FILE_OPS_AVAILABLE, v.get_file_info)"
)


def test_the_environment_chooses(ops: ModuleType) -> None:
    name = ops.__name__.rpartition(".")[2]
    done = run(SHOW, backend=name)
    assert done.stdout.startswith(f"{name} {name == 'rust'} "), done.stderr
    assert done.stderr == ""


def test_an_unknown_choice_names_the_known_ones() -> None:
    done = run(SHOW, backend="fast")
    assert "VESPERA_BACKEND is 'fast'; use 'auto', 'rust' or 'python', or unset it" in done.stderr


def test_without_the_extension_there_is_one_warning_and_python() -> None:
    for backend in (None, "auto", ""):
        done = run(WITHOUT_EXTENSION + SHOW, backend=backend)
        assert done.stdout.startswith("python False "), done.stderr
        assert done.stderr.count("Warning:") == 1
        assert "the extension is broken" in done.stderr
    quiet = run(WITHOUT_EXTENSION + SHOW, backend="python")
    assert (quiet.stdout.split()[0], quiet.stderr) == ("python", "")


def test_rust_demanded_and_missing_raises_with_the_cause() -> None:
    done = run(WITHOUT_EXTENSION + SHOW, backend="rust")
    assert done.returncode != 0
    assert "VESPERA_BACKEND=rust, but the Rust extension cannot be loaded" in done.stderr
    assert "the extension is broken" in done.stderr


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_pickle_and_copy(name: str) -> None:
    original = getattr(errors, name).from_native(
        "what went wrong", {"code": "special", "path": "/x", "offset": 3}
    )
    for twin in (pickle.loads(pickle.dumps(original)), copy.copy(original)):
        assert type(twin) is type(original)
        assert str(twin) == "what went wrong"
        assert (twin.code, twin.context) == ("special", {"path": "/x", "offset": 3})
    assert getattr(errors, name)("x").code == getattr(errors, name).default_code


def test_outside_workspace_is_a_permission_error_with_its_path() -> None:
    error = errors.OutsideWorkspace("leaves the root", context={"path": "/etc/passwd"})
    assert isinstance(error, PermissionError)
    assert error.filename == "/etc/passwd"
    assert str(error) == "leaves the root"
    assert pickle.loads(pickle.dumps(error)).filename == "/etc/passwd"


def test_other_threads_run_during_an_operation(ops: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * (64 << 20))
    ticks = 0
    reading = threading.Event()
    done = threading.Event()

    def read() -> None:
        reading.set()
        ops.read_file(path)
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait()
    while not done.is_set():
        ticks += 1
    thread.join()
    assert ticks > 100
