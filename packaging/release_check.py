"""Responsible for a release whose names agree: tag = every version = the changelog's section.

`release_check.py` says whether the sources agree among themselves; with a tag (its argument, or
what the workflow was started by) it says whether they may be published under it.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_VERSIONS = {
    "vespera-agent-spawner": "packages/rust-agent-spawner/python/vespera_agent_spawner/__init__.py",
    "vespera-file-ops": "packages/rust-file-ops/python/vespera_file_ops/_version.py",
    "vespera-server": "packages/vespera-server/src/vespera_server/__init__.py",
}
VERSION = re.compile(r'^__version__ = "([^"]+)"$', re.MULTILINE)
SECTION = re.compile(r"^## (?P<version>\S+) \((?P<state>[^)]+)\)$", re.MULTILINE)


def versions(root: Path) -> dict[str, str]:
    """Every place that says a version, and what it says."""
    cargo = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]
    found = {"Cargo.toml": str(cargo["package"]["version"])}
    for name, needed in cargo["dependencies"].items():
        if isinstance(needed, dict) and "path" in needed:
            found[f"Cargo.toml, {name}"] = str(needed["version"])
    found["pyproject.toml"] = tomllib.loads((root / "pyproject.toml").read_text())["project"][
        "version"
    ]
    for place in PYTHON_VERSIONS.values():
        said = VERSION.search((root / place).read_text())
        found[place] = said[1] if said else "nothing"
    return found


def bounds(version: str) -> str:
    """What one of the three asks of another: compatible releases only, before 1.0 of one minor."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}" if major == 0 else f">={version},<{major + 1}"


def disagreements(root: Path, tag: str | None, today: dt.date) -> list[str]:
    """Sentences about what does not agree; none when all is well."""
    found = versions(root)
    version = found["Cargo.toml"]
    wrong = [
        f"{place} says {said}, Cargo.toml's workspace {version}"
        for place, said in found.items()
        if said != version
    ]
    server = tomllib.loads((root / "packages/vespera-server/pyproject.toml").read_text())
    asked = [d for d in server["project"]["dependencies"] if d.startswith("vespera-")]
    wanted = {name + bounds(version) for name in PYTHON_VERSIONS if name != "vespera-server"}
    if set(asked) != wanted:
        wrong.append(f"vespera-server asks for {sorted(asked)}, expected {sorted(wanted)}")
    newest = SECTION.search((root / "CHANGELOG.md").read_text())
    if newest is None or newest["version"] != version:
        wrong.append(f"CHANGELOG.md: its newest section must be '## {version} (…)'")
    elif tag is not None:
        wrong += _of_the_date(newest["state"], today)
    if tag is not None and tag != f"v{version}":
        wrong.append(f"the tag is {tag}, the version {version}: tag it v{version}")
    return wrong


def _of_the_date(state: str, today: dt.date) -> list[str]:
    try:
        date = dt.date.fromisoformat(state)
    except ValueError:
        return [f"CHANGELOG.md says '({state})': a release has its date there, as {today}"]
    if date > today:
        return [f"CHANGELOG.md: {date} is in the future, today is {today}"]
    return []


def tag_of_workflow() -> str | None:
    """The tag that GitHub started this for, if it was one."""
    return os.environ["GITHUB_REF_NAME"] if os.environ.get("GITHUB_REF_TYPE") == "tag" else None


def main() -> int:
    """Print what does not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag", nargs="?", default=tag_of_workflow(), help="as v1.2.3")
    tag = parser.parse_args().tag
    wrong = disagreements(ROOT, tag, dt.datetime.now(dt.UTC).date())
    for sentence in wrong:
        print(f"release: {sentence}", file=sys.stderr)
    if not wrong:
        print(f"release: all say {versions(ROOT)['Cargo.toml']}" + (f", as does {tag}" * bool(tag)))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
