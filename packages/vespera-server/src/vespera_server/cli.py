"""The `vespera` command: reads the arguments, calls the part that does the work."""

from __future__ import annotations

import inspect
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vespera_server import __version__
from vespera_server.watch.commands import JsonOption, add_commands

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


class SchemaChoice(StrEnum):
    """What `vespera schema` can print."""

    CONFIG = "config"
    TASKS = "tasks"
    ENGINE = "engine"


ClaudeOption = Annotated[
    str | None,
    typer.Option(
        "--claude",
        metavar="PATH",
        help="The Claude CLI. Default: from PATH, then from the claude-agent-sdk wheel.",
    ),
]


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
        str | None,
        typer.Option(metavar="LIST", help="Some of agents,files,tasks. Default: all."),
    ] = None,
    read_only: Annotated[
        bool | None,
        typer.Option(
            "--read-only/--no-read-only", help="File tools only read.", show_default=False
        ),
    ] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="A tool of the CLI that agents may have, such as Edit or 'Bash(git log:*)'; "
            "'*' for all. Default: Read, Glob, Grep.",
        ),
    ] = None,
    permission_mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="The most that callers may ask for. Default: default."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Callers may ask for these only.")
    ] = None,
    program: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=PATH]", help="What callers may name as command."),
    ] = None,
    claude: ClaudeOption = None,
    max_agents: Annotated[
        int | None, typer.Option(min=1, help="Alive at once. Default: 8.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="For all agents together.")
    ] = None,
    agent_budget: Annotated[
        float | None, typer.Option(min=0, metavar="USD", help="For each agent.")
    ] = None,
    turn_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="The longest turn that callers may ask for. Default: 1h."
        ),
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="An agent unasked for so long ends. Default: 30m."),
    ] = None,
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
    task_database: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Keep batches of run_tasks and their results there (0600), to be resumed after a "
            "restart. Default: in memory.",
        ),
    ] = None,
    largest_file: Annotated[
        str | None, typer.Option(metavar="SIZE", help="That the file tools take. Default: 8MiB.")
    ] = None,
    backend: Annotated[BackendChoice | None, typer.Option(help="The engine.")] = None,
    stdio: Annotated[
        bool, typer.Option("--stdio", help="Serve stdin and stdout, whatever the settings say.")
    ] = False,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve HTTP there instead of stdin and stdout."),
    ] = None,
    expose: Annotated[
        bool | None,
        typer.Option(
            "--expose/--no-expose",
            help="Allow an address that is not loopback.",
            show_default=False,
        ),
    ] = None,
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

    Over stdin and stdout, or HTTP with --http. Its end is the end of every agent. What is not given
    here is taken from the section serve of your own vespera.toml; no file of a project decides it.
    Exit code 0: the client left; 2: it could not begin; 128 and the signal's number after a signal.
    """
    from vespera_server.serve.command import Flags
    from vespera_server.serve.command import serve as serve_tools

    toolsets = None
    if toolset is not None:
        toolsets = tuple(name.strip() for name in toolset.split(",") if name.strip())
    flags = Flags(
        fields={
            "roots": root,
            "read_only": read_only,
            "toolsets": toolsets,
            "tools": tool,
            "permission_mode": permission_mode,
            "models": model,
            "max_agents": max_agents,
            "budget_usd": budget,
            "agent_budget_usd": agent_budget,
            "turn_timeout": turn_timeout,
            "idle": idle,
            "environment_names": pass_env,
            "transcript_dir": transcripts,
            "task_database": task_database,
            "largest_file": largest_file,
            "backend": None if backend is None else backend.value,
        },
        programs=program or (),
        claude=claude,
        with_groups=with_env or (),
        without_groups=without_env or (),
        stdio=stdio,
        http=http,
        http_fields={
            "expose": expose,
            "names": http_name,
            "origins": origin,
            "token_file": token_file,
        },
    )
    raise typer.Exit(serve_tools(flags, log_level.value))


@app.command()
def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="TOML, YAML, JSON5, JSON or JSONL; - is standard input.", metavar="FILE"
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the newest unfinished run (of FILE)."),
    ] = False,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="First give out again what did not complete: of --database, else of the newest "
            "run (of FILE) with such tasks.",
        ),
    ] = False,
    discard: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Remove an earlier run with all that is kept of it; the beginning of its name is "
            "enough.",
        ),
    ] = None,
    scripted: Annotated[
        bool, typer.Option("--scripted", help="A scripted model instead of an account.")
    ] = False,
    agents: Annotated[int | None, typer.Option(min=1, help="How many at once.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, metavar="USD", help="Start nothing more after so many US dollars."),
    ] = None,
    var: Annotated[
        list[str] | None,
        typer.Option("--var", metavar="NAME=VALUE", help="A value for ${NAME} in the file."),
    ] = None,
    database: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The queue; several processes may work on one."),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Of FILE, when its name does not tell: toml, yaml, …")
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve Prometheus metrics on loopback; 0: a free port."
        ),
    ] = None,
    claude: ClaudeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs a batch of agents from a file, with your own CLI and account. It survives a crash.

    Ctrl-C once lets the agents at work end, twice ends them; --resume goes on in their sessions.
    Exit code 0: every task completed; 1: all ended, not all completed; 2: it could not run or go
    on; 3: budget spent, 4: not logged in, 128 + N: signal N, each with tasks left for --resume.
    """
    from vespera_server.run.init import as_init

    if discard is not None:
        if file is not None or database is not None or resume or retry_failed:
            raise typer.BadParameter("it goes with --json only", param_hint="--discard")
        from vespera_server.run.discard import discard as remove

        raise typer.Exit(remove(discard, as_json=as_json))
    as_init()  # before anything starts a thread
    from vespera_server.run.command import Options
    from vespera_server.run.command import run as run_batch

    options = Options(
        file=file,
        format=format,
        resume=resume,
        retry_failed=retry_failed,
        database=database,
        scripted=scripted,
        agents=agents,
        budget_usd=budget,
        variables=_variables(var or []),
        claude=claude,
        metrics_port=metrics_port,
        as_json=as_json,
    )
    raise typer.Exit(run_batch(options))


