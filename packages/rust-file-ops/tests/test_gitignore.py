"""`.gitignore`: git itself tells what is ignored."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

NAMES = ["a", "b", "ab", "a.b", "A", "é", "a b", "a ", "#a", "!a", "[a]", "a\\b", "*"]
# Names in directories of these, two deep.
DIRECTORIES = ["", "a/", "b/", "ab/", "a/b/", "b/a/", "é/"]
# What a line may be made of. Stars beside something else are left out: git takes `x/a**` for
# `x/a` and all beneath, against its own manual.
PIECES = [
    "a",
    "b",
    "ab",
    "?",
    "*",
    "[ab]",
    "[!a]",
    "[^b]",
    "[a-b]",
    "\\a",
    "\\*",
    ".",
    "é",
    "[",
    "]",
]
PIECES += ["{a,b}", " ", "\\ ", "#", "!", "[[:alpha:]]", "[]a]", "[a", "-", "\\"]


@st.composite
def lines(draw: st.DrawFn) -> str:
    """One line of a `.gitignore`."""
    name = st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join)
    parts = draw(st.lists(st.one_of(name, st.just("**")), min_size=1, max_size=3))
    return (
        draw(st.sampled_from(["", "", "!"]))
        + draw(st.sampled_from(["", "", "/"]))
        + draw(st.sampled_from(["/", "/", "\\/"])).join(parts)
        + draw(st.sampled_from(["", "", "/", " "]))
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q")
    for directory, name in itertools.product(DIRECTORIES, NAMES):
        path = root / directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_dir() and f"{directory}{name}/" not in DIRECTORIES:
            path.write_text("")
    return root


def git(root: Path, *arguments: str) -> bytes:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    return subprocess.run(
        ["git", "-C", str(root), *arguments], env=environment, check=True, capture_output=True
    ).stdout


def left_by_git(root: Path) -> set[str]:
    listed = git(root, "ls-files", "-z", "--others", "--exclude-standard")
    return {os.fsdecode(name) for name in listed.split(b"\0") if name}


def left_by_us(ops: ModuleType, root: Path) -> set[str]:
    found = ops.walk(root, gitignore=True)
    return {os.path.relpath(path, root) for path, kind in found if kind == "file"}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    top=st.lists(lines(), max_size=6), nested=st.lists(lines(), max_size=3),
    excluded=st.lists(lines(), max_size=1),
)  # fmt: skip
@example(top=["*", "!*/", "!a.b"], nested=[], excluded=[])
@example(top=["a/*", "!a/b"], nested=["!a"], excluded=["b"])
@example(top=["/**/b", "**/a/", "b/**"], nested=["/a"], excluded=[])
@example(top=["*", "!**\\/**/"], nested=[], excluded=[])
@example(top=["**/**\\/b"], nested=["**\\/a"], excluded=[])
@example(top=["a/**/b", "!**"], nested=[], excluded=["*"])
def test_what_git_leaves_is_left(
    ops: ModuleType, repository: Path, top: list[str], nested: list[str], excluded: list[str]
) -> None:
    (repository / ".gitignore").write_bytes(os.fsencode("\n".join(top)))
    (repository / "a/.gitignore").write_bytes(os.fsencode("\r\n".join(nested)))
    (repository / ".git/info/exclude").write_bytes(os.fsencode("\n".join(excluded)))
    assert left_by_us(ops, repository) == left_by_git(repository)


def test_many_stars_end_soon(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ("a" * 200)).write_text("")
    lines = ["*a" * 50 + "b", "**/" + "*a" * 50 + "/**/b", "/".join(["**", "a*"] * 20) + "/b"]
    (tmp_path / ".gitignore").write_text("\n".join(lines))
    assert left_by_us(ops, tmp_path) == {".gitignore", "a" * 200}


def test_a_worktree_has_the_excludes_of_its_repository(ops: ModuleType, tmp_path: Path) -> None:
    main, tree = tmp_path / "main", tmp_path / "trees" / "tree"
    main.mkdir()
    git(main, "init", "-q")
    git(
        main,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "1",
    )
    git(main, "worktree", "add", "-q", "--detach", str(tree))
    (main / ".git/info/exclude").write_text("*.log\n")
    (tree / "sub").mkdir()
    for name in ("a.log", "a", "sub/b.log", "sub/b"):
        (tree / name).write_text("")
    assert left_by_us(ops, tree) == {"a", "sub/b"} == left_by_git(tree)
    assert left_by_us(ops, tree / "sub") == {"b"}
    assert left_by_us(ops, tmp_path / "trees") == {"tree/a", "tree/sub/b"}
    assert [entry.name for entry in ops.list_directory(tree, gitignore=True)] == ["a", "sub"]
    # What the file `.git` names may be anywhere: a workspace does not look there.
    found = ops.Workspace(tree).glob_files("sub", "*", gitignore=True)
    assert found == ["sub/b", "sub/b.log"]


def test_a_file_that_names_no_repository_is_none(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    os.mkfifo(tmp_path / "fifo")
    for content in ("", "gitdir: ", "gitdir: none\n", "gitdir: fifo\n", "what\n", "gitdir: a\0b"):
        (tmp_path / ".git").write_text(content)
        assert left_by_us(ops, tmp_path) == {"a"}


def test_a_worktree_whose_repository_is_gone_has_no_excludes(
    ops: ModuleType, tmp_path: Path
) -> None:
    own, tree = tmp_path / "own", tmp_path / "tree"
    (own / "info").mkdir(parents=True)
    tree.mkdir()
    (own / "info" / "exclude").write_text("*.log\n")
    (own / "commondir").write_text("none\n")
    (tree / ".git").write_text(f"gitdir: {own}\n")
    (tree / "a.log").write_text("")
    assert left_by_us(ops, tree) == {"a.log"}
    (own / "commondir").unlink()
    assert left_by_us(ops, tree) == set()
