"""Responsible for the arguments of `vespera ps`, `top`, `logs`, `kill` and `history`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["add_commands"]

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
AgentArgument = Annotated[str, typer.Argument(help="As `vespera ps` shows it.", metavar="AGENT")]
PidOption = Annotated[
    int | None,
    typer.Option(metavar="PID", help="The agent's or its host's, where several have that name."),
]
DatabaseOption = Annotated[
    Path | None, typer.Option(metavar="PATH", help="A queue that `vespera run` was given.")
]


def add_commands(app: typer.Typer) -> None:
    """Register them."""
    for command in (ps, top, logs, kill, history):
        app.command()(command)


def ps(as_json: JsonOption = False) -> None:
    """Lists the agents that run now: of `vespera run`, `vespera serve`, and register=True.

    Exit code 0, also when there are none; 2: it could not be read.
    """
    from vespera_server.watch.listing import ps as show

    raise typer.Exit(show(as_json=as_json))


def top(
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    count: Annotated[
        int | None,
        typer.Option("--count", "-n", min=1, help="Looks. Default: until Ctrl-C, or 1 in a pipe."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a look.")] = False,
) -> None:
    """Shows what agents use, with everything that they started: share of one CPU, memory.

    Exit code 0, also after Ctrl-C; 2: it could not be read.
    """
    from vespera_server.watch.listing import top as show

    raise typer.Exit(show(interval=interval, count=count, as_json=as_json))


def logs(
    agent: Annotated[
        str, typer.Argument(help="As `vespera ps` shows it, or a task's id.", metavar="AGENT")
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on while the agent lives.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=1, help="The last so many entries only.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what only programs say to each other.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="The transcript as it is.")] = False,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A task of that run (the beginning of its name)."),
    ] = None,
    database: DatabaseOption = None,
    pid: PidOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document an entry.")] = False,
) -> None:
    """Shows what an agent was told and said, and what became of its task.

    A living agent's, else the newest run's that has a task of that name. Tasks of `vespera run` are
    always kept; others where transcript_dir or --transcripts says so. Secrets are left out, but
    not with --raw. Exit code 0; 1: the agent keeps nothing; 2: it is not known.
    """
    from vespera_server.watch.logs import logs as show

    code = show(
        agent,
        pid=pid,
        run=run,
        database=database,
        follow=follow,
        tail=tail,
        everything=everything,
        raw=raw,
        as_json=as_json,
    )
    raise typer.Exit(code)


def kill(
    agent: AgentArgument,
    grace: Annotated[str, typer.Option(metavar="TIME", help="Between SIGTERM and force.")] = "5s",
    force: Annotated[bool, typer.Option("--force", help="Without SIGTERM.")] = False,
    pid: PidOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ends one agent with everything that it started; its host goes on and hears of it.

    Exit code 0: nothing of it is left; 1: somebody outlived force; 2: it was not touched, as it is
    not known, or several have that name.
    """
    from vespera_server.watch.ending import kill as end

    raise typer.Exit(end(agent, pid=pid, grace=grace, force=force, as_json=as_json))


def history(
    run: Annotated[
        str | None,
        typer.Argument(help="Its tasks; the beginning of its name is enough.", metavar="RUN"),
    ] = None,
    database: DatabaseOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Runs to show.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Lists runs, newest first, or the tasks of one: outcome, cost, duration.

    Exit code 0; 2: there is no such run.
    """
    from vespera_server.watch.history import history as show

    raise typer.Exit(show(run=run, database=database, limit=limit, as_json=as_json))
