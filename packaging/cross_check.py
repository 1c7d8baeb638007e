#!/usr/bin/env python3
"""Responsible for the question whether the Rust packages still type-check for systems not at hand.

Checks both packages with their bindings for macOS and Windows, and for the Linux wheels that are
not this machine's (musl, aarch64) what needs no linker of theirs: the guardian and the shared
crates, with musl the files too. The standard library of a target is the toolchain's own where
rustup has added it, else it is built from Debian's sources (packages rustc-web, cargo-web and
rust-web-src). Nothing is linked and nothing runs: this says that the code is meant for the system,
not that it works there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ("vespera-config", "vespera-error")
BOTH = ("vespera-agent-spawner", "vespera-file-ops", *SHARED)
# The spawner's build makes its guardian, which is linked; the files need C for BLAKE3.
CRATES = {
    "aarch64-apple-darwin": BOTH,
    "x86_64-pc-windows-msvc": BOTH,
    "x86_64-unknown-linux-musl": ("vespera-guardian", "vespera-file-ops", *SHARED),
    "aarch64-unknown-linux-gnu": ("vespera-guardian", *SHARED),
}
TARGETS = tuple(CRATES)
DEBIAN = Path("/usr/bin")
# Stable in the compilers that the packages ask for, and behind a gate in Debian's older one: what
# any crate may use, and what ours do beside that.
GATED = "let_chains, slice_as_chunks"
OURS = "os_str_display, unsigned_is_multiple_of, integer_sign_cast"
INSTALL = "rustup target add {target}, or apt install rustc-web cargo-web rust-web-src"


def has_target(target: str) -> bool:
    """Whether the toolchain in use has the standard library of that target."""
    command = ["rustc", "--print=target-libdir", f"--target={target}"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return told.returncode == 0 and Path(told.stdout.strip()).is_dir()


def has_sources() -> bool:
    """Whether Debian's compiler and its sources are there, of one version."""
    compiler = DEBIAN / "rustc"
    if not (compiler.exists() and (DEBIAN / "cargo").exists()):
        return False
    sysroot = subprocess.run(
        [compiler, "--print=sysroot"], capture_output=True, text=True, check=True
    )
    return (Path(sysroot.stdout.strip()) / "lib/rustlib/src/rust/library/std").is_dir()


def toolchain(target: str) -> tuple[list[str], dict[str, str]] | None:
    """cargo and its environment for that target; None when there is none."""
    if has_target(target):
        return ["cargo", "check"], {}
    if has_sources():
        # -Zbuild-std is for nightly compilers, and for who says that he knows.
        environment = {"RUSTC": str(DEBIAN / "rustc"), "RUSTC_BOOTSTRAP": "1"}
        environment["RUSTC_WRAPPER"] = str(Path(__file__).resolve())
        command = [str(DEBIAN / "cargo"), "check", "--ignore-rust-version"]
        return [*command, "-Zbuild-std=std,panic_unwind"], environment
    return None


def check(target: str) -> int:
    """Type-check for the target; cargo's exit code."""
    found = toolchain(target)
    if found is None:
        print(f"{target}: no standard library for it here: {INSTALL.format(target=target)}")
        return 1
    command, environment = found
    print(f"==> {target}: {' '.join(command)}", flush=True)
    crates = CRATES.get(target, BOTH)
    features = [f"--features={crate}/python" for crate in BOTH[:2] if crate in crates]
    folder = ROOT / "target" / "cross"
    line = [*command, "--locked", f"--target={target}", f"--target-dir={folder}", *features]
    line += [f"--package={crate}" for crate in crates]
    # Compiled for the same processor, and not linked: the machine's own will do.
    environment.setdefault("CC_x86_64_unknown_linux_musl", "cc")
    # abi3 needs no interpreter of the target, and one of this machine would mislead pyo3.
    binding = {"PYO3_NO_PYTHON": "1", "PYO3_BUILD_EXTENSION_MODULE": "1"}
    given = {**os.environ, **environment, **binding}
    return subprocess.run(line, cwd=ROOT, env=given, check=False).returncode


def compile_with(command: list[str]) -> None:
    """Be cargo's wrapper of a compiler: it takes what is behind a gate, and from then on is it."""
    # The standard library opens its own gates, and a gate may be opened once.
    is_std = any("rustlib/src" in word for word in command)
    is_crate = "--crate-name" in command and "___" not in command
    is_ours = Path(os.environ.get("CARGO_MANIFEST_DIR", "/")).is_relative_to(ROOT)
    gates = f"{GATED}, {OURS}" if is_ours else GATED
    more = [f"-Zcrate-attr=feature({gates})"] if is_crate and not is_std else []
    os.execv(command[0], [*command, *more])


def main() -> int:
    """Check all targets, or the ones named."""
    if len(sys.argv) > 1 and Path(sys.argv[1]).name == "rustc":
        compile_with(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="*", default=TARGETS)
    codes = {target: check(target) for target in parser.parse_args().target}
    for target, code in codes.items():
        print(f"{target}: {'type-checks' if code == 0 else 'FAILED'}")
    return 1 if any(codes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
