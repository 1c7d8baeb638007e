"""Says what the ledger proves for the guardian's present sources, and runs more trials.

``report.py --hash`` prints the hash alone.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEDGER = Path(__file__).with_name("ledger.jsonl")
GUARDIAN = ROOT / "packages" / "rust-agent-spawner" / "guardian"


def guardian_hash() -> str:
    """The first 12 hexadecimal digits of SHA-256 over the guardian's sources, in path order."""
    digest = hashlib.sha256()
    for path in sorted([*GUARDIAN.rglob("src/**/*.rs"), GUARDIAN / "Cargo.toml"]):
        digest.update(path.relative_to(GUARDIAN).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def percentile(sorted_values: list[float], part: float) -> float:
    """The value below which ``part`` of the values lie (nearest rank)."""
    return sorted_values[min(len(sorted_values) - 1, int(part * len(sorted_values)))]


def main() -> int:
    """Print one line per kind of kill; 1 if anything survived."""
    present = guardian_hash()
    if "--hash" in sys.argv:
        print(present)
        return 0
    times: defaultdict[str, list[float]] = defaultdict(list)
    left: defaultdict[str, int] = defaultdict(int)
    for line in LEDGER.read_text("utf-8").splitlines() if LEDGER.exists() else ():
        trial = json.loads(line)
        if trial["hash"] == present:
            whom = trial["kill"].split()[0]
            # Beyond the grace that the agents were given by the one who started them.
            grace = trial["grace_ms"] if whom == "host" else 0
            times[whom].append(max(0.0, trial["ms"] - grace))
            left[whom] += trial["survivors"] > 0
    print(f"guardian sources {present}; times are from the kill to nothing left, less the grace")
    for whom in ("host", "guardian", "leash"):
        found = sorted(times[whom])
        if not found:
            continue
        # 0 of n: the rule of three (the exact bound is 1 - 0.05 ** (1 / n)).
        bound = f"<= {300 / len(found):.2g} % at 95 % confidence" if not left[whom] else "LEAKS"
        print(
            f"{whom:9} {len(found):6} kills, {left[whom]} with survivors ({bound}); "
            f"p50 {percentile(found, 0.5):.0f} ms, p99 {percentile(found, 0.99):.0f} ms, "
            f"longest {found[-1]:.0f} ms"
        )
    return int(any(left.values()))


if __name__ == "__main__":
    sys.exit(main())
