"""Responsible for three distributions that agree: versions, licence, floor, pins, pure wheels."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = {
    "rust-agent-spawner": "vespera-agent-spawner",
    "rust-file-ops": "vespera-file-ops",
    "vespera-server": "vespera-server",
}
RUST = ("rust-agent-spawner", "rust-file-ops")


def toml(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text())


def workspace_version() -> str:
    return str(toml("Cargo.toml")["workspace"]["package"]["version"])


@pytest.mark.parametrize(("folder", "name"), DISTRIBUTIONS.items())
def test_metadata_agrees(folder: str, name: str) -> None:
    project = toml(f"packages/{folder}/pyproject.toml")["project"]
    assert project["name"] == name
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "MIT OR Apache-2.0"
    # A second place would be the one that a release forgets: Cargo.toml's or __init__'s is taken.
    assert "version" in project["dynamic"]


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_the_licences_texts_go_with_every_distribution(folder: str) -> None:
    # A build takes no file from outside its package, and both licences want their text to go along.
    named = toml(f"packages/{folder}/pyproject.toml")["project"]["license-files"]
    assert named == ["LICENSE-APACHE", "LICENSE-MIT"]
    for name in named:
        assert (ROOT / "packages" / folder / name).read_text() == (ROOT / name).read_text()


@pytest.mark.parametrize("folder", RUST)
def test_python_halves_of_rust_packages_need_nothing(folder: str) -> None:
    assert not toml(f"packages/{folder}/pyproject.toml")["project"].get("dependencies")


@pytest.mark.parametrize("folder", RUST)
def test_rust_packages_take_the_workspaces_version(folder: str) -> None:
    package = toml(f"packages/{folder}/Cargo.toml")["package"]
    assert package["version"] == {"workspace": True}


def test_root_has_no_build_system() -> None:
    # asv would install its requirements into every benchmark environment.
    assert "build-system" not in toml("pyproject.toml")


def test_pins_carry_hashes_and_no_addresses() -> None:
    files = sorted((ROOT / "requirements").glob("*.txt"))
    assert files
    for path in files:
        text = path.read_text()
        assert "://" not in text, f"{path.name} names an address"
        assert "index" not in re.sub(r"^\S+==.*$", "", text, flags=re.MULTILINE), path.name
        entries = re.findall(r"^[A-Za-z0-9][^\n]*==", text, re.MULTILINE)
        assert entries, f"{path.name} pins nothing"
        assert text.count("--hash=sha256:") >= len(entries), path.name


def pinned(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE))


def test_pins_satisfy_what_the_packages_declare() -> None:
    pins = pinned("test")
    for folder in DISTRIBUTIONS:
        for line in toml(f"packages/{folder}/pyproject.toml")["project"].get("dependencies", ()):
            requirement = Requirement(line)
            if not requirement.name.startswith("vespera-"):
                assert requirement.specifier.contains(pins[requirement.name]), (
                    f"{folder}: {line} is not met by requirements/test.txt; run `nox -s pins`"
                )


@pytest.mark.parametrize("folder", RUST)
def test_the_pure_wheel_has_the_same_metadata(folder: str) -> None:
    sys.path.insert(0, str(ROOT / "packaging"))
    try:
        import pure_wheel
    finally:
        sys.path.remove(str(ROOT / "packaging"))
    package = ROOT / "packages" / folder
    made = tomllib.loads(pure_wheel.pure_pyproject(package, pure_wheel.module_name(package)))
    assert made["project"]["name"] == DISTRIBUTIONS[folder]
    assert made["project"]["version"] == workspace_version()
    assert made["build-system"]["build-backend"] == "hatchling.build"
