"""Responsible for the checks before a release: that they pass here, and that they can fail."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TODAY = dt.date(2026, 12, 24)
# What cibuildwheel makes on a runner: each builds for its own processor.
BUILDS = {
    "ubuntu-24.04": ("manylinux_2_28_x86_64", "musllinux_1_2_x86_64"),
    "ubuntu-24.04-arm": ("manylinux_2_28_aarch64", "musllinux_1_2_aarch64"),
    "macos-15-intel": ("macosx_11_0_x86_64",),
    "macos-15": ("macosx_11_0_arm64",),
}

sys.path.insert(0, str(ROOT / "packaging"))
try:
    import prove_installed
    import release_check
    import wheel_matrix
finally:
    sys.path.remove(str(ROOT / "packaging"))


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A copy of every file that says a version."""
    places = ["Cargo.toml", "pyproject.toml", "CHANGELOG.md"]
    places += [*release_check.PYTHON_VERSIONS.values(), "packages/vespera-server/pyproject.toml"]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / place, tmp_path / place)
    return tmp_path


def change(root: Path, place: str, old: str, new: str) -> None:
    text = (root / place).read_text()
    assert old in text
    (root / place).write_text(text.replace(old, new, 1))


def released(root: Path, date: str = "2026-12-24") -> str:
    """The changelog's newest section gets a date; returns its tag."""
    version = release_check.versions(root)["Cargo.toml"]
    change(root, "CHANGELOG.md", "(not released)", f"({date})")
    return f"v{version}"


def test_all_versions_agree_now() -> None:
    assert release_check.disagreements(ROOT, None, TODAY) == []


def test_a_tag_of_the_version_with_a_dated_changelog_may_be_published(sources: Path) -> None:
    assert release_check.disagreements(sources, released(sources), TODAY) == []


def test_another_tag_may_not(sources: Path) -> None:
    released(sources)
    [why] = release_check.disagreements(sources, "v9.9.9", TODAY)
    assert "the tag is v9.9.9" in why


@pytest.mark.parametrize("state", ["not released", "2027-01-01"])
def test_a_release_has_a_date_that_is_not_to_come(sources: Path, state: str) -> None:
    tag = released(sources, state)
    [why] = release_check.disagreements(sources, tag, TODAY)
    assert "CHANGELOG.md" in why


@pytest.mark.parametrize("place", release_check.PYTHON_VERSIONS.values())
def test_a_version_that_stayed_behind_is_named(sources: Path, place: str) -> None:
    change(sources, place, '__version__ = "', '__version__ = "0.0.')
    [why] = release_check.disagreements(sources, None, TODAY)
    assert why.startswith(place)


def test_the_server_asks_for_releases_compatible_with_its_own(sources: Path) -> None:
    change(sources, "packages/vespera-server/pyproject.toml", "spawner>=0.1,<0.2", "spawner>=0.1")
    [why] = release_check.disagreements(sources, None, TODAY)
    assert "vespera-server asks for" in why


@pytest.mark.parametrize(
    ("version", "bound"), [("0.1.0", ">=0.1,<0.2"), ("0.12.3", ">=0.12,<0.13"), ("2.3.1", None)]
)
def test_bounds_are_those_of_semantic_versions(version: str, bound: str | None) -> None:
    assert release_check.bounds(version) == (bound or ">=2.3.1,<3")


def whole() -> list[str]:
    """The names of everything that a release promises."""
    files = []
    for name in (*wheel_matrix.RUST, wheel_matrix.PURE):
        for python, platform in wheel_matrix.promised(name):
            suffix = ".tar.gz" if python == "sdist" else f"-{python}-{platform}.whl"
            files.append(f"{name}-0.1.0{suffix}")
    return files


def test_a_whole_release_misses_nothing() -> None:
    assert len(whole()) == 2 * (3 * 6 + 2) + 2
    assert wheel_matrix.missing(whole()) == []


def test_each_file_is_missed(subtests: pytest.Subtests) -> None:
    for file in whole():
        with subtests.test(file):
            left = [name for name in whole() if name != file]
            [why] = wheel_matrix.missing(left)
            assert file.startswith(why.split(":")[0])


@pytest.mark.parametrize(
    "tags",
    ["cp311-abi3-linux_x86_64", "cp311-abi3-manylinux_2_34_x86_64", "cp310-abi3-win_amd64"],
)
def test_a_wheel_that_nobody_promised_is_no_part_of_a_release(tags: str) -> None:
    stray = f"vespera_file_ops-0.1.0-{tags}.whl"
    assert wheel_matrix.missing([*whole(), stray]) == [f"{stray} is not promised"]


