"""Responsible for a release that is whole: every wheel and sdist that is promised, and no other.

`wheel_matrix.py DIST` prints the table of what is there; `--whole` fails unless it is everything.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

RUST = ("vespera_agent_spawner", "vespera_file_ops")
PURE = "vespera_server"
# One wheel for 3.11 and later; free-threaded interpreters have a wheel each until abi3t is ours.
PYTHONS = ("cp311-abi3", "cp314-cp314t", "cp315-cp315t")
PLATFORMS = (
    "manylinux_2_28_x86_64",
    "manylinux_2_28_aarch64",
    "musllinux_1_2_x86_64",
    "musllinux_1_2_aarch64",
    "macosx_11_0_x86_64",
    "macosx_11_0_arm64",
    # Not win_amd64: what is configured for it builds, and cannot be imported (docs/releasing.md).
)
ANY = ("py3-none", "any")
SDIST = ("sdist", "")
WHEEL = re.compile(
    r"(?P<name>\w+)-(?P<version>[^-]+)-(?P<python>\w+-\w+)-(?P<platform>[\w.]+)\.whl"
)

Kind = tuple[str, str]


def promised(name: str) -> set[Kind]:
    """Python and platform of every file of a distribution."""
    compiled = {(python, platform) for python in PYTHONS for platform in PLATFORMS}
    return {ANY, SDIST} | (compiled if name in RUST else set())


def kinds(name: str, files: Iterable[str]) -> set[Kind]:
    """What of a distribution is there; a wheel for several platforms counts for each."""
    found: set[Kind] = set()
    for file in files:
        if not file.startswith(f"{name}-"):
            continue
        if file.endswith(".tar.gz"):
            found.add(SDIST)
        elif (wheel := WHEEL.fullmatch(file)) is not None:
            found |= {(wheel["python"], platform) for platform in wheel["platform"].split(".")}
        else:
            raise ValueError(f"{file}: neither a wheel nor an sdist of {name}")
    return found


def lines(files: Iterable[str]) -> Iterable[str]:
    """The table: a row for each platform, a mark for each wheel of a Rust distribution."""
    names = list(files)
    for name in RUST:
        there = kinds(name, names)
        yield f"{name:<28}" + "".join(f"{python:>14}" for python in PYTHONS)
        for platform in PLATFORMS:
            marks = ("yes" if (python, platform) in there else "-" for python in PYTHONS)
            yield f"  {platform:<26}" + "".join(f"{mark:>14}" for mark in marks)
    for name in (*RUST, PURE):
        there = kinds(name, names)
        pure, sdist = ("yes" if kind in there else "-" for kind in (ANY, SDIST))
        yield f"{name:<28}  py3-none-any: {pure}, sdist: {sdist}"


def missing(files: Iterable[str]) -> list[str]:
    """What is promised and not there, and what is there without a promise."""
    names = list(files)
    wrong = []
    for name in (*RUST, PURE):
        wanted = promised(name)
        wrong += [f"{name}: no {'-'.join(kind)}" for kind in sorted(wanted - kinds(name, names))]
        # By file: the tags that auditwheel adds to a wheel are older names of the promised one.
        own = [file for file in names if file.startswith(f"{name}-")]
        others = [file for file in own if not kinds(name, [file]) & wanted]
        wrong += [f"{file} is not promised" for file in others]
    versions = {
        match[1] for file in names if (match := re.match(r"vespera_\w+?-([^-]+?)(-|\.tar)", file))
    }
    if len(versions) != 1:
        wrong.append(f"files of several versions: {sorted(versions)}")
    return wrong


def main() -> int:
    """Print the table, and what is missing of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dist", type=Path, help="folder with wheels and sdists")
    parser.add_argument("--whole", action="store_true", help="fail unless everything is there")
    arguments = parser.parse_args()
    files = sorted(path.name for path in arguments.dist.glob("vespera*"))
    print("\n".join(lines(files)))
    wrong = missing(files) if arguments.whole else []
    for sentence in wrong:
        print(f"release: {sentence}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
