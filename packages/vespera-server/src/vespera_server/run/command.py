"""`vespera run` as the user calls it: a file in, agents at work, an exit code that is true."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from vespera_agent_spawner import AgentConfig, SupervisorConfig, register
from vespera_agent_spawner.errors import AgentError, ConfigError
from vespera_server.demo.screen import console_for
from vespera_server.documents import read_document
from vespera_server.metrics import serving_metrics
from vespera_server.redaction import Redactor, secret_values
from vespera_server.run.account import account_in
from vespera_server.run.opening import Opened, begin, digest, left_unfinished, resume
from vespera_server.run.plan import plan
from vespera_server.run.programs import check_beginning, claude_found, inherited_by
from vespera_server.run.report import ExitCode, exit_code, failures, report
from vespera_server.run.rows import Board
from vespera_server.run.screen import Screen
from vespera_server.run.scripted import scripted_fleet
from vespera_server.run.signals import listening
from vespera_server.selection import keeper_of
from vespera_server.settings import Settings, load_settings
from vespera_server.state import StateDirectory, collect
from vespera_server.tasks import Claim, DurableExecutor, Ending, Summary, TaskNews
from vespera_server.words import counted

__all__ = ["Options", "run"]

_REFRESH = 0.5
Configure = Callable[[Claim, AgentConfig], AgentConfig]


@dataclass(frozen=True)
class Options:
    """What the command line chose."""

    file: Path | None
    format: str | None = None
    resume: bool = False
    retry_failed: bool = False
    database: Path | None = None
    scripted: bool = False
    agents: int | None = None
    budget_usd: float | None = None
    variables: Mapping[str, str] | None = None
    claude: str | None = None
    metrics_port: int | None = None
    as_json: bool = False


def run(options: Options) -> int:
    """Runs the batch; returns the process's exit code."""
    console = console_for(stderr=options.as_json)
    errors = console_for(stderr=True)
    began = time.monotonic()
    try:
        settings = load_settings().values
        state = StateDirectory(settings.state.directory)
        register.tell_in(state.hosts)
        collect(state, max_size=settings.state.max_size, max_age=settings.state.max_age)
        with _open(options, settings, state, console) as opened:
            if opened.resumed:
                # What completed may be of a program that is gone.
                configs = [
                    task.config
                    for task in opened.queue.tasks()
                    if task.outcome is None
                    or (options.retry_failed and task.outcome != "completed")
                ]
                _check(options, settings, configs, scripted=opened.scripted)
            if options.retry_failed:
                _retry_failed(opened, console)
            if opened.resumed and _file_changed(opened):
                note = f"note: {opened.facts['file']} has changed; the run goes on as it began"
                console.print(note, markup=False, soft_wrap=True)
            fleet = _Fleet(options, settings, opened, console)
            summary, signal = fleet.run()
            code = exit_code(summary, signal)
            if options.as_json:
                seconds = time.monotonic() - began
                answer = report(opened, summary, code, seconds, fleet.redactor)
                print(json.dumps(answer, indent=2, ensure_ascii=False))
            _last_words(console, opened, summary, time.monotonic() - began, fleet.redactor)
            if summary.ending is Ending.AUTH_FAILED:
                _how_to_log_in(console, options)
            _what_next(console, opened, summary)
            return int(code)
    except (AgentError, OSError, sqlite3.Error) as error:
        words = str(error)
        # Some errors say it themselves.
        if isinstance(error, ConfigError) and error.remedy not in words:
            words += f"; {error.remedy}"
        words = Redactor.for_environment(os.environ).text(f"vespera run: {words}")
        errors.print(words, style="red", markup=False, soft_wrap=True)
        return int(ExitCode.COULD_NOT_RUN)