def test_files_of_two_versions_are_no_release() -> None:
    files = [*whole()[1:], whole()[0].replace("0.1.0", "0.1.1")]
    assert any("several versions" in why for why in wheel_matrix.missing(files))


def test_a_wheel_for_two_names_of_one_platform_counts() -> None:
    names = [n.replace("manylinux_2_28", "manylinux_2_27_x.manylinux_2_28") for n in whole()]
    names = [n.replace("2_27_x", "2_27_x86_64") for n in names]
    assert wheel_matrix.missing(names) == []


def test_what_cibuildwheel_tests_with_is_what_is_pinned() -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = tables["tool"]["cibuildwheel"]["test-requires"]
    assert asked == tables["dependency-groups"]["installed"]


def test_the_installed_part_of_the_suites_exists() -> None:
    for package, files in prove_installed.SUITES.items():
        there = {path.name for path in (ROOT / "packages" / package / "tests").glob("test_*.py")}
        assert set(files) <= there, package


def test_the_release_builds_for_every_promised_platform() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    runners = workflow["jobs"]["compiled"]["strategy"]["matrix"]["runner"]
    built = [platform for runner in runners for platform in BUILDS[runner]]
    assert sorted(built) == sorted(wheel_matrix.PLATFORMS)


def test_cibuildwheel_makes_every_promised_python() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    pythons = [build.removesuffix("-*") for build in tool["build"]]
    abi3 = {f"{pythons[0]}-abi3"}
    threaded = {f"{name.removesuffix('t')}-{name}" for name in pythons if name.endswith("t")}
    assert abi3 | threaded == set(wheel_matrix.PYTHONS)
    for kind in ("manylinux", "musllinux"):
        for processor in ("x86_64", "aarch64"):
            image = tool[f"{kind}-{processor}-image"]
            assert f"{image}_{processor}" in wheel_matrix.PLATFORMS
    deployment = tool["macos"]["environment"]["MACOSX_DEPLOYMENT_TARGET"].replace(".", "_")
    assert f"macosx_{deployment}_arm64" in wheel_matrix.PLATFORMS


@pytest.mark.parametrize("package", wheel_matrix.RUST)
def test_what_is_checked_for_other_systems_has_its_neighbours_there(package: str) -> None:
    # What `nox -s cross_check` would say, which needs compilers that few machines have.
    source = ROOT / "packages" / package.replace("vespera_", "rust-").replace("_", "-") / "src"
    crate = (source / "lib.rs").read_text()
    elsewhere = (source / "elsewhere.rs").read_text()
    beside = set(re.findall(r"^pub(?:\(crate\))? mod (\w+);", elsewhere, re.MULTILINE))
    everywhere = set(re.findall(r"^(?:pub )?mod (\w+);", crate, re.MULTILINE))
    gated = set(re.findall(r"^#\[cfg\(.+\)\]\n(?:pub )?mod (\w+);", crate, re.MULTILINE))
    there = everywhere - gated | set(re.findall(r"^use elsewhere::(\w+);", crate, re.MULTILINE))
    for place in re.findall(r'^#\[path = "(.+)"\]', elsewhere, re.MULTILINE):
        whole = (source / place).parent.rglob("*.rs") if place.endswith("mod.rs") else ()
        for file in {source / place, *whole}:
            text = file.read_text()
            assert set(re.findall(r"\bcrate::([a-z]\w*)", text)) <= there, file.name
            if not whole:
                assert set(re.findall(r"^use super::([a-z]\w*)", text, re.M)) <= beside, file.name


def has_no_cargo() -> bool:
    """Where the fallback is tested there is none, or one that only refuses."""
    try:
        return subprocess.run(["cargo", "--version"], capture_output=True).returncode != 0
    except FileNotFoundError:
        return True


@pytest.mark.skipif(
    "VESPERA_REQUIRE_RUST" not in os.environ and has_no_cargo(), reason="no cargo here"
)
def test_no_crate_asks_for_a_later_compiler_than_we_promise() -> None:
    """What the standard library has had since later is refused by clippy (incompatible_msrv)."""
    line = ["cargo", "metadata", "--format-version=1", "--locked"]
    told = subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    wanted = {
        f"{crate['name']} {crate['version']}": compiler(crate["rust_version"])
        for crate in json.loads(told)["packages"]
        if crate["rust_version"] is not None
    }
    promised = compiler(
        tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    )
    assert len(wanted) > 50, "most crates say it"
    assert {name: asked for name, asked in wanted.items() if asked > promised} == {}


def compiler(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))
