"""Walking: what is shown, in which order, what git ignores, and what cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vespera_file_ops.errors import PatternError

TREE = {
    "a": "",
    "a.txt": "",
    ".hidden/x": "",
    "b/c/d.py": "",
    "b/c/e.txt": "",
    "b/f.py": "",
    "b-side": "",
    "build/out.o": "",
    ".gitignore": "build/\n*.txt\n!b/c/e.txt\n",
    "b/.gitignore": "/f.py\n",
    "new\nline": "",
}


def make(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make(tmp_path, TREE)
    (tmp_path / "link").symlink_to("b")
    (tmp_path / "link.txt").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def shown(ops: ModuleType, root: Path, **options: Any) -> list[tuple[str, str]]:
    found = [(os.path.relpath(path, root), kind) for path, kind in ops.walk(root, **options)]
    return found if options.get("sort") else sorted(found)


def test_everything_is_shown_with_its_kind(ops: ModuleType, tree: Path) -> None:
    assert shown(ops, tree) == sorted(
        [
            *((name, "file") for name in TREE),
            *((name, "directory") for name in (".hidden", "b", "b/c", "build")),
            ("link", "symlink"),
            ("link.txt", "symlink"),
            ("fifo", "other"),
        ]
    )


def test_sorted_is_the_order_of_the_bytes_of_whole_paths(ops: ModuleType, tree: Path) -> None:
    names = [name for name, _ in shown(ops, tree, sort=True)]
    assert names == sorted(names, key=os.fsencode)
    assert len(names) == len(TREE) + 7


def test_what_git_ignores_is_left_out(ops: ModuleType, tree: Path) -> None:
    names = {name for name, _ in shown(ops, tree, gitignore=True)}
    assert names == {
        ".gitignore", ".hidden", ".hidden/x", "a", "b", "b-side", "b/.gitignore", "b/c",
        "b/c/d.py", "b/c/e.txt", "fifo", "link", "new\nline",
    }  # fmt: skip
    found = ops.glob_files(tree, "**/*.{py,txt}", gitignore=True)
    assert found == [f"{tree}/b/c/d.py", f"{tree}/b/c/e.txt"]
    listed = [entry.name for entry in ops.list_directory(tree / "b", gitignore=True)]
    assert listed == [".gitignore", "c"]
    assert "build" not in {entry.name for entry in ops.list_directory(tree, gitignore=True)}


def test_rules_above_hold_within_the_repository(ops: ModuleType, tree: Path) -> None:
    assert shown(ops, tree / "b", gitignore=True, sort=True) == [
        (".gitignore", "file"),
        ("c", "directory"),
        ("c/d.py", "file"),
        ("c/e.txt", "file"),
    ]
    (tree / "b/c/e2.txt").touch()
    assert ("e2.txt", "file") in shown(ops, tree / "b/c", gitignore=True)
    (tree / ".git/info").mkdir(parents=True)
    (tree / ".git/info/exclude").write_text("d.py\n")
    assert shown(ops, tree / "b/c", gitignore=True) == [("e.txt", "file")]
    assert [entry.name for entry in ops.list_directory(tree / "b/c", gitignore=True)] == ["e.txt"]
    assert shown(ops, tree, gitignore=True, include="*.py") == []
    space = ops.Workspace(tree)
    assert [entry.path for entry in space.walk("b/c", gitignore=True)] == ["b/c/e.txt"]
    # A workspace looks at nothing above its root.
    beneath = ops.Workspace(tree / "b")
    assert sorted(e.path for e in beneath.walk("c", gitignore=True)) == [
        "c/d.py", "c/e.txt", "c/e2.txt",
    ]  # fmt: skip


def test_a_repository_within_starts_afresh(ops: ModuleType, tmp_path: Path) -> None:
    make(tmp_path, {".gitignore": "*.log\n", "a.log": "", "sub/b.log": "", "sub/.git/HEAD": ""})
    assert shown(ops, tmp_path, gitignore=True, include="*.log") == [("sub/b.log", "file")]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"hidden": False, "include": "x"}, []),
        ({"include": "*.py"}, ["b/c/d.py", "b/f.py"]),
        ({"include": ["*.py", "a"]}, ["a", "b/c/d.py", "b/f.py"]),
        ({"include": "b/*.py"}, ["b/f.py"]),
        ({"include": "**/*.{py,o}", "exclude": "build"}, ["b/c/d.py", "b/f.py"]),
        ({"include": "*.py", "exclude": ["c/"]}, ["b/f.py"]),
        ({"include": "*.py", "exclude": "f.py/"}, ["b/c/d.py", "b/f.py"]),
        ({"include": "*.py", "exclude": "b/c/**"}, ["b/f.py"]),
        ({"include": "?"}, ["a", "b", "b/c", ".hidden/x"]),
        ({"max_depth": 1, "include": "*.py"}, []),
        ({"max_depth": 2, "include": "*.py"}, ["b/f.py"]),
        ({"max_depth": 1, "include": "b*"}, ["b", "b-side", "build"]),
    ],
)
def test_patterns_and_depth(
    ops: ModuleType, tree: Path, options: dict[str, Any], names: list[str]
) -> None:
    assert [name for name, _ in shown(ops, tree, **options)] == sorted(names)


def test_symlinks_are_followed_on_request_and_no_circle_is(ops: ModuleType, tree: Path) -> None:
    (tree / "b/c/up").symlink_to("../..")
    (tree / "dangling").symlink_to("none")
    found = dict(shown(ops, tree, follow=True))
    assert found["link"] == "directory"
    assert found["link/f.py"] == "file"
    assert found["link.txt"] == "file"
    assert found["dangling"] == "symlink"
    assert found["b/c/up"] == "directory"
    assert not any(name.startswith("b/c/up/") for name in found)


def test_bad_arguments_are_refused(ops: ModuleType, tree: Path) -> None:
    for pattern in ("a[", "a[/", "b/a["):
        at = pattern.index("[")
        with pytest.raises(PatternError, match=rf"'\[' at character {at} is not closed") as refused:
            ops.walk(tree, exclude=pattern)
        assert refused.value.context["pattern"] == pattern
    with pytest.raises(PatternError, match=r"glob pattern '\{a,\}': is empty"):
        ops.walk(tree, include="{a,}")
    for field in ("include", "exclude"):
        for value in (None, 5, b"a"):
            with pytest.raises(TypeError, match=f"{field} must be str or several of them, not"):
                ops.walk(tree, **{field: value})
        with pytest.raises(TypeError, match=f"{field} must be str, not bytes"):
            ops.walk(tree, **{field: [b"a"]})
    with pytest.raises(TypeError, match="types must be str or several of them, not NoneType"):
        ops.search_files(tree, "a", types=None)
    with pytest.raises(ValueError, match="max_depth is 0; give 1 or more"):
        ops.walk(tree, max_depth=0)
    with pytest.raises(TypeError, match="max_depth must be an int"):
        ops.walk(tree, max_depth="1")
    with pytest.raises(FileNotFoundError) as caught:
        ops.walk(tree / "none")
    assert caught.value.filename == str(tree / "none")
    with pytest.raises(NotADirectoryError):
        ops.walk(tree / "a")


CLOSED = """
import os, sys, importlib
ops = importlib.import_module(sys.argv[1])
if os.geteuid() == 0:
    # root may read everything
    os.seteuid(65534)
