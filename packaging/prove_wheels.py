"""Responsible for the proof that the wheels work where they are installed: offline, away from here.

Twice, from compiled and from pure wheels: an empty venv, `pip install --no-index`, then
the backend is asked for its name and `vespera demo` runs, with a HOME of its own and without the
checkout on any path. Third-party wheels are downloaded before, into `dist/third-party`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "demo.txt"
PURE = "py3-none-any"
HALVES = ("vespera_agent_spawner", "vespera_file_ops")
ASK = """
import importlib, pathlib, sys
module = importlib.import_module(sys.argv[1])
home = pathlib.Path(module.__file__).resolve()
assert home.is_relative_to(pathlib.Path(sys.prefix).resolve()), f"imported from {home}"
assert module.backend() == sys.argv[2], f"{sys.argv[1]} says {module.backend()!r}"
"""


def empty_venv(folder: Path) -> Path:
    """Make a venv with pip and nothing else; returns its python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def third_party(python: Path, folder: Path) -> None:
    """Download the pinned third-party wheels, unless they are there for exactly these pins."""
    stamp = folder / "pins.txt"
    if stamp.is_file() and stamp.read_text() == PINS.read_text():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pip = [str(python), "-m", "pip", "--quiet", "download", "--require-hashes"]
    subprocess.run([*pip, f"--requirement={PINS}", f"--dest={folder}"], check=True)
    stamp.write_text(PINS.read_text())


def chosen(dist: Path, kind: str) -> list[Path]:
    """Our wheels of the kind; vespera-server has only a pure one, which belongs to both."""
    wheels = sorted(dist.glob("vespera*.whl"))
    if kind == "python":
        return [wheel for wheel in wheels if PURE in wheel.name]
    return wheels


def environment(scratch: Path, python: Path) -> dict[str, str]:
    """Nothing of the caller's but PATH, so that only the venv can provide a module."""
    home = scratch / "home"
    home.mkdir()
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    return {"HOME": str(home), "PATH": path, "LANG": "C.UTF-8"}


def prove(dist: Path, backend: str, scratch: Path) -> None:
    """Install our wheels and run the demo; `backend` is what `auto` must turn out to be."""
    python = empty_venv(scratch / "venv")
    third_party(python, dist / "third-party")
    links = scratch / "links"
    links.mkdir()
    for wheel in chosen(dist, backend):
        shutil.copy(wheel, links)
    pip = [str(python), "-m", "pip", "--quiet", "install", "--no-index", f"--find-links={links}"]
    env = environment(scratch, python)

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=scratch, env=env)

    for module in HALVES:
        # Without dependencies: the Python halves need nothing but the standard library.
        run(*pip, "--no-deps", module.replace("_", "-"))
        run(str(python), "-W", "ignore", "-c", ASK, module, backend)
    run(*pip, f"--find-links={dist / 'third-party'}", "vespera-server[demo]")
    run(str(python.parent / "vespera"), "demo")


def main() -> int:
    """Prove both kinds, or the ones named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path, help="folder with our wheels")
    parser.add_argument("--backend", choices=["rust", "python"], action="append")
    arguments = parser.parse_args()
    for backend in arguments.backend or ["rust", "python"]:
        print(f"==> wheels of the {backend} backend in an empty venv, offline", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            prove(arguments.dist.resolve(), backend, Path(scratch).resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
