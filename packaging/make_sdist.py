"""Responsible for the sdist of a Rust package, with a lock file that fits it.

maturin copies the lock file of the whole workspace, which names members that the sdist leaves
out; `cargo … --locked` then refuses it. The lock is trimmed here, and a trimmed lock may only be
shorter: not one crate may have moved to another version.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path


def entries(lock: Path) -> set[tuple[str, str, str]]:
    """Name, version and checksum of every crate in a lock file."""
    packages = tomllib.loads(lock.read_text())["package"]
    return {(p["name"], p["version"], p.get("checksum", "")) for p in packages}


def trim_lock(project: Path) -> None:
    """Drop what the sdist's own members do not need; raises RuntimeError if anything moved."""
    lock = project / "Cargo.lock"
    before = entries(lock)
    subprocess.run(["cargo", "update", "--workspace", "--quiet"], cwd=project, check=True)
    if moved := entries(lock) - before:
        raise RuntimeError(f"{project.name}: trimming the lock file changed {sorted(moved)}")


def repack(project: Path, output: Path) -> Path:
    """Write `project` as NAME-VERSION.tar.gz, in a fixed order and with no owner's name."""

    def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    output.mkdir(parents=True, exist_ok=True)
    archive = output / f"{project.name}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(project.rglob("*")):
            name = path.relative_to(project.parent).as_posix()
            tar.add(path, arcname=name, recursive=False, filter=anonymous)
    return archive


def make(folder: Path, output: Path) -> Path:
    """Make the sdist of the package in `folder`; returns its path."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made"
        manifest = f"--manifest-path={folder / 'Cargo.toml'}"
        subprocess.run(["maturin", "sdist", manifest, f"--out={made}"], check=True)
        [sdist] = made.glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            archive.extractall(scratch, filter="data")
        project = Path(scratch) / sdist.name.removesuffix(".tar.gz")
        trim_lock(project)
        return repack(project, output)


def main() -> int:
    """Make the sdist of the package named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, help="folder of a Rust package")
    parser.add_argument("output", type=Path, help="folder for the sdist")
    arguments = parser.parse_args()
    print(make(arguments.package, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