def _open(
    options: Options, settings: Settings, state: StateDirectory, console: Console
) -> AbstractContextManager[Opened]:
    lease = settings.run.lease
    if options.database is not None and (keeper := keeper_of(options.database)):
        # Its tasks are not configurations of agents: each would end as one that cannot work.
        remedy = "name another database"
        raise ConfigError(
            f"{options.database} is a database of {keeper}: {remedy}",
            field="database",
            value=str(options.database),
            remedy=remedy,
        )
    if options.resume or (options.retry_failed and None in (options.file, options.database)):
        path = options.database or _newest_left(options, state)
        return resume(path, scripted=options.scripted, lease=lease)
    if options.file is None:
        raise ConfigError(
            "there is no task file: give one, or --resume to go on with an earlier run",
            field="file",
            value=None,
            remedy="give a file",
        )
    text = sys.stdin.read() if str(options.file) == "-" else None
    document = read_document(options.file, options.format, text)
    planned = plan(document, settings, variables=options.variables)
    configs = [spec.config for spec in planned.specs]
    _check(options, settings, configs, scripted=options.scripted)
    if options.database is None and (left := left_unfinished(state, options.file)):
        console.print(
            f"note: an earlier run of {options.file} has "
            f"{counted(left[-1].unfinished, 'task')} left; this is a new one "
            "(vespera run --resume goes on with the old one, "
            f"vespera run --discard {left[-1].name} removes it)",
            markup=False,
            soft_wrap=True,
        )
    return begin(
        planned,
        document,
        state,
        database=options.database,
        scripted=options.scripted,
        lease=lease,
    )


def _newest_left(options: Options, state: StateDirectory) -> Path:
    """The run to go on with where none is named."""
    left = left_unfinished(state, options.file, or_failed=options.retry_failed)
    left = [run for run in left if keeper_of(run.database) is None]
    if left:
        return left[-1].database
    flag = "--retry-failed" if options.retry_failed else "--resume"
    kind = "run with tasks that failed or are left" if options.retry_failed else "unfinished run"
    of = f" of {options.file}" if options.file else ""
    remedy = f"leave {flag} out to begin, or name its --database"
    raise ConfigError(
        f"there is no {kind}{of} in {state.runs} that nobody works on; {remedy}",
        field=flag.removeprefix("--").replace("-", "_"),
        value=True,
        remedy=remedy,
    )


def _check(
    options: Options,
    settings: Settings,
    configs: Sequence[Mapping[str, Any]],
    *,
    scripted: bool,
) -> None:
    check_beginning(settings, configs, claude=options.claude, scripted=scripted)


def _retry_failed(opened: Opened, console: Console) -> None:
    again = opened.queue.retry_failed()
    words = f"once more: {', '.join(again)}" if again else "no task of this run has failed"
    console.print(words, markup=False, soft_wrap=True)


def _file_changed(opened: Opened) -> bool:
    try:
        text = Path(str(opened.facts.get("file"))).read_text("utf-8")
    except (OSError, ValueError):
        return False
    return digest(text) != opened.facts.get("sha256")


