"""One suite over both backends: `ops` is each of them in turn, `[rust]` and `[python]`.

Without the extension the Rust half is skipped; `VESPERA_REQUIRE_RUST=1` makes that a failure, so
that CI cannot pass by not building.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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


INTERRUPTED = """
import importlib, os, signal, sys, threading, time
ops, args = importlib.import_module(sys.argv[1]), sys.argv[3:]
signal.signal(signal.SIGINT, signal.default_int_handler)
sent = []

def interrupt():
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)

# Called, not evaluated: after a Ctrl-C in eval() the interpreter ends as one that was killed.
work = eval("lambda: " + sys.argv[2])
threading.Timer(0.3, interrupt).start()
try:
    work()
    print("was not interrupted")
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
"""


@pytest.fixture
def goes_on(ops: ModuleType) -> Callable[..., float]:
    """For how many seconds one long call, an expression of `ops` and `args`, goes on after Ctrl-C.

    It is one call: between short ones the interpreter itself would see the signal.
    """

    def measured(work: str, *args: str, under: Sequence[str] = ()) -> float:
        command = [*under, sys.executable, "-c", INTERRUPTED, ops.__name__, work, *args]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        return float(done.stdout)

    return measured
