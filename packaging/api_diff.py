"""Responsible for the question what a change does to callers: public names now and at a base.

`api_diff.py [BASE]` compares with a tag or commit, by default with the newest tag. Public is what a
package's `__all__` names and what is reached from there; the stubs of the extensions are compared
too, as what the two halves of a package promise each other. What breaks callers fails when the base
is a release of the same minor version (docs/stability.md), or with `--strict`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "vespera_agent_spawner": "packages/rust-agent-spawner/python",
    "vespera_file_ops": "packages/rust-file-ops/python",
    "vespera_server": "packages/vespera-server/src",
}

COLOURS = re.compile(r"\x1b\[\d*m")


@dataclass(frozen=True)
class Change:
    """Something that a caller may notice."""

    path: str
    words: str
    public: bool


def git(*words: str) -> str:
    """What git answers."""
    line = ["git", *words]
    return subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def newest_tag() -> str | None:
    """The newest release; None before the first."""
    tags = git("tag", "--list", "v*", "--sort=-version:refname").split()
    return tags[0] if tags else None


def public_roots(package: griffe.Object | griffe.Alias) -> set[str]:
    """Where the names of `__all__` are really defined."""
    names = package.exports or []
    members = [package.members[str(name)] for name in names if str(name) in package.members]
    return {member.canonical_path for member in members}


def changes(name: str, folder: str, base: str) -> Iterator[Change]:
    """What is not as it was."""
    # Without inspection: where the extension is built, it would be loaded in place of its stub.
    before = griffe.load_git(
        name,
        ref=base,
        repo=ROOT,
        search_paths=[folder],
        resolve_aliases=True,
        allow_inspection=False,
    )
    after = griffe.load(
        name, search_paths=[ROOT / folder], resolve_aliases=True, allow_inspection=False
    )
    yield from compared(name, before, after)


def compared(
    name: str, before: griffe.Object | griffe.Alias, after: griffe.Object | griffe.Alias
) -> Iterator[Change]:
    """What differs between two states of a package, the stub of its extension included."""
    roots = public_roots(before)
    for breakage in griffe.find_breaking_changes(before, after):
        path = breakage.obj.canonical_path
        public = path == name or any(path == root or path.startswith(f"{root}.") for root in roots)
        yield Change(path, _words(breakage), public)
    # Its name has an underscore, so that the comparison of the package leaves it out.
    if "_native" in before.members and "_native" in after.members:
        for breakage in griffe.find_breaking_changes(before["_native"], after["_native"]):
            yield Change(breakage.obj.canonical_path, _words(breakage), public=False)


def _words(breakage: griffe.Breakage) -> str:
    return COLOURS.sub("", breakage.explain(griffe.ExplanationStyle.ONE_LINE))


def minor(ref: str | None) -> list[str]:
    """Major and minor version of the sources, now or at a commit."""
    text = git("show", f"{ref}:Cargo.toml") if ref else (ROOT / "Cargo.toml").read_text()
    version = str(tomllib.loads(text)["workspace"]["package"]["version"])
    return version.split(".")[:2]


def main() -> int:
    """Print the changes; 1 if one must not be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", nargs="?", help="a tag or commit; default: the newest tag")
    parser.add_argument("--strict", action="store_true", help="fail whatever the base is")
    arguments = parser.parse_args()
    tag = newest_tag()
    base = arguments.base or tag
    if base is None:
        print("api: nothing is released yet; name a base to compare with")
        return 0
    found = [one for item in PACKAGES.items() for one in changes(*item, base)]
    for one in sorted(found, key=lambda one: (not one.public, one.path)):
        print(f"{'BREAKS' if one.public else 'inside'}  {one.words}")
    breaking = sum(one.public for one in found)
    print(f"api: {breaking} public changes that break callers since {base}, {len(found)} in all")
    released = base == tag and minor(base) == minor(None)
    return int(bool(breaking) and (arguments.strict or released))


if __name__ == "__main__":
    sys.exit(main())
