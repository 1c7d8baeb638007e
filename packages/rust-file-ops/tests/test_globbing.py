"""Patterns: what they find, in which order, and which are refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vespera_file_ops.backends import python as reference
from vespera_file_ops.errors import FileOpError, PatternError

TREE = [
    "a.py",
    "b.txt",
    ".hidden.py",
    "é.py",
    "new\nline.py",
    "[x].py",
    "src/a.py",
    "src/deep/er/a.py",
    "src/deep/b.pyi",
    "srcs/a.py",
    "{y}.txt",
    "back\\slash",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "empty.py").mkdir()
    (tmp_path / "link.py").symlink_to("a.py")
    (tmp_path / "dangling.py").symlink_to("none")
    (tmp_path / "round.py").symlink_to("round.py")
    (tmp_path / "linked").symlink_to("src")
    os.mkfifo(tmp_path / "fifo.py")
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.py", [".hidden.py", "[x].py", "a.py", "link.py", "new\nline.py", "é.py"]),
        ("?.py", ["a.py", "é.py"]),
        ("[!a].py", ["é.py"]),
        ("[^é].py", ["a.py"]),
        ("[à-ï].py", ["é.py"]),
        ("[[]x].py", ["[x].py"]),
        ("\\[x\\].py", ["[x].py"]),
        ("[]x[]*", ["[x].py"]),
        ("src/*.py", ["src/a.py"]),
        ("./src//a.py", ["src/a.py"]),
        ("s*/a.py", ["src/a.py", "srcs/a.py"]),
        ("**/a.py", ["a.py", "src/a.py", "src/deep/er/a.py", "srcs/a.py"]),
        ("src/**/a.py", ["src/a.py", "src/deep/er/a.py"]),
        ("src/**", ["src/a.py", "src/deep/b.pyi", "src/deep/er/a.py"]),
        ("**/deep/**/*.{py,pyi}", ["src/deep/b.pyi", "src/deep/er/a.py"]),
        ("{src,srcs}/a.py", ["src/a.py", "srcs/a.py"]),
        ("{src/deep/b,a}.{py{,i},txt}", ["a.py", "src/deep/b.pyi"]),
        ("\\{y\\}.txt", ["{y}.txt"]),
        ("[{]y[}].txt", ["{y}.txt"]),
        ("back\\\\slash", ["back\\slash"]),
        ("new?line.py", ["new\nline.py"]),
        ("A.PY", []),
        ("linked/*", []),
        ("a.py/*", []),
        ("none", []),
    ],
)
def test_a_pattern_finds(ops: ModuleType, tree: Path, pattern: str, names: list[str]) -> None:
    assert ops.glob_files(tree, pattern) == [f"{tree}/{name}" for name in names]


def test_the_directory_comes_back_as_it_was_given(
    ops: ModuleType, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree)
    assert ops.glob_files(".", "src/*.py") == ["./src/a.py"]
    assert ops.glob_files("src", "*.py") == ["src/a.py"]
    assert ops.glob_files("src/", "*.py") == ["src/a.py"]
    assert ops.glob_files(b"linked", "*.py") == ["linked/a.py"]


def test_names_that_are_not_utf8_match_byte_by_byte_and_sort_by_bytes(
    ops: ModuleType, tmp_path: Path
) -> None:
    root = os.fsencode(tmp_path)
    names = [b"x\xe2\x82", b"x\xff", b"x\xef\xbc\xa1", b"x\xf0\x9d\x84\x9e", b"xa"]
    for name in names:
        with open(root + b"/" + name, "w"):
            pass
    found = ops.glob_files(tmp_path, "x*")
    assert [os.fsencode(path) for path in found] == [root + b"/" + name for name in sorted(names)]
    assert ops.glob_files(tmp_path, "x??") == [os.fsdecode(root + b"/x\xe2\x82")]
    assert ops.glob_files(tmp_path, os.fsdecode(b"x\xff")) == [os.fsdecode(root + b"/x\xff")]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("", "is empty; '*' means every file of the directory"),
        ("/etc/*", "starts with '/'; patterns are relative to the directory"),
        ("a/", "ends with '/', but only files are found; add '*'"),
        (".", "names the directory itself, but only files are found; add '*'"),
        ("../*", "holds '..'; give the directory above instead"),
        ("a**", "'**' must stand alone between slashes, as in 'a/**/b'"),
        ("[a", "'[' at character 0 is not closed; write '\\[' for the character"),
        ("é[]", "'[' at character 1 is not closed; write '\\[' for the character"),
        ("[a/b]", "'[' at character 0 is not closed; write '\\[' for the character"),
        ("x{a,b", "'{' at character 1 is not closed; write '\\{' for the character"),
        ("a}", "'}' at character 1 closes nothing; write '\\}' for the character"),
        ("a\\", "'\\' at character 1 escapes nothing; write '\\\\' for the character"),
        ("[z-a]", "a class holds a range that runs backwards"),
        ("a\0b", "holds a NUL character, which no file name can have"),
        ("{a,b}" * 30, "its braces stand for more than 1024 patterns; use '*' or several calls"),
        (
            "{" + "," * 9999 + "}",
            "its braces stand for more than 1024 patterns; use '*' or several calls",
        ),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(
    ops: ModuleType, tmp_path: Path, pattern: str, reason: str
) -> None:
    with pytest.raises(PatternError) as caught:
        ops.glob_files(tmp_path, pattern)
    error = caught.value
    assert isinstance(error, ValueError)
    assert isinstance(error, FileOpError)
    assert error.code == "pattern"
    assert error.context == {"pattern": pattern, "reason": reason}
    assert str(error) == f"glob pattern '{pattern}': {reason}"


def test_a_surrogate_that_no_name_has_is_refused(ops: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(PatternError, match="no file name can have"):
        ops.glob_files(tmp_path, "a\ud800")
    with pytest.raises(TypeError, match="pattern must be str"):
        ops.glob_files(tmp_path, b"*")


def test_a_directory_that_is_not_there_is_an_error(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(FileNotFoundError) as missing:
        ops.glob_files(tmp_path / "none", "*")
    assert missing.value.filename == str(tmp_path / "none")
    with pytest.raises(NotADirectoryError):
        ops.glob_files(tmp_path / "f", "*")
    with pytest.raises(FileNotFoundError):
        ops.glob_files("", "*")


def test_a_directory_is_read_only_if_it_can_hold_a_match(ops: ModuleType, tmp_path: Path) -> None:
    for name in ("wanted", "other"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "f").write_text("")
    code = (
        "import importlib, sys\n"
        "ops = importlib.import_module(sys.argv[1])\n"
        "print(len(ops.glob_files(sys.argv[2], 'wanted/*/f')))\n"
    )
    traced = subprocess.run(
        ["strace", "-f", "-e", "trace=openat", sys.executable, "-c", code, ops.__name__, tmp_path]
        if os.access("/usr/bin/strace", os.X_OK)
        else pytest.skip("needs strace"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert traced.stdout == "1\n"
    assert '"deep"' in traced.stderr
    assert '"other"' not in traced.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_a_closed_directory_hides_nothing_else(ops: ModuleType, tmp_path: Path) -> None:
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_text("")
    (tmp_path / "closed").chmod(0)
    for parent in (tmp_path, *tmp_path.parents):
        parent.chmod(parent.stat().st_mode | 0o555)
    code = (
        "import importlib, os, sys\n"
        "ops = importlib.import_module(sys.argv[1])\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "assert ops.glob_files(sys.argv[2], '**') == [sys.argv[2] + '/open/f']\n"
        "try:\n"
        "    ops.glob_files(sys.argv[2] + '/closed', '*')\n"
        "except PermissionError as error:\n"
        "    assert error.filename == sys.argv[2] + '/closed'\n"
        "else:\n"
        "    raise AssertionError('the directory asked for may not be left out')\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, ops.__name__, str(tmp_path)], check=True, timeout=60
    )


def test_patterns_made_to_be_slow_are_not(ops: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ("a" * 250)).write_text("")
    assert ops.glob_files(tmp_path, "*a" * 60 + "b") == []
    assert ops.glob_files(tmp_path, "**/" * 500 + "b") == []


def test_a_very_deep_tree_is_walked(ops: ModuleType, tmp_path: Path) -> None:
    deepest = str(tmp_path)
    for _ in range(1200):
        deepest += "/d"
        os.mkdir(deepest)
    Path(deepest, "f").write_text("")
    try:
        assert ops.glob_files(tmp_path, "**/f") == [deepest + "/f"]
    finally:
        # pytest's own clean-up is recursive and would not survive this tree.
        os.unlink(deepest + "/f")
        while deepest != str(tmp_path):
            os.rmdir(deepest)
            deepest = os.path.dirname(deepest)


def test_both_backends_agree_on_random_patterns(ops: ModuleType, tmp_path: Path) -> None:
    chance = random.Random(20)
    alphabet = ["a", "b", "é", ".", "-", "]"]
    for _ in range(150):
        parts = [
            "".join(chance.choices(alphabet, k=chance.randint(1, 4)))
            for _ in range(chance.randint(1, 3))
        ]
        path = tmp_path.joinpath(*[part if part.strip(".") else "a" for part in parts])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
    pieces = [*alphabet, "*", "?", "**", "/", "/", "[a-é]", "[!b]", "{a,b*}", "{", "[", "\\"]
    found = 0
    for _ in range(1500):
        pattern = "".join(chance.choices(pieces, k=chance.randint(1, 6)))
        answers = []
        for backend in (reference, ops):
            try:
                answers.append(backend.glob_files(tmp_path, pattern))
            except PatternError as error:
                answers.append([str(error)])
        assert answers[0] == answers[1], pattern
        found += len(answers[0])
    assert found > 1000


@pytest.mark.usefixtures("tracer")
def test_ctrl_c_ends_a_glob_on_a_slow_disk(goes_on: Callable[..., float], tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / str(number)).mkdir()
    slow = ["-e", "trace=getdents64", "-e", "inject=getdents64:delay_enter=20000"]
    under = ["strace", "-f", "-o", os.devnull, *slow]
    # A fifth of a second, and what a busy machine adds.
    assert goes_on("ops.glob_files(args[0], '**')", str(tmp_path), under=under) < 3
