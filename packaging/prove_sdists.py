"""Responsible for the proof that an sdist is whole: it builds offline from vendored crates.

Every sdist is unpacked away from the checkout. Vendoring is the only step that may use the network;
the wheel is then built with cargo and pip offline and with proxies that lead nowhere.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    "CARGO_NET_OFFLINE": "true",
    "PIP_NO_INDEX": "1",
    "MATURIN_NO_INSTALL_RUST": "1",
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE),
}


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack an sdist; returns its one top folder."""
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    tops = [path for path in folder.iterdir() if path.is_dir()]
    if len(tops) != 1:
        raise ValueError(f"{sdist.name}: expected one top folder, found {sorted(tops)}")
    return tops[0]


def vendor(project: Path) -> None:
    """Bring every crate of the lock file into the project and tell cargo to look only there."""
    if not (project / "Cargo.lock").is_file():
        raise FileNotFoundError(f"{project.name}: the sdist has no Cargo.lock at its top")
    command = ["cargo", "vendor", "--locked", "--quiet", "vendor"]
    settings = subprocess.run(command, cwd=project, check=True, stdout=subprocess.PIPE, text=True)
    folder = project / ".cargo"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(settings.stdout)


def build_offline(project: Path, output: Path) -> None:
    """Build the wheel without network, with the backends of the running environment."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", f"--outdir={output}"]
    subprocess.run([*command, str(project)], check=True, env={**os.environ, **OFFLINE})


def main() -> int:
    """Prove every sdist in the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path, help="folder with our sdists")
    sdists = sorted(parser.parse_args().dist.resolve().glob("vespera*.tar.gz"))
    if not sdists:
        parser.error("no vespera*.tar.gz there; run `nox -s build`")
    for sdist in sdists:
        print(f"==> {sdist.name}: builds offline from vendored crates", flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            project = unpack(sdist, Path(scratch).resolve())
            if any(project.rglob("Cargo.toml")):
                vendor(project)
            output = Path(scratch) / "wheels"
            build_offline(project, output)
            if len(list(output.glob("vespera*.whl"))) != 1:
                raise RuntimeError(f"{sdist.name}: no wheel came out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
