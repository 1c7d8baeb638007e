"""Responsible for a guard that no noise disturbs: instructions of the hot paths, counted by
callgrind.

`python -m benchmarks.instructions` counts and compares with `benchmarks/instructions.json`,
`--write` makes that file anew. An item's count is the difference between many and twice as many, so
that what a program does once is not in it. More than `TOLERANCE` above what is written fails;
below, the file wants to be written anew. Another compiler makes other code: then `OTHER_COMPILER`
holds.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WRITTEN = ROOT / "benchmarks" / "instructions.json"
TOLERANCE = 0.03
OTHER_COMPILER = 0.25
# Path -> the crate whose example `hot_paths` does it, and how often.
PATHS = {
    "framer": ("vespera-agent-spawner", 20),
    "envelope": ("vespera-agent-spawner", 2000),
    "walk": ("vespera-file-ops", 5),
    "search": ("vespera-file-ops", 50),
    "edit": ("vespera-file-ops", 50),
}
COUNTED = re.compile(r"Collected : (\d+)")


def build() -> dict[str, Path]:
    """The program of each crate, as a release is built."""
    programs: dict[str, Path] = {}
    for crate in {crate for crate, _ in PATHS.values()}:
        line = ["cargo", "build", "--release", "--locked", "--example=hot_paths"]
        line += [f"--package={crate}", "--message-format=json-render-diagnostics"]
        told = subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        for message in map(json.loads, told.stdout.splitlines()):
            if message.get("executable") and "example" in message["target"]["kind"]:
                # Both examples have one name, and the next build would take this one's place.
                programs[crate] = _kept(Path(message["executable"]), crate)
    return programs


def _kept(program: Path, crate: str) -> Path:
    folder = ROOT / "target" / "instructions"
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(program, folder / crate))


def counted(program: Path, path: str, count: int) -> int:
    """All instructions of one run."""
    with tempfile.TemporaryDirectory() as scratch:
        tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        done = subprocess.run(
            [*tool, str(program), path, str(count), scratch],
            check=False,
            capture_output=True,
            text=True,
        )
    found = COUNTED.search(done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{path}: callgrind says:\n{done.stderr[-2000:]}")
    return int(found[1])


def each(program: Path, path: str, count: int) -> int:
    """Instructions of one item."""
    return (counted(program, path, 2 * count) - counted(program, path, count)) // count


def compiler() -> str:
    """Which one makes the code."""
    command = ["rustc", "--version"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def compare(written: dict[str, int], found: dict[str, int], tolerance: float) -> list[str]:
    """A line for each path; those that begin with MORE fail."""
    lines = []
    for path, now in found.items():
        before = written.get(path)
        if before is None:
            lines.append(f"MORE  {path}: {now:,}, and nothing is written; run with --write")
            continue
        change = now / before - 1
        word = "MORE " if change > tolerance else "less " if change < -tolerance else "same "
        lines.append(f"{word} {path}: {now:,} instructions, written {before:,} ({change:+.1%})")
    return lines


def main() -> int:
    """Count and compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="what is counted is right")
    arguments = parser.parse_args()
    programs = build()
    found = {path: each(programs[crate], path, count) for path, (crate, count) in PATHS.items()}
    if arguments.write:
        text = json.dumps({"compiler": compiler(), "each": found}, indent=1)
        WRITTEN.write_text(text + "\n", encoding="utf-8")
    written = json.loads(WRITTEN.read_text(encoding="utf-8"))
    same = written["compiler"] == compiler()
    tolerance = TOLERANCE if same else OTHER_COMPILER
    lines = compare(written["each"], found, tolerance)
    print("\n".join(lines))
    print(f"tolerance {tolerance:.0%}; written by {written['compiler']}, counted by {compiler()}")
    return int(any(line.startswith("MORE") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