def _variables(given: list[str]) -> dict[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{text!r}: write NAME=VALUE", param_hint="--var")
        found[name] = value
    return found


add_commands(app)


@app.command()
def model(
    script: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What it answers in each conversation: `scripted = [...]`, as in a task file. "
            "Default: one sentence to every prompt.",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="Of FILE, when its name does not tell: toml, yaml, …")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On loopback; 0: a free one.")] = 0,
) -> None:
    """Serves a scripted model on loopback, so that agents need no account, until Ctrl-C.

    Prints the two variables that lead agents to it, as `export` lines. What agents do besides is
    real: the CLI, its tools, the shells that it starts. Exit code 0; 2: it could not begin.
    """
    from vespera_server.run.serve_model import serve_model

    raise typer.Exit(serve_model(script=script, format=format, port=port))


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Removes old runs: what is older than state.max_age, then the oldest over state.max_size.

    `vespera run` does the same before it begins.
    """
    from vespera_server.state.command import gc as collect

    raise typer.Exit(collect(dry_run=dry_run, as_json=as_json))


@app.command()
def schema(
    which: Annotated[
        SchemaChoice, typer.Argument(help="vespera.toml, a task file, or the engine's own.")
    ] = SchemaChoice.CONFIG,
) -> None:
    """Prints a JSON Schema."""
    from vespera_server.settings.command import schema as show

    raise typer.Exit(show(which=which.value))


config_app = typer.Typer(name="config", help="Settings in layers.", no_args_is_help=True)
app.add_typer(config_app)


@config_app.command("show")
def config_show(as_json: JsonOption = False) -> None:
    """Prints every setting and where it comes from; values of environments are not printed."""
    from vespera_server.settings.command import config_show as show

    raise typer.Exit(show(as_json=as_json))


def _unwrap_help(parent: typer.Typer) -> None:
    """Docstrings are wrapped for who reads the source; a terminal wraps to its own width."""
    for command in parent.registered_commands:
        text = inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


_unwrap_help(app)
_unwrap_help(config_app)


def main() -> None:
    """The console script."""
    app()
