"""Responsible for an empty venv around `prove_installed.py`: the wheel, its test tools, no more.

`python packaging/prove_in_venv.py packages/NAME DIST`, once with the compiled and once with the
pure wheel of DIST.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "requirements" / "installed.txt"
PROVE = ROOT / "packaging" / "prove_installed.py"
KINDS = {"rust": "*-abi3-*.whl", "python": "*-py3-none-any.whl"}


def prove(package: Path, wheel: Path, backend: str, scratch: Path) -> None:
    """Install the wheel and run the suite's installed part; raises CalledProcessError."""
    venv.create(scratch, with_pip=True)
    python = str(scratch / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", f"--requirement={TOOLS}"], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    # A compiled wheel whose extension does not load must fail, not fall back.
    needed = {"VESPERA_REQUIRE_RUST": "1"} if backend == "rust" else {"VESPERA_BACKEND": "python"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VESPERA_")} | needed
    subprocess.run([python, str(PROVE), str(package)], check=True, env=environment, cwd=scratch)


def main() -> int:
    """Prove both kinds of wheel of the package that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="folder of a Rust package in the checkout")
    parser.add_argument("dist", type=Path, help="folder with its wheels")
    arguments = parser.parse_args()
    package = arguments.package.resolve()
    name = package.name.removeprefix("rust-").replace("-", "_")
    for backend, kind in KINDS.items():
        wheels = sorted(arguments.dist.resolve().glob(f"vespera_{name}{kind}"))
        if len(wheels) != 1:
            parser.error(f"expected one vespera_{name}{kind} in {arguments.dist}, found {wheels}")
        print(f"==> {wheels[0].name} in an empty venv", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            prove(package, wheels[0], backend, Path(scratch).resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
