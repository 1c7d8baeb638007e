"""Runs trials of the built harness, adds them to the ledger, and says what the ledger proves.

``--minutes M`` for each of ``--jobs J`` harnesses from ``--seed S`` on; ``--target`` kills one kind
only. Without ``--minutes`` it only reads the ledger. ``--systematic`` kills at every system call
instead of at random. ``--smoke`` runs 300 trials of each kind and the systematic ones, and records
none. ``--hash`` prints the hash of the guardian's sources.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

CHAOS = Path(__file__).parent
ROOT = CHAOS.parent
LEDGER = CHAOS / "ledger.jsonl"
GUARDIAN = ROOT / "packages" / "rust-agent-spawner" / "guardian"
TARGETS = ("host", "guardian", "leash")


def guardian_hash() -> str:
    """The first 12 hexadecimal digits of SHA-256 over the guardian's sources, in path order."""
    digest = hashlib.sha256()
    for path in sorted([*GUARDIAN.rglob("src/**/*.rs"), GUARDIAN / "Cargo.toml"]):
        digest.update(path.relative_to(GUARDIAN).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def harness() -> str:
    """The program that `cargo build --release --package vespera-chaos` made."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "release" / "vespera-chaos"
    if not program.exists():
        sys.exit(f"{program.name} is not built; `nox -s chaos` builds it")
    return str(program)


def run(seconds: int, trials: int, jobs: int, seed: int, target: str, ledger: Path | None) -> bool:
    """Run ``jobs`` harnesses at once; whether nothing survived. Each writes a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        parts = [Path(folder) / f"{job}.jsonl" for job in range(jobs)]
        command = [harness(), "run", "--seconds", str(seconds), "--trials", str(trials)]
        command += ["--target", target, "--hash", guardian_hash()]
        command += ["--python", sys.executable, str(CHAOS / "host.py")]
        running = [
            subprocess.Popen([*command, "--seed", str(seed + job * 10**7), "--ledger", str(part)])
            for job, part in enumerate(parts)
        ]
        codes = [one.wait() for one in running]
        if ledger is not None:
            with ledger.open("a", encoding="utf-8") as file:
                for part in parts:
                    file.write(part.read_text("utf-8") if part.exists() else "")
    return not any(codes)


def systematic() -> int:
    """Kill host, guardian and leash at every system call; 1 if anything survived."""
    return subprocess.run([harness(), "systematic"], check=False).returncode


def percentile(sorted_values: list[float], part: float) -> float:
    """The value below which ``part`` of the values lie (nearest rank)."""
    return sorted_values[min(len(sorted_values) - 1, int(part * len(sorted_values)))]


def trials() -> tuple[dict[str, list[float]], dict[str, int], dict[str, int]]:
    """Of the present guardian: times and survivors by victim, and the kinds of hosts."""
    present = guardian_hash()
    times: defaultdict[str, list[float]] = defaultdict(list)
    left: defaultdict[str, int] = defaultdict(int)
    hosts: defaultdict[str, int] = defaultdict(int)
    for line in LEDGER.read_text("utf-8").splitlines() if LEDGER.exists() else ():
        trial = json.loads(line)
        # A host that was killed before its first agent proves little.
        if trial["hash"] == present and trial["spawned"] > 0:
            whom = trial["kill"].split()[0]
            # Beyond the grace that the agents were given by the one who started them.
            grace = trial["grace_ms"] if whom == "host" else 0
            times[whom].append(max(0.0, trial["ms"] - grace))
            left[whom] += trial["survivors"] > 0
            hosts[trial["host"]] += 1
    return {whom: sorted(times[whom]) for whom in TARGETS if times[whom]}, left, hosts


def summary() -> dict[str, dict[str, float]]:
    """The same as figures."""
    times, left, _ = trials()
    return {
        whom: {
            "kills": len(found),
            "survived": left[whom],
            "p50_ms": round(percentile(found, 0.5), 1),
            "p99_ms": round(percentile(found, 0.99), 1),
            "longest_ms": round(found[-1], 1),
        }
        for whom, found in times.items()
    }


def report() -> bool:
    """Print one line per kind of kill; whether nothing survived."""
    times, left, hosts = trials()
    print(f"guardian sources {guardian_hash()}; hosts: {dict(hosts)}")
    print("only kills of hosts with at least one agent are counted")
    print("times are from the kill to nothing left, less the agents' grace")
    for whom, found in times.items():
        # 0 of n: the rule of three (the exact bound is 1 - 0.05 ** (1 / n)).
        bound = "LEAKS" if left[whom] else f"<= {300 / len(found):.2g} % at 95 % confidence"
        print(
            f"{whom:9} {len(found):6} kills, {left[whom]} with survivors ({bound}); "
            f"p50 {percentile(found, 0.5):.0f} ms, p99 {percentile(found, 0.99):.0f} ms, "
            f"longest {found[-1]:.0f} ms"
        )
    return not any(left.values())


def main() -> int:
    """Run what was asked for; 1 if anything survived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--target", choices=("mix", *TARGETS), default="mix")
    parser.add_argument("--systematic", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--hash", action="store_true")
    options = parser.parse_args()
    if options.hash:
        print(guardian_hash())
        return 0
    seed = random.randrange(1 << 40) if options.seed is None else options.seed
    if options.smoke:
        clean_runs = [run(60, 300, 1, seed, target, None) for target in TARGETS]
        return int(not all(clean_runs)) or systematic()
    if options.systematic:
        return systematic()
    clean = True
    if options.minutes > 0:
        clean = run(int(options.minutes * 60), 1 << 62, options.jobs, seed, options.target, LEDGER)
    return int(not (report() and clean))


if __name__ == "__main__":
    sys.exit(main())