found = ops.walk(sys.argv[2])
print(sorted(os.path.basename(entry.path) for entry in found))
print([(type(e).__name__, e.errno, e.filename) for e in found.errors], found.error_count)
found = ops.search_files(sys.argv[2], "x", hidden=True)
print([os.path.basename(match.path) for match in found])
print(sorted((e.errno, os.path.basename(e.filename)) for e in found.errors))
print(ops.glob_files(sys.argv[2], "**/shut"), ops.glob_files(sys.argv[2], "**/file"))
"""


def test_what_may_not_be_read_is_told(ops: ModuleType) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = make(Path(name), {"open": "x", "shut": "x", "dir/file": "x"})
        root.chmod(0o755)
        (root / "shut").chmod(0)
        (root / "dir").chmod(0)
        done = subprocess.run(
            [sys.executable, "-c", CLOSED, ops.__name__, name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        (root / "dir").chmod(0o755)
    assert done.stdout.splitlines() == [
        "['dir', 'open', 'shut']",
        f"[('PermissionError', 13, '{name}/dir')] 1",
        "['open']",
        "[(13, 'dir'), (13, 'shut')]",
        f"['{name}/shut'] []",
    ], done.stderr


def test_an_iterator_ends_when_it_is_closed_or_dropped(ops: ModuleType, tmp_path: Path) -> None:
    for number in range(40):
        make(tmp_path, {f"{number}/{name}": "" for name in range(60)})
    before = threading.active_count(), len(os.listdir("/proc/self/fd")), tasks()
    found = ops.walk(tmp_path)
    next(found)
    found.close()
    assert list(found) == []
    with ops.walk(tmp_path) as found:
        for _ in found:
            break
    for _ in ops.walk(tmp_path):
        break
    del found
    assert (threading.active_count(), len(os.listdir("/proc/self/fd")), tasks()) == before


def tasks() -> int:
    """Threads of this process, those without Python too."""
    return len(os.listdir("/proc/self/task"))


FORKED = """
import gc, os, sys, importlib, signal
ops = importlib.import_module(sys.argv[1])
found = ops.walk(sys.argv[2])
next(found)
child = os.fork()
if child == 0:
    signal.alarm(20)
    again = sum(1 for _ in ops.walk(sys.argv[2]))
    try:
        rest = sum(1 for _ in found)
    except ops.FileOpError if hasattr(ops, "FileOpError") else Exception as error:
        rest = "which forked" in str(error) or repr(error)
    found.close()
    del found
    gc.collect()
    print(again, rest, flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
print(status, 1 + sum(1 for _ in found))
"""


def test_a_forked_child_neither_hangs_nor_disturbs(ops: ModuleType, tmp_path: Path) -> None:
    for number in range(60):
        make(tmp_path, {f"{number}/{'n' * 200}{name}": "" for name in range(400)})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, ops.__name__, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    whole = 60 * 401
    child, parent = done.stdout.splitlines()
    assert child == f"{whole} True", done
    assert parent == f"0 {whole}", done


SEARCHED_AND_FORKED = """
import os, sys, importlib
ops = importlib.import_module(sys.argv[1])
from vespera_file_ops.errors import FileOpError
found = ops.search_files(sys.argv[2], "needle")
next(found)
child = os.fork()
if child == 0:
    for work in (lambda: list(found), lambda: found.errors):
        try:
            work()
        except FileOpError as error:
            print(error.code, "which forked" in str(error))
        else:
            print("no error")
    found.close()
    sys.stdout.flush()
    os._exit(0)
os.waitpid(child, 0)
print(1 + sum(1 for _ in found), found.error_count)
"""


def test_a_forked_child_takes_nothing_from_its_parents_search(
    ops: ModuleType, tmp_path: Path
) -> None:
    lines = 200_000
    (tmp_path / "large").write_text("needle\n" * lines)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SEARCHED_AND_FORKED, ops.__name__, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["internal True", "internal True", f"{lines} 0"], done


def test_names_that_are_not_utf8(ops: ModuleType, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path)
    for name in (b"\xff", b"a\xe2\x82", b"ok"):
        os.mkdir(raw + b"/" + name)
        with open(raw + b"/" + name + b"/f\xfe", "w") as file:
            file.write("needle\n")
    with open(raw + b"/.gitignore", "wb") as file:
        file.write(b"[\xff]\n")
    found = {os.fsencode(path)[len(raw) + 1 :] for path, _ in ops.walk(tmp_path, gitignore=True)}
    assert found == {b".gitignore", b"a\xe2\x82", b"a\xe2\x82/f\xfe", b"ok", b"ok/f\xfe"}
    assert len(list(ops.search_files(tmp_path, "needle", gitignore=False))) == 3


def test_a_tree_deeper_than_a_path_may_be_long(ops: ModuleType, tmp_path: Path) -> None:
    name = "d" * 200
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for depth in range(200):
        os.mkdir(name, dir_fd=descriptor)
        os.mkdir("other", dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        if depth == 30:
            os.close(os.open("marked", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    found = ops.walk(tmp_path, include="marked")
    assert len(list(found)) == 1
    assert found.error_count == 0
    subprocess.run(["rm", "-rf", str(tmp_path / name)], check=True)


DEEP = """
import os, resource, sys, importlib
ops = importlib.import_module(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
start = sys.argv[2]
name = "m" * 20
os.chdir(start)
for depth in range(1000):
    for beside in ("a", "z"):
        os.mkdir(beside)
        with open(beside + "/x", "w") as file:
            file.write("needle")
    if depth % 100 == 0:
        os.symlink("a", "link")
    os.mkdir(name)
    os.chdir(name)
with open("bottom", "w") as file:
    file.write("ground")
os.chdir("/")
for options in ({}, {"sort": True}, {"gitignore": True}):
    found = ops.walk(start, **options)
    print(sum(1 for _ in found), found.error_count, found.errors[:1])
space = ops.Workspace(start)
for walk in (lambda: ops.walk(start, follow=True), lambda: space.walk(".", follow=True)):
    found = walk()
    print(sum(1 for _ in found), found.error_count, found.errors[:1])
for where, start in ((ops, start), (space, ".")):
    found = where.search_files(start, "needle")
    print(sum(1 for _ in found), found.error_count)
print(len(ops.glob_files(sys.argv[2], "**/x")), len(space.glob_files(".", "**/x")))
print(space.read_file((name + "/") * 1000 + "bottom"))
for path in ((name + "/") * 1000 + "none", "b/" * 2500 + "x"):
    try:
        space.read_file(path)
    except FileNotFoundError:
        print("none")
for path in ((name + "/") * 300 + "../" * 300 + "../x", "/" + (name + "/") * 1000 + "bottom"):
    try:
        space.read_file(path)
    except PermissionError:
        print("out")
"""


def test_a_tree_as_deep_as_it_may_be(ops: ModuleType, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEEP, ops.__name__, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    subprocess.run(["rm", "-rf", str(tmp_path / ("m" * 20))], check=True)
    whole = 1000 * 5 + 10 + 1
    assert done.stdout.splitlines() == [
        *[f"{whole} 0 []"] * 3,
        # With the file behind each symlink.
        *[f"{whole + 10} 0 []"] * 2,
        *["2000 0"] * 2,
        "2000 2000",
        "b'ground'",
        *["none"] * 2,
        *["out"] * 2,
    ], done


def test_a_workspace_is_not_left(ops: ModuleType, tmp_path: Path) -> None:
    make(tmp_path, {"top/in/f": "needle\n", "outer/secret": "needle\n"})
    top = tmp_path / "top"
    (top / "out").symlink_to("../outer")
    (top / "abs").symlink_to(tmp_path / "outer")
    (top / "same").symlink_to("in")
    (top / "file").symlink_to("../outer/secret")
    (top / ".gitignore").symlink_to("../outer/secret")
    space = ops.Workspace(top)
    followed = {entry.path for entry in space.walk(".", follow=True)}
    assert followed == {
        f"./{name}" for name in (".gitignore", "in", "in/f", "out", "abs", "same", "same/f", "file")
    }
    assert {match.path for match in space.search_files(".", "needle", follow=True)} == {
        "./in/f",
        "./same/f",
    }
    for function in (space.walk, lambda path: space.search_files(path, "needle")):
        for path in ("..", "../outer", "out", "abs", "/"):
            with pytest.raises(PermissionError, match="leads out of the workspace"):
                function(path)
