"""The Claude CLI: where it is, which version, and whether that version was tested with us."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping

from vespera_agent_spawner.adapters.locate import find_program
from vespera_agent_spawner.errors import AgentError
from vespera_server.doctor.finding import Finding, Status

SECTION = "Claude CLI"

# The versions that the test-suite ran with. Outside of it is a warning, never a refusal: the CLI
# updates itself, and unknown frames pass through.
TESTED = ((2, 1, 330), (2, 1, 330))

_VERSION_SECONDS = 20.0


def check_claude(explicit: str | None, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about the CLI; starts it once with `--version`, in a HOME of its own."""
    try:
        program = find_program(explicit, environment)
    except AgentError as error:
        remedy = str(error.context.get("remedy") or "install the Claude CLI")
        also = "or 'pip install vespera-server[demo]'"
        looked = error.context.get("looked") or [explicit or "PATH"]
        where = "not found; looked in: " + "; ".join(str(place) for place in looked)
        yield Finding(SECTION, "program", Status.PROBLEM, where, f"{remedy}, {also}")
    else:
        yield Finding(SECTION, "program", Status.OK, program)
        yield _version_finding(program, environment)
    yield _shell_finding(environment)


def _version_finding(program: str, environment: Mapping[str, str]) -> Finding:
    try:
        output = _ask_version(program, environment)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(
            SECTION,
            "version",
            Status.PROBLEM,
            f"'{program} --version' failed: {error}",
            "run it by hand; reinstall the CLI when it does not answer",
        )
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", output)
    if found is None:
        first = output.strip().splitlines()[:1] or ["nothing"]
        return Finding(
            SECTION,
            "version",
            Status.WARNING,
            f"'--version' printed {first[0]!r}",
            "expected a number like 2.1.330; check that this is the Claude CLI",
        )
    return judge_version((int(found[1]), int(found[2]), int(found[3])))


def judge_version(version: tuple[int, int, int]) -> Finding:
    """Compares a version with the tested range."""
    low, high = TESTED
    text, span = _dotted(version), _dotted(low)
    if high != low:
        span = f"{span} to {_dotted(high)}"
    if low <= version <= high:
        return Finding(SECTION, "version", Status.OK, f"{text} (tested: {span})")
    age = "older" if version < low else "newer"
    return Finding(
        SECTION,
        "version",
        Status.WARNING,
        f"{text} is {age} than what was tested ({span})",
        "run 'vespera demo': it shows within seconds whether this version works",
    )


def _dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def _ask_version(program: str, environment: Mapping[str, str]) -> str:
    with tempfile.TemporaryDirectory(prefix="vespera-") as home:
        answer = subprocess.run(
            [program, "--version"],
            env={
                "PATH": environment.get("PATH", os.defpath),
                "HOME": home,
                "CLAUDE_CONFIG_DIR": home,
                "DISABLE_AUTOUPDATER": "1",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
            check=True,
        )
    return answer.stdout


def _shell_finding(environment: Mapping[str, str]) -> Finding:
    """The CLI's Bash tool needs a shell of its kind."""
    for name in ("bash", "zsh"):
        if found := shutil.which(name, path=environment.get("PATH", os.defpath)):
            return Finding(SECTION, "shell", Status.OK, found)
    return Finding(
        SECTION,
        "shell",
        Status.WARNING,
        "neither bash nor zsh on PATH: the CLI's Bash tool will not work",
        "install bash",
    )
