"""`vespera doctor` as the user calls it: runs all checks, prints them, returns the exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape

from vespera_server.demo.screen import console_for
from vespera_server.doctor.account import check_account
from vespera_server.doctor.claude import check_claude
from vespera_server.doctor.engine import check_engine
from vespera_server.doctor.finding import Finding, Status
from vespera_server.doctor.limits import check_limits
from vespera_server.doctor.surroundings import check_environment

_MARKS = {
    Status.OK: "[green]ok     [/]",
    Status.NOTE: "[cyan]note   [/]",
    Status.WARNING: "[yellow]warning[/]",
    Status.PROBLEM: "[red]problem[/]",
}


def doctor(*, claude: str | None, as_json: bool) -> int:
    """Prints the report; 1 when there is a problem, else 0."""
    findings = [
        *check_engine(),
        *check_claude(claude, os.environ),
        *check_account(claude, os.environ),
        *check_limits(),
        *check_environment(os.environ),
    ]
    healthy = all(finding.status is not Status.PROBLEM for finding in findings)
    if as_json:
        rows = [finding.to_json() for finding in findings]
        print(json.dumps({"healthy": healthy, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        _print(console_for(), findings)
    return 0 if healthy else 1


def _print(console: Console, findings: Sequence[Finding]) -> None:
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            console.print(f"[bold]{section}[/]")
        mark = _MARKS[finding.status]
        console.print(f"  {mark} {finding.name}: {escape(finding.value)}", soft_wrap=True)
        if finding.remedy:
            console.print(f"          → {escape(finding.remedy)}", soft_wrap=True)
    counts = {status: sum(f.status is status for f in findings) for status in Status}
    console.print(", ".join(f"{counts[status]} {status}" for status in Status if counts[status]))
