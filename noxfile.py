#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = ["nox>=2026.10.20"]
# ///
"""Responsible for the one way to build, test, measure and package this repository.

`nox -l` lists the sessions; everything after `--` goes to the program the session is about.
Without uv the sessions use virtualenv, so Python and a Rust toolchain are all that is needed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "test"]

ROOT = Path(__file__).parent
RUST_PACKAGES = ("rust-agent-spawner", "rust-file-ops")
PACKAGES = (*RUST_PACKAGES, "vespera-server")
CIBW_PLATFORMS = {"linux": "x86_64,aarch64", "macos": "x86_64,arm64", "windows": "AMD64"}
MATRIX = ("3.11", "3.12", "3.13", "3.14", "3.15", "3.14t", "3.15t")


def packages(names: tuple[str, ...] = PACKAGES) -> list[Path]:
    """The folders of the packages."""
    return [ROOT / "packages" / name for name in names]


def install_pins(session: nox.Session, *groups: str) -> None:
    """Install third-party packages exactly as pinned (see `nox -s pins`)."""
    files = [f"--requirement=requirements/{group}.txt" for group in groups]
    session.install("--require-hashes", *files)


def build_environment(profile: str) -> dict[str, str]:
    """Environment of a maturin build.

    Its own target directory: cargo and maturin set different PYO3_* variables, and each would
    invalidate what the other has compiled.
    """
    return {
        "CARGO_TARGET_DIR": str(ROOT / "target" / "maturin"),
        "MATURIN_NO_INSTALL_RUST": "1",
        "MATURIN_PEP517_ARGS": f"--profile={profile}",
    }


def install_editable(session: nox.Session, *, profile: str = "dev") -> None:
    """Install all packages from the checkout, compiled in `profile`."""
    for folder in packages():
        # Reinstalled each time: uv would keep a build whose Rust sources have changed since.
        session.install(
            "--no-deps",
            "--force-reinstall",
            "--no-build-isolation",
            f"--editable={folder}",
            env=build_environment(profile),
        )


def cargo(session: nox.Session, *args: str) -> None:
    """Run cargo with the session's interpreter as the one pyo3 looks at."""
    python = shutil.which("python", path=session.bin) or "python"
    session.run("cargo", *args, external=True, env={"PYO3_PYTHON": python})


def pytest(session: nox.Session, *, env: dict[str, str]) -> None:
    """Run the suites of all packages and the ones that cross packages."""
    suites = [str(folder / "tests") for folder in packages()]
    # One configuration for all: without -c pytest would take that of a single named package.
    command = ["python", "-m", "pytest", "-c", "pyproject.toml", "--rootdir", str(ROOT)]
    session.run(*command, *(session.posargs or [*suites, "tests"]), env=env)


@nox.session
def test(session: nox.Session) -> None:
    """Everything the current interpreter can prove: cargo test, both backends, the repository."""
    install_pins(session, "test")
    install_editable(session)
    if not session.posargs:
        cargo(session, "test", "--workspace", "--quiet")
    pytest(session, env={"VESPERA_REQUIRE_RUST": "1"})


@nox.session(python=MATRIX)
def test_matrix(session: nox.Session) -> None:
    """The suites on every supported interpreter found here."""
    install_pins(session, "test")
    install_editable(session)
    pytest(session, env={"VESPERA_REQUIRE_RUST": "1"})


@nox.session
def test_pure(session: nox.Session) -> None:
    """The suites from pure wheels: no extension module, no Rust toolchain, Python backend."""
    install_pins(session, "test")
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for folder in packages(RUST_PACKAGES):
        session.run("python", "packaging/pure_wheel.py", str(folder), str(wheels))
    for folder in packages(("vespera-server",)):
        session.run("python", "-m", "build", "-nw", f"--outdir={wheels}", str(folder))
    session.install("--no-deps", "--force-reinstall", *map(str, sorted(wheels.glob("*.whl"))))
    path = f"{no_toolchain(session)}{os.pathsep}{session.bin}{os.pathsep}{os.environ['PATH']}"
    # Not this session's folder, where create_tmp points: git ignores everything in it.
    place = {"TMPDIR": os.environ.get("TMPDIR", "/tmp")}
    pytest(session, env={"VESPERA_BACKEND": "python", "PATH": path, **place})


