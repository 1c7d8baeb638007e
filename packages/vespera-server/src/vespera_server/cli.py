"""The `vespera` command: reads the arguments, calls the part that does the work."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vespera_server import __version__

app = typer.Typer(
    name="vespera",
    help="Runs, watches and checks coding-agent CLIs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals hold environments, and those hold keys
)


class BackendChoice(StrEnum):
    """Values of --backend."""

    AUTO = "auto"
    RUST = "rust"
    PYTHON = "python"


ClaudeOption = Annotated[
    str | None,
    typer.Option(
        "--claude",
        metavar="PATH",
        help="The Claude CLI. Default: from PATH, then from the claude-agent-sdk wheel.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vespera {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print and exit."),
    ] = False,
) -> None:
    """Runs, watches and checks coding-agent CLIs."""


@app.command()
def demo(
    agents: Annotated[int, typer.Option(min=1, max=64, help="How many, all at once.")] = 6,
    backend: Annotated[BackendChoice, typer.Option(help="The engine.")] = BackendChoice.AUTO,
    live: Annotated[
        bool,
        typer.Option("--live", help="Use your own account and a real model, 0.50 USD at most."),
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Model name. Default with --live: haiku.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each agent's turn.")] = 120.0,
    claude: ClaudeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Several real Claude CLI agents at once, on scratch copies of a small project.

    A scripted model on loopback decides, so no account is needed. One agent fails on purpose,
    one leaves a background process behind. Exit code 0: all went as expected; 1: something did
    not; 2: it could not run.
    """
    from vespera_server.demo.command import demo as run

    code = run(
        claude=claude,
        agents=agents,
        backend=backend.value,
        live=live,
        model=model,
        timeout=timeout,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def doctor(claude: ClaudeOption = None, as_json: JsonOption = False) -> None:
    """Checks this machine: backends, containment tier, CLI, limits, proxies.

    Exit code 1 when something keeps agents from running.
    """
    from vespera_server.doctor.command import doctor as run

    raise typer.Exit(run(claude=claude, as_json=as_json))


def main() -> None:
    """The console script."""
    app()
