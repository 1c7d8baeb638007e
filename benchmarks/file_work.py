"""Responsible for the file work that is measured, ours and the peers': seconds of a round each."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from vespera_file_ops.backends import python

from .programs import compiled

MEGABYTE = 1_000_000
MEMORY = Path("/dev/shm")
OLD, NEW = "needle-one", "needle-two"

Round = Callable[[], float]


def rust() -> ModuleType:
    """The Rust backend; a debug build measures nothing."""
    from vespera_file_ops.backends import rust as backend

    if backend.build_info()["profile"] != "release":
        sys.exit("the extension is a debug build; `nox -s bench` makes a release build")
    return backend


@contextmanager
def folder(place: str) -> Iterator[Path]:
    """A folder that is gone afterwards, in memory or on the disk of temporary files."""
    base = MEMORY if place == "memory" and MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vespera-files-", dir=base) as name:
        yield Path(name)


def b3sum() -> str | None:
    """The program `b3sum`, from PATH or as `cargo install b3sum --root target/peers` puts it."""
    local = Path(__file__).resolve().parent.parent / "target" / "peers" / "bin" / "b3sum"
    return str(local) if local.exists() else shutil.which("b3sum")


def timed(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of one of `times` calls."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def reads(path: Path, size: int, times: int) -> dict[str, Round]:
    """The whole content, many times. The base is what a Python program would write."""
    path.write_bytes(b"x" * size)
    name = str(path)
    backend = rust()

    def plain() -> bytes:
        with open(name, "rb") as file:  # noqa: PTH123 - what is measured is open itself
            return file.read()

    return {
        "open().read()": lambda: timed(plain, times),
        "rust": lambda: timed(lambda: backend.read_file(name), times),
        "python": lambda: timed(lambda: python.read_file(name), times),
    }


def text_of(size: int, line: int = 80) -> str:
    """Text of about `size` bytes in lines of `line`, with one needle in its middle."""
    row = ("x" * (line - 1) + "\n") * (size // line // 2)
    return f"{row}{OLD}\n{row}"


def edits(path: Path, size: int, times: int, line: int = 80) -> dict[str, Round]:
    """One edit; the needle's two forms take turns, so the file stays one of its size."""
    text = text_of(size, line)
    path.write_text(text)
    offset = text.index(OLD)

    def ours(backend: ModuleType) -> Round:
        def work() -> None:
            backend.edit_file(path, OLD, NEW)
            backend.edit_file(path, NEW, OLD)

        return lambda: timed(work, times) / 2

    def floor() -> float:
        seconds: float = twin().rewrite_edit(
            str(path).encode(), offset, OLD.encode(), NEW.encode(), 2 * times
        )
        return seconds / times / 2

    return {"C twin": floor, "rust": ours(rust()), "python": ours(python)}


def multi_edits(path: Path, size: int, times: int) -> dict[str, Round]:
    """Four edits at once, one of them in many places, beside the same floor as for one."""
    found = edits(path, size, times)

    def ours(backend: ModuleType) -> Round:
        def work() -> None:
            for old, new in ((OLD, NEW), (NEW, OLD)):
                backend.multi_edit_file(
                    path,
                    [(old, "between"), ("between", "mid-form"), ("mid-form", "z"), ("z", new)],
                )

        return lambda: timed(work, times) / 2

    return {"C twin": found["C twin"], "rust": ours(rust()), "python": ours(python)}


def writes(path: Path, size: int, times: int) -> dict[str, Round]:
    """An atomic write with its two fsyncs."""
    content = "x" * size
    path.write_text(content)

    def ours(backend: ModuleType) -> Round:
        return lambda: timed(lambda: backend.write_file_atomic(path, content), times)

    def floor() -> float:
        seconds: float = twin().rewrite_write(str(path).encode(), size, times)
        return seconds / times

    return {"C twin": floor, "rust": ours(rust()), "python": ours(python)}


def hashes(path: Path, size: int, algorithm: str) -> dict[str, Round]:
    """The hash of a large file; the Python backend has no BLAKE3 worth measuring."""
    with path.open("wb") as file:
        for _ in range(size // MEGABYTE):
            file.write(os.urandom(MEGABYTE))
    backend = rust()
    ours = {"rust": lambda: timed(lambda: backend.hash_file(path, algorithm))}
    if algorithm == "sha256":
        return {
            "hashlib": lambda: timed(lambda: hashed(path)),
            **ours,
            "python": lambda: timed(lambda: python.hash_file(path)),
        }
    peer = b3sum()
    if peer is None:
        raise FileNotFoundError("no b3sum; `cargo install b3sum --root target/peers` makes one")
    command = [peer, str(path)]
    return {
        "b3sum": lambda: timed(lambda: subprocess.run(command, check=True, capture_output=True)),
        **ours,
    }


def hashed(path: Path) -> str:
    """SHA-256 as a Python program would write it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def twin() -> ctypes.CDLL:
    """The same system calls in C; a call into it releases the GIL, as ours do."""
    library = ctypes.CDLL(str(compiled("rewrite", "-shared", "-fPIC")))
    size, text, number = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_int
    library.rewrite_write.argtypes = (text, size, number)
    library.rewrite_edit.argtypes = (text, size, text, text, number)
    library.rewrite_write.restype = library.rewrite_edit.restype = ctypes.c_double
    return library


# In a process of its own, so that nothing freed earlier is there to be used again.
PEAK = """
import sys
import importlib
path, old, new, many, impl = sys.argv[1:]
ops = importlib.import_module(f"vespera_file_ops.backends.{impl}")
def figure(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = figure("VmRSS")
edits = [(old, "between"), ("between", "z" * 10), ("z" * 10, new)] if many == "1" else [(old, new)]
ops.multi_edit_file(path, edits)
print((figure("VmHWM") - before) * 1024)
"""


def edit_peak(path: Path, size: int, many: bool, impl: str = "rust") -> float:
    """Most memory that an edit took, as a multiple of the file's size."""
    path.write_text(text_of(size))
    command = [sys.executable, "-c", PEAK, str(path), OLD, NEW, "1" if many else "0", impl]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout) / path.stat().st_size
