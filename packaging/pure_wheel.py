"""Responsible for the pure `py3-none-any` wheel of a Rust package, built from its Python half.

maturin cannot leave the extension out, so a temporary project with the same `[project]` table and
the same Python sources is built by a second backend. Same name, same version: an installer takes
the compiled wheel wherever one fits and this one everywhere else.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPILED = ("*.so", "*.pyd", "*.dylib", "__pycache__")
BACKEND = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
packages = ["python/{module}"]

"""


def project_tables(text: str) -> str:
    """The lines of `text` that belong to `[project]` and its sub-tables."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[] ").split("]")[0]
            inside = table == "project" or table.startswith("project.")
        if inside:
            kept.append(line)
    return "\n".join(kept) + "\n"


def cargo_version(folder: Path) -> str:
    """The version maturin would take: the crate's own, or the workspace's."""
    package = tomllib.loads((folder / "Cargo.toml").read_text())["package"]
    if isinstance(package["version"], str):
        return package["version"]
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]
    return str(workspace["package"]["version"])


def pure_pyproject(folder: Path, module: str) -> str:
    """The pyproject.toml of the temporary project.

    Raises ValueError when its `[project]` table would differ from the package's own.
    """
    text = (folder / "pyproject.toml").read_text()
    wanted = tomllib.loads(text)["project"]
    made = project_tables(text)
    if "version" in wanted.get("dynamic", ()):
        version = cargo_version(folder)
        made = made.replace("[project]\n", f'[project]\nversion = "{version}"\n', 1)
        lines = [line for line in made.splitlines() if not line.startswith("dynamic")]
        made = "\n".join(lines) + "\n"
        wanted = {key: value for key, value in wanted.items() if key != "dynamic"}
        wanted["version"] = version
    if tomllib.loads(made)["project"] != wanted:
        raise ValueError(
            f"{folder / 'pyproject.toml'}: [project] could not be copied line by line; keep its "
            "tables in plain `[project…]` form and `dynamic` on one line"
        )
    return BACKEND.format(module=module) + made


def module_name(folder: Path) -> str:
    """Name of the one import package below `python/`."""
    modules = sorted(path.parent.name for path in folder.glob("python/*/__init__.py"))
    if len(modules) != 1:
        raise ValueError(f"{folder / 'python'}: expected one import package, found {modules}")
    return modules[0]


def build(folder: Path, output: Path) -> None:
    """Build the pure wheel of the package in `folder` into `output`."""
    module = module_name(folder)
    with tempfile.TemporaryDirectory() as scratch:
        project = Path(scratch) / folder.name
        shutil.copytree(
            folder / "python" / module,
            project / "python" / module,
            ignore=shutil.ignore_patterns(*COMPILED),
        )
        for source in (*folder.glob("README*"), *folder.glob("LICENSE*")):
            shutil.copy(source, project)
        (project / "pyproject.toml").write_text(pure_pyproject(folder, module))
        command = [sys.executable, "-m", "build", "--no-isolation", "--wheel"]
        subprocess.run([*command, f"--outdir={output.resolve()}", str(project)], check=True)


def main() -> int:
    """Build the pure wheels of the packages named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, nargs="+", help="folder of a Rust package")
    parser.add_argument("output", type=Path, help="folder for the wheels")
    arguments = parser.parse_args()
    for folder in arguments.package:
        build(folder, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
