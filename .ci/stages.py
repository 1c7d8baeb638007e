"""Responsible for the whole check of a clean clone, from nothing but Python and a Rust toolchain.

Makes `.venv` with nox, runs the sessions that a reviewer wants to see, ends with the README's own
test command, and prints the seconds of every stage. Fails at the first failing stage, or when the
whole took longer than `LIMIT_SECONDS`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOX = ".venv/bin/nox"
FIRST = ("release_check", "lint", "typecheck")
SESSIONS = ("build", "bench_smoke")
# Pages and real CLIs run with the Python backend in the last stage too.
PURE = [NOX, "-s", "test_pure", "--", "packages", "tests/repo"]
CHAOS = [NOX, "-s", "chaos", "--", "--smoke"]
SOAK = [NOX, "-s", "soak", "--", "--smoke"]
LIMIT_SECONDS = 5200.0


def readme_test_command() -> list[str]:
    """The first command of the README that runs the `test` session."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(NOX)} -s test\b.*$", text, flags=re.MULTILINE)
    if found is None:
        sys.exit(f"README.md: no line starts with `{NOX} -s test`; .ci/run must end with it")
    return shlex.split(found.group(), comments=True)


def stages() -> list[tuple[str, list[str]]]:
    """Name and command of every stage, in order."""
    pip = [".venv/bin/python", "-m", "pip", "install", "--quiet"]
    return [
        ("venv", [sys.executable, "-m", "venv", ".venv"]),
        ("nox", [*pip, "--require-hashes", "--requirement=requirements/nox.txt"]),
        *((name, [NOX, "-s", name]) for name in FIRST),
        ("test_pure", PURE),
        *((name, [NOX, "-s", name]) for name in SESSIONS),
        ("chaos", CHAOS),
        ("instructions", [NOX, "-s", "instructions"]),
        ("fuzz", [NOX, "-s", "fuzz"]),
        ("soak", SOAK),
        ("README's test command", readme_test_command()),
    ]


def main() -> int:
    """Run the stages; the exit code is that of the first stage that failed, 1 when too slow."""
    # Colours would only litter a log; a missing interpreter must never start a download.
    environment = {**os.environ, "NO_COLOR": "1", "NOX_DOWNLOAD_PYTHON": "never"}
    seconds: dict[str, float] = {}
    code = 0
    for name, command in stages():
        print(f"\n==> {name}: {shlex.join(command)}", flush=True)
        started = time.monotonic()
        left = LIMIT_SECONDS - sum(seconds.values())
        try:
            code = subprocess.run(command, cwd=ROOT, env=environment, timeout=left).returncode
        except subprocess.TimeoutExpired:
            print(f"==> {name}: stopped, the whole may take {LIMIT_SECONDS:.0f} s", flush=True)
            code = 1
        seconds[name] = time.monotonic() - started
        if code:
            break
    print("\nseconds  stage")
    for name, taken in seconds.items():
        print(f"{taken:7.1f}  {name}")
    print(f"{sum(seconds.values()):7.1f}  in all, limit {LIMIT_SECONDS:.0f}")
    if code:
        print(f"FAILED in: {list(seconds)[-1]}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
