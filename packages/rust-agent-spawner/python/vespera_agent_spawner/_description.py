"""Responsible for what a run or a turn is called in the end: outcome, words, numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vespera_agent_spawner.errors import (
    AgentError,
    AgentFailed,
    AgentTimeout,
    BudgetExceeded,
    LimitExceeded,
)
from vespera_agent_spawner.results import (
    OUTCOMES,
    ExitStatus,
    Outcome,
    RunResult,
    State,
    TurnResult,
)

if TYPE_CHECKING:
    from vespera_agent_spawner.backends._protocol import LiveSession
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["describe", "never_started", "start_failure"]

# What a limit ends is told apart from what does not start.
_BREACHES = ("limit_exceeded", "out_of_memory")

# The exit codes of programs that somebody told to end (SIGHUP, SIGTERM) and did, as the CLI does.
_HEARD = (128 + 1, 128 + 15)


def describe(
    session: LiveSession,
    *,
    turn: TurnResult | None,
    error: AgentError | None,
    cancelled: bool,
    duration: float,
    ended: bool,
    by_exit: bool = False,
    overspent: str | None = None,
) -> RunResult:
    """One turn of a session (``ended`` False) or a whole run, as a value.

    ``by_exit``: the exit is all that a program says about its work. ``overspent``: it was stopped
    for its budget, in these words.
    """
    state, session_id, turns, cost, total, first, tail, reaped, used = session.summary()
    status = session.exit_status if ended else None
    outcome, words = _outcome(state, turn, error, status, cancelled)
    if overspent and not cancelled and (turn is None or outcome is Outcome.CANCELLED):
        outcome, words = Outcome.BUDGET_EXCEEDED, overspent
    elif turn is None and not cancelled:
        outcome, words = _blamed(outcome, words, error, status, session.refused)
    if by_exit and status is not None and not isinstance(error, AgentTimeout):
        if outcome is Outcome.INCOMPLETE and status.success:
            outcome, words = Outcome.COMPLETED, None
        elif status.by == "interrupt":
            outcome, words = Outcome.CANCELLED, "it was interrupted"
    if words and status is not None and turn is None and tail.strip():
        words += f"; stderr: {tail.strip()[-500:]!r}"
    return RunResult(
        outcome=outcome,
        result=turn["result"] if turn else (session.last_line or None) if by_exit else None,
        session_id=session_id,
        exit=status,
        turns=turns,
        usage=turn["usage"] if turn else {},
        cost_usd=turn.get("cost_usd") if turn and not ended else cost,
        duration=duration,
        time_to_first_output=first,
        stderr_tail=tail,
        error=words,
        orphans_reaped=reaped,
        backend=session.backend_name,
        containment=session.containment,
        structured_output=turn["structured_output"] if turn else None,
        cpu_seconds=used if ended else None,
        total_cost_usd=total,
        agent_id=session.agent_id,
    )


def never_started(
    error: BaseException, config: AgentConfig, agent_id: str, backend: str, containment: str
) -> RunResult:
    """The result of an agent whose process never was, or never was ready."""
    kept = config.session_id or (None if config.fork_session else config.resume)
    tail = error.stderr_tail if isinstance(error, AgentError) else ""
    auth = isinstance(error, AgentError) and error.code == "auth_failed"
    outcome = Outcome.AUTH_FAILED if auth else Outcome.SPAWN_FAILED
    if isinstance(error, AgentTimeout) and error.which == "total":
        outcome = Outcome.TIMED_OUT
    if isinstance(error, BudgetExceeded):
        outcome = Outcome.BUDGET_EXCEEDED
    if isinstance(error, AgentError) and error.code in _BREACHES:
        outcome = Outcome(error.code)
    return RunResult(
        outcome=outcome,
        result=None,
        session_id=kept or "",
        exit=None,
        turns=0,
        usage={},
        cost_usd=None,
        duration=0.0,
        time_to_first_output=None,
        stderr_tail=tail,
        error=str(error) or repr(error),
        backend=backend,
        containment=containment,
        agent_id=agent_id,
    )


def start_failure(session: LiveSession, error: AgentError) -> AgentError:
    """Why it did not start: who reaches a limit before it is ready has not failed to start."""
    status = session.exit_status
    breach = None if status is None else _breach(status)
    if breach is None or status is None:
        return error
    words = f"agent '{session.agent_id}' ended before it was ready: {status.reason}"
    kind = LimitExceeded if breach is Outcome.LIMIT_EXCEEDED else AgentFailed
    return kind(words, code=str(breach.value), context=error.context)


def _breach(status: ExitStatus) -> Outcome | None:
    if status.by == "oom":
        return Outcome.OUT_OF_MEMORY
    if status.by == "limit" or (status.by == "kill" and "limits." in status.reason):
        return Outcome.LIMIT_EXCEEDED
    return None


def _blamed(
    outcome: Outcome,
    words: str | None,
    error: AgentError | None,
    status: ExitStatus | None,
    refused: tuple[str, str] | None,
) -> tuple[Outcome, str | None]:
    """Without a result, and while the service answered nothing else, that is the reason."""
    if refused is None or refused[0] == Outcome.FAILED:
        return outcome, words
    if isinstance(error, AgentTimeout):
        return Outcome(refused[0]), words
    by_itself = status is None or status.by in ("agent", "unknown")
    if by_itself or (status is not None and "no answer to an interrupt" in status.reason):
        return Outcome(refused[0]), f"{words}; the service said: {refused[1]}"
    return outcome, words


def _outcome(
    state: State,
    turn: TurnResult | None,
    error: AgentError | None,
    status: ExitStatus | None,
    cancelled: bool,
) -> tuple[Outcome, str | None]:
    if cancelled:
        return Outcome.CANCELLED, "the call that owned it was cancelled"
    if isinstance(error, AgentTimeout):
        return Outcome.TIMED_OUT, str(error)
    if status is not None and (breach := _breach(status)) is not None:
        return breach, status.reason
    if turn is not None:
        return OUTCOMES[turn["outcome"]], turn.get("error")
    if state is State.SPAWN_FAILED:
        return Outcome.SPAWN_FAILED, str(error) if error else None
    if status is None:
        return Outcome.INCOMPLETE, str(error) if error else None
    heard = status.by == "agent" and status.code in _HEARD
    if heard or status.by in ("kill", "terminate", "outside", "guardian"):
        return Outcome.KILLED, f"ended without a result: {status.reason}"
    if status.code:
        return Outcome.FAILED, f"ended without a result: {status.reason}"
    return Outcome.INCOMPLETE, f"ended without a result: {status.reason}"
