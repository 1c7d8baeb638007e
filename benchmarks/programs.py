"""Responsible for compiling the C programs of benchmarks/peers, once per content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

# A dynamic program spends most of its start in the loader, which is nobody's work here: three
# fifths of all CPU in P3 were that of the dynamic linker.
FLAGS = {"noop": ["-static"], "instant_cli": ["-static"]}

PEERS = Path(__file__).resolve().parent / "peers"


def compiled(name: str, *options: str) -> Path:
    """Path of the program made from `peers/NAME.c`; raises FileNotFoundError without a compiler.

    With the options `-shared -fPIC` it is a library.
    """
    source = PEERS / f"{name}.c"
    flags = (*FLAGS.get(name, ()), *options)
    digest = hashlib.sha256(source.read_bytes() + repr(flags).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"vespera-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    program = folder / f"{name}-{digest}"
    if not program.exists():
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise FileNotFoundError("no C compiler (cc, gcc, clang) on PATH; the floor needs one")
        making = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", *flags, "-o", str(making), str(source)], check=True)
        making.rename(program)
    return program
