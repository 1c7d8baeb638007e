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


class LogLevel(StrEnum):
    """Values of --log-level."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


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


@app.command()
def serve(
    root: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="Where callers may work. Default: this directory."),
    ] = None,
    toolset: Annotated[
        str, typer.Option(metavar="LIST", help="Some of agents,files,tasks.")
    ] = "agents,files,tasks",
    read_only: Annotated[bool, typer.Option("--read-only", help="File tools only read.")] = False,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="A tool of the CLI that agents may have, such as Edit or 'Bash(git log:*)'; "
            "'*' for all. Default: Read, Glob, Grep.",
        ),
    ] = None,
    permission_mode: Annotated[
        str, typer.Option(metavar="MODE", help="The most that callers may ask for.")
    ] = "default",
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Callers may ask for these only.")
    ] = None,
    program: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=PATH]", help="What callers may name as command."),
    ] = None,
    claude: ClaudeOption = None,
    max_agents: Annotated[int, typer.Option(min=1, help="Alive at once.")] = 8,
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="For all agents together.")
    ] = None,
    agent_budget: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="For each agent.")
    ] = None,
    turn_timeout: Annotated[
        str, typer.Option(metavar="TIME", help="The longest turn that callers may ask for.")
    ] = "1h",
    idle: Annotated[
        str, typer.Option(metavar="TIME", help="An agent unasked for so long ends.")
    ] = "30m",
    with_env: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Also pass aws or google variables to agents."),
    ] = None,
    without_env: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Do not pass base, proxy, certificates or anthropic."),
    ] = None,
    pass_env: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Pass one more variable to agents.")
    ] = None,
    transcripts: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keep what agents say, without secrets.")
    ] = None,
    largest_file: Annotated[
        str, typer.Option(metavar="SIZE", help="That the file tools take.")
    ] = "8MiB",
    backend: Annotated[BackendChoice, typer.Option(help="The engine.")] = BackendChoice.AUTO,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve HTTP there instead of stdin and stdout."),
    ] = None,
    expose: Annotated[
        bool, typer.Option("--expose", help="Allow an address that is not loopback.")
    ] = False,
    http_name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST[:PORT]", help="A further Host header to accept."),
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A web origin that may call.")
    ] = None,
    token_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Where the bearer token is kept (0600).")
    ] = None,
    log_level: Annotated[LogLevel, typer.Option(help="On stderr.")] = LogLevel.WARNING,
) -> None:
    """An MCP server: agents, tasks and files as tools, within limits that callers cannot change.

    Over stdin and stdout, or HTTP with --http. Its end is the end of every agent. Exit code 0: the
    client left; 2: it could not begin; 128 and the signal's number after a signal.
    """
    from vespera_agent_spawner.errors import ConfigError
    from vespera_server.serve import command

    try:
        web = None if http is None else command.address(http)
    except ConfigError as error:
        raise typer.BadParameter(f"{error}; {error.remedy}") from None
    if web is not None:
        web |= {"expose": expose, "names": http_name or (), "origins": origin or ()}
        web |= {"token_file": token_file}
    fields = {
        "roots": root or (),
        "read_only": read_only,
        "toolsets": [name.strip() for name in toolset.split(",") if name.strip()],
        "permission_mode": permission_mode,
        "models": model or None,
        "programs": command.programs(program or (), claude),
        "max_agents": max_agents,
        "budget_usd": budget,
        "agent_budget_usd": agent_budget,
        "turn_timeout": turn_timeout,
        "idle": idle,
        "environment": command.environment_groups(with_env or (), without_env or ()),
        "environment_names": pass_env or (),
        "transcript_dir": transcripts,
        "largest_file": largest_file,
        "backend": backend.value,
        "http": web,
    }
    if tool:
        fields["tools"] = tool
    raise typer.Exit(command.serve(fields, log_level.value))


def main() -> None:
    """The console script."""
    app()