class _Fleet:
    """One process's work on an opened queue."""

    def __init__(
        self, options: Options, settings: Settings, opened: Opened, console: Console
    ) -> None:
        self._options = options
        self._settings = settings
        self._opened = opened
        self._console = console
        self._board = Board(opened.queue, scripted=opened.scripted)
        self.redactor = _redactor(opened)
        self._inherited = inherited_by(settings, opened.scripted)
        self._screen = Screen(console, self._board, self.redactor)
        self._budget = _first(
            options.budget_usd,
            opened.facts.get("budget_usd"),
            settings.run.budget_usd,
            (settings.supervisor.get("budget") or {}).get("usd"),
        )

    def run(self) -> tuple[Summary, int | None]:
        """Say what is about to happen, do it; the summary and the first signal."""
        with ExitStack() as stack:
            configure: Configure = self._as_chosen
            if self._opened.scripted:
                scripted = stack.enter_context(scripted_fleet(self._opened.scripted_home))
                configure = lambda claim, config: scripted.configure(  # noqa: E731
                    claim, self._as_chosen(claim, config)
                )
            executor = DurableExecutor(
                self._opened.queue,
                self._supervisor(),
                places=_first(
                    self._options.agents,
                    self._opened.facts.get("agents"),
                    self._settings.run.agents,
                ),
                budget_usd=self._budget,
                configure=configure,
                on_news=self._hear,
            )
            port = _first(self._options.metrics_port, self._settings.run.metrics_port)
            address = stack.enter_context(serving_metrics(port))
            self._console.print(self._introduction(executor), markup=False, soft_wrap=True)
            if address:
                self._console.print(f"metrics: {address}", markup=False, soft_wrap=True)
            return asyncio.run(self._work(executor))

    async def _work(self, executor: DurableExecutor) -> tuple[Summary, int | None]:
        with listening(executor, self._screen.say) as signals, self._screen:
            looking = asyncio.ensure_future(self._look(executor))
            try:
                summary = await executor.run()
            finally:
                looking.cancel()
                self._board.refresh(executor)
        return summary, signals.number

    async def _look(self, executor: DurableExecutor) -> None:
        while True:
            await asyncio.to_thread(self._board.refresh, executor)
            await asyncio.sleep(_REFRESH)

    def _hear(self, news: TaskNews) -> None:
        self._screen.hear(news, self._board.hear(news))

    def _supervisor(self) -> SupervisorConfig:
        own = {name: value for name, value in self._settings.supervisor.items() if name != "budget"}
        own = {"register": True, **own, "transcript_dir": str(self._opened.transcripts)}
        return SupervisorConfig.from_mapping(own)

    def _as_chosen(self, _claim: Claim, config: AgentConfig) -> AgentConfig:
        """With the program of the command line and the environment of the settings."""
        if self._options.claude is not None and config.adapter == "claude":
            config = config._with(program=self._options.claude)
        if self._inherited is not None and config.inherit_environment:
            own = {**self._inherited, **config.environment}
            config = config._with(environment=own, inherit_environment=False)
        return config

    def _introduction(self, executor: DurableExecutor) -> str:
        """How many, which model, whose account, which budget: before anything costs money."""
        tasks = self._opened.queue.tasks()
        total = sum(task.state != "ended" for task in tasks)
        models = Counter(str(task.config.get("model") or "the CLI's default") for task in tasks)
        if self._opened.scripted:
            model, account = "scripted", "nobody's account (a scripted model on loopback decides)"
        else:
            model = ", ".join(sorted(models)) or "none"
            account = account_in(os.environ)
        budget = "no budget" if self._budget is None else f"budget {self._budget:.2f} USD"
        if not total:
            return (
                f"{self._opened.name}: nothing to do, {counted(len(tasks), 'task')} ended before; "
                f"database: {self._opened.queue.path}"
            )
        already = f"{total} of " if total != len(tasks) else ""
        verb = "resuming" if self._opened.resumed else "running"
        return (
            f"{verb} {self._opened.name}: {already}{counted(len(tasks), 'task')}, at most "
            f"{counted(min(executor.places, total), 'agent')} at once; model: {model}; "
            f"account: {account}; {budget}; database: {self._opened.queue.path}"
        )


def _redactor(opened: Opened) -> Redactor:
    """One that knows what the host and the tasks give to agents."""
    redactor = Redactor.for_environment(os.environ)
    for task in opened.queue.tasks():
        redactor.add(*secret_values(task.config.get("environment") or {}))
    return redactor


def _last_words(
    console: Console, opened: Opened, summary: Summary, seconds: float, redactor: Redactor
) -> None:
    for line in failures(opened, redactor):
        console.print(line, style="red", markup=False, soft_wrap=True)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(summary.counts.items()))
    stamp = " (scripted)" if opened.scripted else ""
    console.print(
        f"{opened.name}{stamp}: {counts}; ${summary.cost_usd:.3f} in {seconds:.1f} s",
        markup=False,
        soft_wrap=True,
    )
    if summary.reason and _left(summary):
        console.print(redactor.text(summary.reason), markup=False, soft_wrap=True)


def _how_to_log_in(console: Console, options: Options) -> None:
    program = shlex.quote(claude_found(options.claude, os.environ))
    console.print(
        f"log in with the Claude CLI (run {program}, there /login), or set ANTHROPIC_API_KEY",
        markup=False,
        soft_wrap=True,
    )


def _what_next(console: Console, opened: Opened, summary: Summary) -> None:
    left = _left(summary)
    failed = sum(summary.counts.values()) - left - summary.counts.get("completed", 0)
    if left:
        words = f"{counted(left, 'task')} {'is' if left == 1 else 'are'} left; go on with: "
        flag = "--resume"
    elif failed:
        words = f"{counted(failed, 'task')} did not complete; once more: "
        flag = "--retry-failed"
    else:
        return
    console.print(
        f"{words}vespera run {flag} --database {opened.queue.path}", markup=False, soft_wrap=True
    )


def _left(summary: Summary) -> int:
    return summary.counts.get("pending", 0) + summary.counts.get("running", 0)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
