"""Responsible for what every backend gives api.py. A backend decides nothing about ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from vespera_agent_spawner.results import AgentInfo, ExitStatus, State, TurnResult, Usage

if TYPE_CHECKING:
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["Backend", "Session"]


class Session(Protocol):
    """One agent's process and its conversation. Every method may be called from any thread."""

    @property
    def agent_id(self) -> str: ...

    @property
    def session_id(self) -> str: ...

    @property
    def pid(self) -> int | None: ...

    @property
    def state(self) -> State: ...

    @property
    def stderr_tail(self) -> str:
        """The last 64 KiB of stderr, decoded with replacement characters."""

    @property
    def orphans_reaped(self) -> int:
        """How many processes were still there after the leader's exit and were ended."""

    @property
    def exit_status(self) -> ExitStatus | None:
        """How the process ended; None while it lives."""

    def info(self) -> AgentInfo: ...

    def usage(self) -> Usage:
        """What the whole tree uses now; zeros after its end."""

    def execute(self, prompt: str, timeout: float | None) -> TurnResult:
        """One turn. Blocks; ``timeout`` in seconds bounds it, None does not.

        Raises ``AgentBusy``, ``AgentTimeout``, ``AgentFailed``; a KeyboardInterrupt interrupts
        the turn and is raised at once.
        """

    def interrupt(self) -> None:
        """Interrupt the turn in flight, if there is one; the turn's caller gets its result."""

    def shutdown(self, grace: float) -> ExitStatus:
        """End the tree: stdin ends, SIGTERM after half of ``grace``, force after all of it."""

    def kill(self) -> None:
        """End the tree by force, now."""


class Backend(Protocol):
    """A way to start agents."""

    @property
    def name(self) -> str:
        """``"rust"`` or ``"python"``."""

    def containment(self) -> str:
        """The tier this backend guarantees here: cgroup, subreaper, job_object or pgroup."""

    def containment_reason(self) -> str:
        """Why the tier is not a better one; empty for the best."""

    def spawn(self, config: AgentConfig) -> Session:
        """Start an agent; returns when ``initialize`` is answered.

        Raises ``SpawnError`` or ``AgentTimeout`` with the tail of its stderr; nothing of the
        agent is left then.
        """

    def close(self, grace: float) -> None:
        """End every agent within ``grace`` seconds, by force after it. For interpreter exit."""

    def forget_in_fork(self) -> None:
        """In a forked child: let go of everything, ending nothing; it is the parent's."""

    def metrics(self) -> dict[str, float]:
        """Counters of this backend, named as Prometheus would print them."""
