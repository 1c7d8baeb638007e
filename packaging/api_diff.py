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
    before = griffe.load_git(name, ref=base, repo=ROOT, search_paths=[folder], resolve_aliases=True)
    after = griffe.load(name, search_paths=[ROOT / folder], resolve_aliases=True)
    roots = public_roots(before)
    for breakage in griffe.find_breaking_changes(before, after):
        path = breakage.obj.canonical_path
        public = path == name or any(path == root or path.startswith(f"{root}.") for root in roots)
        yield Change(
            path, COLOURS.sub("", breakage.explain(griffe.ExplanationStyle.ONE_LINE)), public
        )
    yield from removed_from_stub(name, before, after)


def removed_from_stub(
    name: str, before: griffe.Object | griffe.Alias, after: griffe.Object | griffe.Alias
) -> Iterator[Change]:
    """Names of the extension that are gone."""
    if "_native" not in before.members:
        return
    gone = set(before["_native"].members) - set(after["_native"].members)
    for member in sorted(gone):
        yield Change(
            f"{name}._native.{member}", f"{member} is gone from the extension", public=False
        )


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
