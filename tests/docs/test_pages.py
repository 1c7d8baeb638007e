"""Tutorial, how-tos and the server's README are carried out, block by block."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pages import Page

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.claude, pytest.mark.slow, pytest.mark.timeout(1800)]


def a_project(directory: Path) -> None:
    """What the how-to for CI takes for granted: a checkout with two sources."""
    (directory / "src").mkdir()
    for name in ("a", "b"):
        (directory / "src" / f"{name}.py").write_text("print(1)\n")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *command], cwd=directory, check=True)


def test_the_tutorial(tmp_path: Path, user: dict[str, str]) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    assert Page(ROOT / "docs/tutorial.md").carry_out(directory, user) == 12


def test_ci_fleets(tmp_path: Path, user: dict[str, str]) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    a_project(directory)
    assert Page(ROOT / "docs/how-to/ci-fleets.md").carry_out(directory, user) == 5


def test_the_servers_readme(tmp_path: Path, user: dict[str, str]) -> None:
    """What it shows of `run`, settings and Python; the demo has tests of its own."""
    directory = tmp_path / "work"
    directory.mkdir()
    page = Page(ROOT / "packages/vespera-server/README.md")
    text = page.path.read_text("utf-8")
    part = tmp_path / "README.md"
    part.write_text(text[text.index("## `vespera run FILE`") : text.index("## `vespera doctor`")])
    assert Page(part).carry_out(directory, user) == 4


def test_the_first_batch(tmp_path: Path, user: dict[str, str]) -> None:
    """What the repository's README shows of `run`; its Python has tests in `real_cli`."""
    directory = tmp_path / "work"
    directory.mkdir()
    text = (ROOT / "README.md").read_text("utf-8")
    part = tmp_path / "README.md"
    part.write_text(text[text.index("A batch that is gone on with") : text.index("## Status")])
    assert Page(part).carry_out(directory, user) == 2


def test_every_page_is_carried_out_by_some_test() -> None:
    """A page that is added here is added above, or says where it is carried out."""
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    tests = ("docs/test_pages.py", "docs/test_container.py", "real_cli/test_how_tos.py")
    told = "".join((ROOT / "tests" / name).read_text() for name in tests)
    for page in pages:
        if page.startswith("docs/how-to/") or page == "docs/tutorial.md":
            assert Path(page).name in told, f"{page} is carried out by no test"
