"""One suite over both backends: `ops` is each of them in turn, `[rust]` and `[python]`.

Without the extension the Rust half is skipped; `VESPERA_REQUIRE_RUST=1` makes that a failure, so
that CI cannot pass by not building.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(params=["rust", "python"])
def ops(request: pytest.FixtureRequest) -> ModuleType:
    """The module of one backend."""
    try:
        return importlib.import_module(f"vespera_file_ops.backends.{request.param}")
    except ImportError as error:
        if os.environ.get("VESPERA_REQUIRE_RUST") == "1":
            raise
        pytest.skip(f"the Rust extension is not built: {error}")


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[None]:
    """Users who are not root reach `tmp_path`, wherever it is, for the length of a test."""
    modes = {parent: parent.stat().st_mode for parent in tmp_path.parents}
    closed = {parent: mode for parent, mode in modes.items() if mode & 0o111 != 0o111}
    for parent, mode in closed.items():
        parent.chmod(mode | 0o111)
    yield
    for parent, mode in closed.items():
        parent.chmod(mode)


@pytest.fixture(scope="session")
def tracer() -> None:
    """``strace``, and the right to trace."""
    command = ["strace", "-o", os.devnull, "true"]
    if (
        shutil.which("strace") is None
        or subprocess.run(command, capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("needs strace and the right to trace")
