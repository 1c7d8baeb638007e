"""Responsible for the dashboard of asv: measured at several commits, whole, and complete by itself.

`python -m benchmarks.dashboard run COMMIT…` measures at commits, `keep` copies what was measured
`benchmarks/series_results`, `publish` makes `.asv/html` of what is kept. The page loads its scripts
from other hosts as asv makes it; here they are taken from npm packages and served from beside it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ASV = ROOT / ".asv"
MEASURED, HTML, SCRIPTS = ASV / "results", ASV / "html", ASV / "scripts"
KEPT = ROOT / "benchmarks" / "series_results"
# A name for whoever measured: that of the machine is nobody's business.
MACHINE = "reference"
# What asv's page asks other hosts for, at the versions it asks for where npm has them.
PACKAGES = {
    "jquery@3.3.1": {"jquery-3.3.1.min.js": "dist/jquery.min.js"},
    "flot@0.8.3": {
        "jquery.flot.min.js": "jquery.flot.js",
        "jquery.flot.time.min.js": "jquery.flot.time.js",
        "jquery.flot.selection.min.js": "jquery.flot.selection.js",
        "jquery.flot.categories.min.js": "jquery.flot.categories.js",
    },
    "flot-orderbars@1.0.0": {"jquery.flot.orderBars.js": "js/jquery.flot.orderBars.js"},
    "stupid-table-plugin@1.1.3": {"stupidtable.min.js": "stupidtable.js"},
    "blueimp-md5@2.19.0": {"md5.min.js": "js/md5.min.js"},
    "bootstrap@3.1.1": {
        "bootstrap.min.js": "dist/js/bootstrap.min.js",
        "bootstrap.min.css": "dist/css/bootstrap.min.css",
    },
}
FOREIGN = re.compile(
    r'(?P<where>src|href)="https://[^"]+/(?P<name>[^"/]+\.(?:js|css))"(?P<rest>[^>]*)'
)


def asv(*words: str) -> None:
    """Run asv; its own exit code is raised as an error."""
    subprocess.run([sys.executable, "-m", "asv", *words], cwd=ROOT, check=True)


def recent(number: int) -> list[str]:
    """The newest commits of the main line that changed what is measured."""
    line = ["git", "rev-list", "--first-parent", f"--max-count={number}", "HEAD", "--"]
    answer = subprocess.run(
        [*line, "packages", "crates"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return answer.stdout.split()


def run(commits: list[str], quick: bool) -> None:
    """Measure every series at these commits; raises when one has no number."""
    shutil.rmtree(MEASURED, ignore_errors=True)
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    asv("machine", f"--machine={MACHINE}", f"--os={system}", "--yes")
    words = ["--show-stderr", f"--machine={MACHINE}", *(["--quick"] if quick else [])]
    for commit in commits:
        asv("run", *words, f"{commit}^!")
    if missing := list(holes(MEASURED, len(commits))):
        raise SystemExit("dashboard: " + "; ".join(missing))


def results(folder: Path) -> list[dict[str, Any]]:
    """The result file of every commit."""
    found = sorted(path for path in folder.glob("*/*.json") if path.name != "machine.json")
    return [json.loads(path.read_text()) for path in found]


def holes(folder: Path, least: int) -> Iterator[str]:
    """What keeps the dashboard from being whole, as sentences."""
    files = results(folder)
    if len(files) < least:
        yield f"{folder.name}: results of {len(files)} commits, {least} are wanted"
    everything = {name for one in files for name in one["results"]}
    for one in files:
        commit = one["commit_hash"][:8]
        for name in sorted(everything - set(one["results"])):
            yield f"{commit}: {name} was not measured"
        for name, row in one["results"].items():
            numbers, params = row[0], row[1]
            # What was skipped is NaN in asv's files, and what failed is null.
            if not numbers or any(number is None or math.isnan(number) for number in numbers):
                yield f"{commit}: {name} has no number for some of {params}"
            told = {value.strip("'") for values in params for value in values}
            if not {"rust", "python"} <= told:
                yield f"{commit}: {name} is not measured for both implementations"


def keep() -> None:
    """What was measured becomes what is committed."""
    shutil.rmtree(KEPT, ignore_errors=True)
    shutil.copytree(MEASURED, KEPT)


def fetch() -> None:
    """The page's scripts, by npm, into `.asv/scripts`."""
    SCRIPTS.mkdir(parents=True, exist_ok=True)
    (SCRIPTS / "package.json").write_text('{"private": true}\n')
    line = ["npm", "install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*line, "--silent", *PACKAGES], cwd=SCRIPTS, check=True)


def complete(html: Path) -> None:
    """Serve the scripts from beside the page; a file that is the very one keeps its check-sum."""
    files = {
        name: SCRIPTS / "node_modules" / package.rsplit("@", 1)[0] / place
        for package, places in PACKAGES.items()
        for name, place in places.items()
    }

    def local(found: re.Match[str]) -> str:
        name = found["name"]
        content = files[name].read_bytes()
        (html / name).write_bytes(content)
        rest = re.sub(r' (?:crossorigin|referrerpolicy)="[^"]*"', "", found["rest"])
        wanted = re.search(r' integrity="(sha\d+)-([^"]+)"', rest)
        if wanted is not None:
            sum_ = base64.b64encode(hashlib.new(wanted[1], content).digest()).decode()
            rest = rest if sum_ == wanted[2] else rest.replace(wanted[0], "")
        return f'{found["where"]}="{name}"{rest}'

    page = html / "index.html"
    text = FOREIGN.sub(local, page.read_text())
    if left := re.findall(r'(?:src|href)="(https://[^"]+\.(?:js|css))', text):
        raise SystemExit(f"dashboard: the page still asks other hosts for {left}")
    page.write_text(text)


def publish(folder: Path) -> None:
    """Make the pages of the results in `folder`, and complete them."""
    from asv.util import load_json

    settings = load_json(str(ROOT / "asv.conf.json"), js_comments=True)
    settings |= {"results_dir": str(folder), "html_dir": str(HTML), "repo": str(ROOT)}
    settings |= {"benchmark_dir": str(ROOT / "benchmarks"), "env_dir": str(ASV / "env")}
    made = ASV / "publish.conf.json"
    made.parent.mkdir(exist_ok=True)
    made.write_text(json.dumps(settings))
    shutil.rmtree(HTML, ignore_errors=True)
    asv("publish", f"--config={made}")
    complete(HTML)


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("run", "keep", "fetch", "publish"))
    parser.add_argument("commits", nargs="*", help="where to measure; default: the newest")
    parser.add_argument("--number", type=int, default=3, help="how many of the newest")
    parser.add_argument("--quick", action="store_true", help="one sample each")
    arguments = parser.parse_args()
    if arguments.what == "run":
        run(arguments.commits or recent(arguments.number), arguments.quick)
    elif arguments.what == "keep":
        keep()
    elif arguments.what == "fetch":
        fetch()
    else:
        publish(KEPT)


if __name__ == "__main__":
    main()
