"""`vespera demo` as the user calls it: options in, table or JSON out, an exit code that is true."""

from __future__ import annotations

import json
import os
import warnings

from rich.console import Console
from rich.markup import escape

from vespera_agent_spawner import backends
from vespera_agent_spawner.adapters.locate import find_program
from vespera_agent_spawner.errors import AgentError
from vespera_server.demo.run import LIVE_CEILING_USD, LIVE_MODEL, Options, rows_for, run_demo
from vespera_server.demo.screen import Progress, console_for, findings, table

EXPECTED, UNEXPECTED, COULD_NOT_RUN, INTERRUPTED = 0, 1, 2, 130


def demo(
    *,
    claude: str | None,
    agents: int,
    backend: str,
    live: bool,
    model: str | None,
    timeout: float,
    as_json: bool,
) -> int:
    """Runs the demo; returns the process's exit code."""
    console = console_for(stderr=as_json)
    errors = console_for(stderr=True)
    try:
        program = find_program(claude, os.environ)
    except AgentError as error:
        errors.print(f"[red]vespera demo: {escape(str(error))}[/]", soft_wrap=True)
        errors.print("Or: pip install 'vespera-server[demo]', whose wheels carry the CLI.")
        return COULD_NOT_RUN
    if not _backend_ready(backend, console, errors):
        return COULD_NOT_RUN
    options = Options(program, agents, backend, live, model, timeout)
    console.print(_introduction(options), soft_wrap=True)
    rows = rows_for(agents)
    try:
        with Progress(console, rows) as progress:
            report = run_demo(options, rows, progress.update)
    except (AgentError, OSError) as error:
        errors.print(f"[red]vespera demo: {escape(str(error))}[/]", soft_wrap=True)
        return COULD_NOT_RUN
    if as_json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    elif not console.is_terminal:  # on a terminal the live table is the last one
        console.print(table(rows))
    for line in findings(rows):
        console.print(line, soft_wrap=True)
    verdict = "all as expected" if report.as_expected else "NOT all as expected"
    console.print(f"{len(rows)} agents in {report.seconds:.1f} s: {verdict}")
    if report.interrupted:
        return INTERRUPTED
    return EXPECTED if report.as_expected else UNEXPECTED


def _backend_ready(name: str, console: Console, errors: Console) -> bool:
    """Chooses the backend before the screen is taken, so that its warning can be read."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            backends.choose(name)
        except AgentError as error:
            remedy = error.context.get("remedy") or "use --backend auto"
            text = f"{error}; {remedy}"
            errors.print(f"[red]vespera demo: {escape(text)}[/]", soft_wrap=True)
            return False
    for warning in caught:
        console.print(f"[yellow]{escape(str(warning.message))}[/]", soft_wrap=True)
    return True


def _introduction(options: Options) -> str:
    """Who decides, and whose money it is, before anything starts."""
    cli = escape(options.program)
    if options.live:
        return (
            f"{options.agents} agents, model {options.model or LIVE_MODEL}, YOUR account, at most "
            f"{LIVE_CEILING_USD:.2f} USD in all; CLI: {cli}"
        )
    return (
        f"{options.agents} agents, decided by the scripted model on loopback (no account, costs "
        f"are what a real model would have charged); CLI: {cli}"
    )
