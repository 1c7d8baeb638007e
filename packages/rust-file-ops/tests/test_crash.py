"""A writer that dies at any system call: old content or new, and what it left is cleaned."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

# The calls that a replace makes; each is a place to die at, every time it is made.
CALLS = (
    "openat",
    "openat2",
    "newfstatat",
    "statx",
    "fstat",
    "readlinkat",
    "read",
    "write",
    "flistxattr",
    "fgetxattr",
    "fremovexattr",
    "fsetxattr",
    "fchown",
    "fchmod",
    "fsync",
    "flock",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "close",
)
LEFTOVER = ".vespera-af63db4c8601ead9-0.tmp"
DEFAULT_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in (
        (1, 7, 0xFFFFFFFF),
        (2, 7, 12345),
        (4, 5, 0xFFFFFFFF),
        (16, 7, 0xFFFFFFFF),
        (32, 5, 0xFFFFFFFF),
    )
)
OLD, NEW = "old\n" * 1000, "newer\n" * 1000

# The first work brings every import and cache to rest; the second is the one that is killed.
CHILD = """
import importlib, os, sys
ops = importlib.import_module(sys.argv[1])
for path in (sys.argv[3], sys.argv[2]):
    if path == sys.argv[3]:
        with open(path, "w") as file:
            file.write("old\\n" * 1000)
    WORK
"""
WORK = {
    "write_file_atomic": 'ops.write_file_atomic(path, "newer\\n" * 1000)',
    "edit_file": 'ops.edit_file(path, "old", "newer", replace_all=True)',
    "write_text": 'ops.write_text(path, "newer\\n" * 1000, expect=os.stat(path).st_mtime_ns)',
}


def prepare(path: Path) -> None:
    """A file with all that a replacement keeps, and a leftover of its last writer."""
    path.write_text(OLD)
    # The name that both backends give the first temporary file of a target called `f`.
    (path.parent / LEFTOVER).write_text("left")
    with contextlib.suppress(OSError):  # no such things here: the rest is still to be tried
        os.setxattr(path, "user.origin", b"kept")
    with contextlib.suppress(OSError):
        os.removexattr(path, "system.posix_acl_access")
    path.chmod(0o660)
    with contextlib.suppress(OSError):
        os.chown(path, 1234, 4321)


def rights(path: Path) -> tuple[object, ...]:
    status = path.stat()
    attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return status.st_uid, status.st_gid, status.st_mode, attributes


def strace(ops: ModuleType, work: str, path: Path, log: Path, *options: str) -> int:
    command = ["strace", "-f", "-o", str(log), *options]
    code = CHILD.replace("WORK", WORK[work])
    child = [sys.executable, "-S", "-c", code, ops.__name__, str(path), f"{log}.warm"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [*command, *child], capture_output=True, timeout=60, check=False, env=environment
    )
    return done.returncode


@pytest.mark.usefixtures("tracer")
@pytest.mark.timeout(300)
@pytest.mark.slow
@pytest.mark.parametrize("work", WORK)
def test_a_kill_at_every_system_call_leaves_old_or_new(
    ops: ModuleType, tmp_path: Path, work: str
) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    path = directory / "f"
    with contextlib.suppress(OSError):  # inherited by what is made there, and not the file's
        os.setxattr(directory, "system.posix_acl_default", DEFAULT_ACL)
    prepare(path)
    kept = rights(path)
    log = tmp_path / "log"
    assert (
        strace(ops, work, path, log, "-e", f"trace={','.join(f'?{call}' for call in CALLS)}") == 0
    )
    assert path.read_text() == NEW
    lines = [line.split(maxsplit=1)[1] for line in log.read_text().splitlines() if "(" in line]
    names = [line.partition("(")[0] for line in lines]
    # Only the calls from the first one that is about the real file or its directory on.
    start = min(n for n, line in enumerate(lines) if f'"{directory}' in line)
    if "user.origin" in os.listxattr(path):
        assert {"flistxattr", "fgetxattr", "fsetxattr"} <= set(names[start:])
    if "system.posix_acl_default" in os.listxattr(directory):
        assert "fremovexattr" in names[start:]
    assert {"fsync", "fchmod", "unlinkat"} <= set(names[start:])
    seen = {"old": 0, "new": 0}
    for number in range(start, len(names)):
        name = names[number]
        if name not in CALLS:
            continue
        when = names[: number + 1].count(name)
        prepare(path)
        strace(ops, work, path, log, "-e", f"inject={name}:signal=KILL:when={when}")
        content = path.read_text()
        assert content in (OLD, NEW), f"mixed after a kill at {name} {when}"
        assert rights(path) == kept, f"other rights after a kill at {name} {when}"
        seen["old" if content == OLD else "new"] += 1
        ops.write_file_atomic(path, "after")
        assert os.listdir(directory) == ["f"], f"left after a kill at {name} {when}"
        path.unlink()
    assert seen["old"] >= 3
    assert seen["new"] >= 1


@pytest.mark.usefixtures("tracer")
@pytest.mark.parametrize("work", WORK)
def test_the_content_is_on_the_disk_before_the_rename_and_the_name_after_it(
    ops: ModuleType, tmp_path: Path, work: str
) -> None:
    directory = tmp_path / "work"
    directory.mkdir()
    path = directory / "f"
    path.write_text(OLD)
    log = tmp_path / "log"
    calls = "write,fsync,fdatasync,?rename,renameat,renameat2"
    assert strace(ops, work, path, log, "-y", "-e", f"trace={calls}") == 0
    # With -y every descriptor is shown with the path it was opened by.
    temporary = re.escape(str(directory)) + r"/\.vespera-[^>]*"
    steps = {
        "content": rf"write\(\d+<{temporary}>",
        "content on disk": rf"fsync\(\d+<{temporary}>",
        "rename": r'rename(at2?)?\(.*"\.vespera-[^"]*", .*"f"',
        "name on disk": rf"fsync\(\d+<{re.escape(str(directory))}>",
    }
    seen = [
        step
        for line in log.read_text().splitlines()
        if f"{directory}" in line
        for step, call in steps.items()
        if re.search(call, line)
    ]
    assert seen == list(steps), log.read_text()


def test_the_leftover_of_a_dead_writer_is_cleaned_and_that_of_a_living_one_is_not(
    ops: ModuleType, tmp_path: Path
) -> None:
    """A child stops in the middle of a write, with its temporary file locked."""
    code = (
        "import os, signal\n"
        "from vespera_file_ops.backends.python import _temporary\n"
        f"directory = os.open({str(tmp_path)!r}, os.O_RDONLY)\n"
        "_temporary.create(directory, 'f', private=False)\n"
        "_temporary.create(directory, 'f', private=False)\n"
        "print('ready', flush=True)\n"
        "signal.pause()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        left = set(os.listdir(tmp_path))
        assert len(left) == 2
        ops.write_file_atomic(tmp_path / "f", "one")
        assert set(os.listdir(tmp_path)) == {*left, "f"}
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    ops.write_file_atomic(tmp_path / "f", "two")
    assert os.listdir(tmp_path) == ["f"]
    assert (tmp_path / "f").read_text() == "two"
