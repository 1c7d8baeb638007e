"""Responsible for building the fuzz targets, running each for a while, and keeping what they found.

`nox -s fuzz` gives each target ten seconds; `-- --seconds N` as many, `--target NAME` one of them.
A crash is written to `fuzz/artifacts/`, and the last line says how to see it again. `--keep` adds
to `fuzz/corpus/` what reaches code that nothing there reaches.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "target" / "fuzz"
TARGETS = ("framer", "envelope", "json", "packets", "session")
# What cargo-fuzz would set: every flag is one of stable Rust, so nothing has to be installed.
COVERAGE = (
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
)


def host_triple() -> str:
    """Named, so that cargo keeps the flags from build scripts and macros."""
    told = subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout
    return next(line.split()[1] for line in told.splitlines() if line.startswith("host:"))


def build() -> Path:
    """Compile all targets; returns the folder of the programs."""
    triple = host_triple()
    manifest = f"--manifest-path={HERE / 'Cargo.toml'}"
    subprocess.run(
        [
            *("cargo", "build", "--release", "--locked", "--quiet", manifest),
            *(f"--target={triple}", f"--target-dir={TARGET}"),
        ],
        check=True,
        # Not RUSTFLAGS: a flag of the caller's would come on top and build all of it anew.
        env={**os.environ, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(COVERAGE)},
    )
    return TARGET / triple / "release"


def fuzz(programs: Path, name: str, seconds: int) -> bool:
    """Run one target from the kept corpus; True when it found nothing."""
    found = TARGET / "corpus" / name
    artifacts = HERE / "artifacts" / name
    for folder in (found, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    print(f"==> {name}: {seconds} s", flush=True)
    done = subprocess.run(
        [
            *(str(programs / name), str(found), str(HERE / "corpus" / name)),
            *(f"-max_total_time={seconds}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"),
            *(f"-dict={HERE / 'frames.dict'}", f"-artifact_prefix={artifacts}/"),
            *("-print_final_stats=1", "-verbosity=0"),
        ],
    )
    if done.returncode:
        print(f"{name}: found something; see it again with")
        print(f"  {programs / name} {artifacts}/crash-…", flush=True)
    return done.returncode == 0


def keep(programs: Path, name: str) -> None:
    """Rewrite the kept corpus: the fewest and shortest inputs that reach the same code."""
    corpus, small = HERE / "corpus" / name, TARGET / "merged" / name
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir(parents=True)
    sources = [str(corpus), str(TARGET / "corpus" / name)]
    # Edges alone: how often one is passed would keep ten times as many.
    how = ("-set_cover_merge=1", "-use_counters=0", "-max_len=512", "-verbosity=0")
    subprocess.run([str(programs / name), *how, str(small), *sources], check=True)
    shutil.rmtree(corpus)
    shutil.copytree(small, corpus)


def main() -> int:
    """The exit code is 1 when any target found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=10, help="for each target")
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--keep", action="store_true", help="add new finds to fuzz/corpus")
    arguments = parser.parse_args()
    names = arguments.target or TARGETS
    programs = build()
    good = [fuzz(programs, name, arguments.seconds) for name in names]
    if arguments.keep and all(good):
        for name in names:
            keep(programs, name)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
