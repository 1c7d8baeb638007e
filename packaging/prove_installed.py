"""Responsible for the proof that an installed wheel does what its suite says, away from the
checkout.

`python packaging/prove_installed.py packages/NAME`, in an environment that has the wheel, pytest,
pytest-timeout and hypothesis. The tests are copied out, so that only the installed package can be
what they import. cibuildwheel runs this for every wheel, `nox -s wheels` for those made here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# What the log of a wheel has to show, and that it is the installed one.
SHOW = """
import importlib, pathlib, platform, sys
module = importlib.import_module(sys.argv[1])
home = pathlib.Path(module.__file__).resolve()
assert home.is_relative_to(pathlib.Path(sys.prefix).resolve()), f"imported from {home}"
tier = f", containment() = {module.containment()!r}" if hasattr(module, "containment") else ""
print(f"{sys.argv[1]} {module.__version__} on {platform.python_implementation()} "
      f"{sys.version.split()[0]}, {platform.platform()}: backend() = {module.backend()!r}{tier}")
"""
# The suite's installed part: what needs neither the checkout nor anything beside the wheel.
SUITES = {
    "rust-agent-spawner": (
        "test_adapter_vectors.py",
        "test_backend_choice.py",
        "test_config_vectors.py",
        "test_conversation.py",
        "test_events.py",
        "test_kills.py",
        "test_life.py",
        "test_supervisor.py",
    ),
    "rust-file-ops": (
        "test_aio.py",
        "test_atomic_replace.py",
        "test_chunking.py",
        "test_editing.py",
        "test_gitignore.py",
        "test_globbing.py",
        "test_hashing.py",
        "test_hostile_paths.py",
        "test_lines.py",
        "test_package.py",
        "test_reading.py",
        "test_searching.py",
        "test_text.py",
        "test_walking.py",
        "test_workspace.py",
        "test_writing.py",
    ),
}
# Elsewhere nothing is claimed (docs/releasing.md), and the log shows that it can be imported.
RUNS_ON = {"rust-agent-spawner": ("linux",), "rust-file-ops": ("linux", "darwin")}
SETTINGS = """
[pytest]
addopts = -q --import-mode=importlib -p no:cacheprovider
filterwarnings = error
markers =
    claude: drives the real Claude CLI
    native: needs the compiled extension
    slow: more than 10 s
timeout = 120
"""


def module_of(package: Path) -> str:
    """Name of the import package of a Rust package's folder."""
    [init] = package.glob("python/*/__init__.py")
    return init.parent.name


def prove(package: Path, scratch: Path) -> int:
    """Copy the suite out of the checkout and run it on what is installed; pytest's exit code."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    show = [sys.executable, "-W", "ignore", "-c", SHOW, module_of(package)]
    subprocess.run(show, check=True, cwd=scratch, env=environment)
    if sys.platform not in RUNS_ON[package.name]:
        print(f"{package.name} is not claimed to work on {sys.platform}: its suite is not run")
        return 0
    # Some hosts of the suite run from its files by path, so all of the folder goes.
    skipped = shutil.ignore_patterns("__pycache__", "*.rs")
    shutil.copytree(package / "tests", scratch / "tests", ignore=skipped)
    (scratch / "pytest.ini").write_text(SETTINGS)
    files = [f"tests/{name}" for name in SUITES[package.name]]
    command = [sys.executable, "-m", "pytest", "-c", "pytest.ini", "--rootdir=.", *files]
    return subprocess.run(command, cwd=scratch, env=environment).returncode


def main() -> int:
    """Prove the package that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="folder of a Rust package in the checkout")
    package = parser.parse_args().package.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        return prove(package, Path(scratch).resolve())


if __name__ == "__main__":
    sys.exit(main())
