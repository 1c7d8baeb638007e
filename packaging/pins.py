"""Responsible for requirements/*.txt: one hashed, address-free pin file per dependency group.

Every file is resolved under the constraints of one common resolution, so that two groups installed
together never disagree. The packages' own third-party dependencies are part of the `test` and
`bench` files, because the packages themselves are installed with `--no-deps`; `demo` holds nothing
else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Which extras of our own packages each pin file needs.
GROUPS: dict[str, tuple[str, ...]] = {
    "test": ("demo", "tools", "claude-sdk"),
    "lint": (),
    "typecheck": (),
    "build": (),
    "nox": (),
    "bench": (),
    "wheels": (),
    "installed": (),
    "stability": (),
}
RUNTIME = {"test", "bench"}


def declared(extras: tuple[str, ...]) -> list[str]:
    """Third-party requirements of the packages, with those of the named extras."""
    found: set[str] = set()
    for path in sorted(ROOT.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        found.update(project.get("dependencies", ()))
        for extra in extras:
            found.update(project.get("optional-dependencies", {}).get(extra, ()))
    return sorted(line for line in found if not line.lower().startswith("vespera"))


def group(name: str) -> list[str]:
    """Requirements of a dependency group of the root pyproject, included groups too."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    lines: list[str] = []
    for entry in groups.get(name, ()):
        lines += group(entry["include-group"]) if isinstance(entry, dict) else [entry]
    return lines


def compile_pins(lines: list[str], output: Path, *arguments: str) -> None:
    """Resolve `lines` for every platform and write `output`."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "input.in"
        source.write_text("\n".join(lines) + "\n")
        subprocess.run(
            [
                *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal"),
                *("--python-version=3.11", "--generate-hashes", "--no-emit-index-url"),
                *("--no-emit-find-links", "--no-header", "--no-annotate"),
                *arguments,
                *(f"--output-file={output}", str(source)),
            ],
            check=True,
            cwd=folder,
        )


def main() -> int:
    """Write every pin file; `--upgrade` ignores what is pinned now."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    wanted = {name: group(name) for name in GROUPS}
    for name in RUNTIME & set(wanted):
        wanted[name] += declared(GROUPS[name])
    wanted["demo"] = declared(("demo",))
    with tempfile.TemporaryDirectory() as folder:
        common = Path(folder) / "common.txt"
        existing = "".join(p.read_text() for p in sorted(ROOT.glob("requirements/*.txt")))
        if existing and not upgrade:
            # Keeping what is pinned makes a rerun change only what had to change.
            common.write_text((ROOT / "requirements" / "test.txt").read_text())
        everything = sorted({line for lines in wanted.values() for line in lines})
        compile_pins(everything, common, *upgrade)
        for name, lines in wanted.items():
            if lines:
                compile_pins(
                    lines, ROOT / "requirements" / f"{name}.txt", f"--constraint={common}", *upgrade
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