def no_toolchain(session: nox.Session) -> Path:
    """A folder that hides cargo, rustc and maturin from whoever has it first on PATH."""
    folder = Path(session.create_tmp()) / "no-toolchain"
    folder.mkdir(exist_ok=True)
    for name in ("cargo", "rustc", "rustup", "maturin"):
        script = folder / name
        script.write_text(f"#!/bin/sh\necho 'test_pure: {name} must not be run' >&2\nexit 127\n")
        script.chmod(0o755)
    return folder


@nox.session
def lint(session: nox.Session) -> None:
    """Style and traps: ruff, rustfmt, clippy, typos, workflows, pyproject files."""
    install_pins(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("typos")
    session.run(
        "validate-pyproject", "pyproject.toml", *[f"{p}/pyproject.toml" for p in packages()]
    )
    workflows = sorted(map(str, (ROOT / ".github" / "workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema=vendor.github-workflows", *workflows)
    session.run("actionlint", *workflows)
    session.run("zizmor", "--offline", "--quiet", ".github")
    cargo(session, "fmt", "--all", "--check")
    cargo(session, "fmt", "--manifest-path=fuzz/Cargo.toml", "--check")
    # The bindings are behind a feature: tests need no interpreter, the linter sees all.
    features = "--features=vespera-agent-spawner/python,vespera-file-ops/python"
    cargo(session, "clippy", "--workspace", "--all-targets", features, "--", "-Dwarnings")


@nox.session
def format(session: nox.Session) -> None:
    """Rewrite the sources the way `lint` wants them."""
    install_pins(session, "lint")
    session.run("ruff", "check", "--fix", ".")
    session.run("ruff", "format", ".")
    cargo(session, "fmt", "--all")
    cargo(session, "fmt", "--manifest-path=fuzz/Cargo.toml")


@nox.session
def typecheck(session: nox.Session) -> None:
    """mypy --strict over everything, stubtest over the stubs of the extension modules."""
    install_pins(session, "test", "typecheck")
    install_editable(session)
    config = f"--config-file={ROOT / 'pyproject.toml'}"
    session.run("mypy", config, "noxfile.py")
    # One run per folder of tests: each has a conftest of its own.
    tests = sorted(folder for folder in (ROOT / "tests").iterdir() if folder.is_dir())
    others = [ROOT / name for name in ("packaging", "benchmarks", "examples", "fuzz")]
    for folder in (*others, *tests):
        if any(folder.rglob("*.py")):
            session.run("mypy", config, str(folder))
    for folder in packages():
        for half in ("python", "src", "tests"):
            if any((folder / half).rglob("*.py")):
                session.run("mypy", config, str(folder / half))
    for folder in packages(RUST_PACKAGES):
        for stub in sorted((folder / "python").glob("*/_native.pyi")):
            module = f"{stub.parent.name}._native"
            session.run("python", "-m", "mypy.stubtest", module)


@nox.session
def build(session: nox.Session) -> None:
    """Compiled wheels, pure wheels and sdists of all three into `dist/`, each one proven."""
    install_pins(session, "build")
    dist = ROOT / "dist"
    for stale in (*dist.glob("*.whl"), *dist.glob("*.tar.gz")):
        stale.unlink()
    env = build_environment("release")
    for folder in packages(RUST_PACKAGES):
        manifest = f"--manifest-path={folder / 'Cargo.toml'}"
        session.run("maturin", "build", "--release", "--locked", manifest, f"--out={dist}", env=env)
        session.run("python", "packaging/make_sdist.py", str(folder), str(dist))
        session.run("python", "packaging/pure_wheel.py", str(folder), str(dist))
    for folder in packages(("vespera-server",)):
        session.run("python", "-m", "build", "--no-isolation", f"--outdir={dist}", str(folder))
    session.run("twine", "check", "--strict", *map(str, sorted(dist.glob("vespera*"))))
    session.run("python", "packaging/prove_wheels.py", str(dist), *session.posargs)
    session.run("python", "packaging/prove_sdists.py", str(dist), env=env)


@nox.session
def wheels(session: nox.Session) -> None:
    """A release as far as this machine makes one, for an older C library: audited and proven.

    `release.yml` makes the rest of the matrix by `cibuildwheel`; its identifiers are printed.
    """
    install_pins(session, "wheels")
    dist = ROOT / "dist" / "release"
    shutil.rmtree(dist, ignore_errors=True)
    env = build_environment("release") | {"CARGO_TARGET_DIR": str(ROOT / "target" / "wheels")}
    for folder in packages(RUST_PACKAGES):
        manifest = f"--manifest-path={folder / 'Cargo.toml'}"
        line = ("maturin", "build", "--release", "--locked", manifest, f"--out={dist}")
        session.run(*line, "--zig", "--compatibility=manylinux_2_28", "--auditwheel=check", env=env)
        session.run("python", "packaging/make_sdist.py", str(folder), str(dist))
        session.run("python", "packaging/pure_wheel.py", str(folder), str(dist))
    for folder in packages(("vespera-server",)):
        session.run("python", "-m", "build", "--no-isolation", f"--outdir={dist}", str(folder))
    everything = sorted(map(str, dist.glob("vespera*")))
    session.run("twine", "check", "--strict", *everything)
    session.run("check-wheel-contents", *[name for name in everything if name.endswith(".whl")])
    compiled = sorted(map(str, dist.glob("*-abi3-*.whl")))
    for wheel in compiled:
        session.run("auditwheel", "show", wheel)
    session.run("abi3audit", "--strict", "--report", *compiled)
    for folder in packages(RUST_PACKAGES):
        session.run("python", "packaging/prove_in_venv.py", str(folder), str(dist))
    for name in RUST_PACKAGES:
        for platform, archs in CIBW_PLATFORMS.items():
            words = (f"--platform={platform}", f"--archs={archs}", "--print-build-identifiers")
            session.run("cibuildwheel", f"packages/{name}", "--config-file=pyproject.toml", *words)
    session.run("python", "packaging/wheel_matrix.py", str(dist))


@nox.session
def cibuildwheel(session: nox.Session) -> None:
    """All compiled wheels of this platform into `dist/`: on Linux with docker or podman.

    Words go to cibuildwheel, as in `-- --only cp311-manylinux_x86_64`.
    """
    install_pins(session, "wheels")
    for name in RUST_PACKAGES:
        words = ("--config-file=pyproject.toml", "--output-dir=dist")
        session.run("cibuildwheel", f"packages/{name}", *words, *session.posargs)


@nox.session
def cross_check(session: nox.Session) -> None:
    """Whether the Rust packages type-check for other systems; see packaging/cross_check.py."""
    if os.environ.get("VESPERA_INSTALL_TOOLCHAIN"):
        desktops = ("aarch64-apple-darwin", "x86_64-pc-windows-msvc")
        linux = ("x86_64-unknown-linux-musl", "aarch64-unknown-linux-gnu")
        session.run("rustup", "target", "add", *desktops, *linux, external=True)
    session.run("python", "packaging/cross_check.py", *session.posargs)


@nox.session
def release_check(session: nox.Session) -> None:
    """Whether tag, versions, bounds and changelog agree: `-- v1.2.3`, or the workflow's tag."""
    session.run("python", "packaging/release_check.py", *session.posargs)


@nox.session
def release_whole(session: nox.Session) -> None:
    """Whether `dist/` holds every file that a release promises."""
    session.run("python", "packaging/wheel_matrix.py", "--whole", "dist", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Release build, then one table of floor, peers and both backends: `-- --rounds N --json FILE`.

    Works or groups may be named: `-- P4`, `-- files`. `python -m benchmarks.page FILE` makes
    `docs/performance.md` of the JSON.
    """
    install_pins(session, "bench")
    install_editable(session, profile="release")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def bench_smoke(session: nox.Session) -> None:
    """Whether every benchmark still works; the figures mean nothing."""
    install_pins(session, "bench")
    install_editable(session, profile="release")
    session.run("asv", "machine", "--yes")
    session.run("asv", "check", "--environment=existing:python")
    # --dry-run: without it even a quick run saves its results.
    session.run(
        *("asv", "run", "--environment=existing:python", "--quick", "--dry-run", "--show-stderr"),
        env={"VESPERA_BENCH_ROUNDS": "1"},
    )
    session.run("python", "-m", "benchmarks", "--smoke")
    if shutil.which("npm"):
        make_dashboard(session)


def make_dashboard(session: nox.Session, **env: str) -> None:
    """Publish the committed series and open the pages in Chromium, in an environment with asv."""
    session.run("python", "-m", "benchmarks.dashboard", "fetch")
    session.run("python", "-m", "benchmarks.dashboard", "publish")
    pages = {"VESPERA_DASHBOARD": str(ROOT / ".asv" / "html"), **env}
    command = ["python", "-m", "pytest", "-c", "pyproject.toml", "--rootdir", str(ROOT)]
    session.run(*command, "tests/dashboard", env=pages)


@nox.session
def bench_compare(session: nox.Session) -> None:
    """Whether HEAD is slower than a commit, by asv: `-- BASE`; anything else goes to asv."""
    install_pins(session, "bench")
    if not session.posargs:
        session.error("name the commit to compare with: nox -s bench_compare -- BASE")
    base, *words = session.posargs
    session.run("asv", "machine", "--yes")
    session.run("asv", "continuous", "--factor=1.2", "--show-stderr", *words, base, "HEAD")


@nox.session
def bench_publish(session: nox.Session) -> None:
    """Measure asv's series at the newest commits, or those named, and make the dashboard of it.

    `-- COMMIT… --number N --quick`. The results replace benchmarks/series_results.
    """
    install_pins(session, "bench")
    session.run("python", "-m", "benchmarks.dashboard", "run", *session.posargs)
    session.run("python", "-m", "benchmarks.dashboard", "keep")
    session.notify("dashboard", posargs=[])


@nox.session
def dashboard(session: nox.Session) -> None:
    """Make the dashboard of the committed results in `.asv/html`, and open it in Chromium."""
    install_pins(session, "bench")
    make_dashboard(session, VESPERA_REQUIRE_BROWSER="1")


@nox.session
def instructions(session: nox.Session) -> None:
    """Whether a hot path takes more instructions than is written: see
    benchmarks/instructions.py."""
    if shutil.which("valgrind") is None:
        session.skip("no valgrind, which counts them; its package has that name")
    session.run("python", "-m", "benchmarks.instructions", *session.posargs)


@nox.session
def api_diff(session: nox.Session) -> None:
    """What public names and stubs have become since a base: `-- BASE --strict`, or the newest
    tag."""
    install_pins(session, "stability")
    base = os.environ.get("GITHUB_BASE_REF")
    words = session.posargs or ([f"origin/{base}"] if base else [])
    session.run("python", "packaging/api_diff.py", *words)


@nox.session
def msrv(session: nox.Session) -> None:
    """Whether the oldest promised compiler (`rust-version`) still compiles everything."""
    cargo_toml = nox.project.load_toml(str(ROOT / "Cargo.toml"))
    version = str(cargo_toml["workspace"]["package"]["rust-version"])
    if os.environ.get("VESPERA_INSTALL_TOOLCHAIN"):
        install = ("rustup", "toolchain", "install", version, "--profile=minimal")
        session.run(*install, "--no-self-update", external=True)
    known = session.run("rustup", "toolchain", "list", external=True, silent=True) or ""
    if not any(line.startswith((f"{version}-", f"{version}.")) for line in known.splitlines()):
        session.skip(f"no Rust {version} here: rustup toolchain install {version}")
    features = "--features=vespera-agent-spawner/python,vespera-file-ops/python"
    target = f"--target-dir={ROOT / 'target' / 'msrv'}"
    line = ("rustup", "run", version, "cargo", "check", "--workspace", "--locked")
    session.run(*line, "--all-targets", features, target, external=True)


@nox.session
def licences(session: nox.Session) -> None:
    """Licences, sources and duplicates of all crates by cargo-deny; `-- advisories` those too."""
    if shutil.which("cargo-deny") is None:
        session.skip("no cargo-deny: cargo install --locked cargo-deny")
    checks = ("licenses", "bans", "sources", *session.posargs)
    session.run("cargo", "deny", "--locked", "check", *checks, external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """Advisories of everything that is pinned, by pip-audit, which asks for them on the network."""
    install_pins(session, "stability")
    pins = [f"--requirement={path}" for path in sorted((ROOT / "requirements").glob("*.txt"))]
    session.run("pip-audit", "--strict", "--require-hashes", "--disable-pip", *pins)


@nox.session
def examples(session: nox.Session) -> None:
    """The examples, by mypy --strict and pyright, against installed wheels and no checkout."""
    install_pins(session, "test", "stability")
    wheels = Path(session.create_tmp()) / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for folder in packages(RUST_PACKAGES):
        session.run("python", "packaging/pure_wheel.py", str(folder), str(wheels))
    for folder in packages(("vespera-server",)):
        session.run("python", "-m", "build", "-nw", f"--outdir={wheels}", str(folder))
    session.install("--no-deps", "--force-reinstall", *map(str, sorted(wheels.glob("*.whl"))))
    place = Path(session.create_tmp()) / "examples"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "examples", place)
    python = shutil.which("python", path=session.bin) or "python"
    with session.chdir(place):
        session.run("mypy", "--strict", f"--python-executable={python}", ".")
        session.run("basedpyright", f"--pythonpath={python}", "--level=error", ".")


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill hosts, guardians and leashes at random and add it to the ledger; see chaos/README.md.

    `--minutes M --jobs J --seed S`; `--systematic` kills at every system call; `--smoke` runs some
    of all and records none.
    """
    install_pins(session, "test")
    install_editable(session)
    cargo(session, "build", "--release", "--quiet", "--package", "vespera-chaos")
    session.run("python", "chaos/report.py", *(session.posargs or ["--minutes", "1"]))


@nox.session
def run_kills(session: nox.Session) -> None:
    """Kill `vespera run` at random moments and resume it; adds to chaos/run_ledger.jsonl.

    `--kills N --jobs J`, `--real` for the real CLI, `--report` only reads the ledger.
    """
    install_pins(session, "test")
    install_editable(session)
    session.run("python", "chaos/run_kills.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz framer, envelope, json, packets and session for ten seconds each; see fuzz/README.md.

    `--seconds N --target NAME --keep`. Needs a C++ compiler, and nothing of cargo-fuzz.
    """
    session.run("python", "fuzz/run.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Two hundred busy agents for an hour, and whether anything grew: `--minutes M --agents N`.

    `--smoke` is a minute with forty. The Rust backend in a release build.
    """
    install_pins(session, "test")
    install_editable(session, profile="release")
    session.run("python", "-m", "benchmarks.soak", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Build everything and run `vespera demo`: real agents, a scripted model, no account."""
    install_pins(session, "test")
    install_editable(session)
    session.run("vespera", "demo", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run what the documents show: snippets and commands of every page and README."""
    install_pins(session, "test")
    install_editable(session)
    shown = (
        "repo/test_architecture_map.py",
        "real_cli/test_how_tos.py",
        "real_cli/test_readmes.py",
    )
    pages = (*(f"tests/{name}" for name in shown), "tests/docs")
    session.run("python", "-m", "pytest", *pages, *session.posargs)


@nox.session
def dev(session: nox.Session) -> None:
    """Fill `.venv` for an editor: all tools, all packages editable, dev profile."""
    python = ROOT / ".venv" / "bin" / "python"
    if not python.exists():
        session.run("python", "-m", "venv", str(ROOT / ".venv"))
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    pins = [f"--requirement=requirements/{name}.txt" for name in ("test", "lint", "typecheck")]
    session.run(*pip, "--require-hashes", *pins, external=True)
    path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    for folder in packages():
        session.run(
            *pip,
            "--no-deps",
            "--no-build-isolation",
            f"--editable={folder}",
            env={**build_environment("dev"), "PATH": path},
            external=True,
        )


@nox.session
def pins(session: nox.Session) -> None:
    """Resolve requirements/*.txt anew from the dependency groups and the packages."""
    session.install("uv")
    session.run("python", "packaging/pins.py", *session.posargs)


if __name__ == "__main__":
    nox.main()
