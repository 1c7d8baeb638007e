"""Responsible for what every backend gives api.py. A backend decides nothing about ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from vespera_agent_spawner.events import Event
from vespera_agent_spawner.results import AgentInfo, ExitStatus, State, TurnResult, Usage

if TYPE_CHECKING:
    from vespera_agent_spawner.adapters.lookups import Lookups
    from vespera_agent_spawner.config import AgentConfig

__all__ = [
    "NOTICE",
    "Backend",
    "LiveSession",
    "Ownership",
    "Session",
    "Standby",
    "StandingSession",
    "Summary",
]

#: The id under which ``take_answers`` gives what the CLI says of the service unasked.
NOTICE = ""


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a fleet says on the ownership of its trees.

    ``host_death_grace``: seconds that agents may live on when the host dies, None for what their
    adapter usually gives. ``cgroup``: the delegated cgroup2 directory in which each agent gets one
    of its own.
    """

    host_death_grace: float | None = None
    cgroup: str | None = None


#: What a result takes of an agent at once: state, session id, turns, dollars of this process and of
#: the session, seconds to the model's first output, the tail of stderr, processes that were still
#: there after the leader's exit and were ended, CPU seconds of what was reaped of an ended tree.
Summary = tuple[State, str, int, float | None, float | None, float | None, str, int, float | None]


class Standby(Protocol):
    """The runs of one fleet that are ready to start when another has ended: then the backend
    starts the next by itself, without a turn of the event loop."""

    def is_wanted(self) -> bool:
        """Whether the loop comes late for what ends: else it starts the next as soon itself."""

    def starting(self) -> int:
        """How many of the fleet are starting, those that nobody has heard of among them."""

    def renew(self, good_for: float) -> None:
        """The fleet has been looked at: for so many seconds they may start."""


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
    def exit_status(self) -> ExitStatus | None:
        """How the process ended; None while it lives."""

    def info(self) -> AgentInfo: ...

    def spent(self) -> tuple[float, int, int]:
        """Dollars, and tokens in and out, that its results have told so far."""

    def usage(self) -> Usage:
        """What the whole tree uses now; after its end only the CPU time of what was reaped."""

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


class LiveSession(Session, Protocol):
    """A session on an event loop: nothing here waits, and ``news`` is called on that loop.

    What happened is asked for after ``news``: ``heard`` first, so that nothing is missed.
    """

    @property
    def backend_name(self) -> str:
        """``"rust"`` or ``"python"``."""

    @property
    def containment(self) -> str:
        """The tier that the agent has."""

    def summary(self) -> Summary:
        """The agent as it is, for a result."""

    @property
    def last_line(self) -> str:
        """The last line that was not empty, of a program that says nothing but lines."""

    @property
    def transcript_lost(self) -> str | None:
        """Why the transcript is not whole; None while it is."""

    @property
    def refused(self) -> tuple[str, str] | None:
        """What the service answered last instead of the model: outcome and words."""

    @property
    def tells_itself(self) -> bool:
        """Whether ``news`` tells of a start's first news too; else its owner asks at once."""

    def heard(self) -> State | None:
        """What happens from now on is told again; None when nothing but events has come, else the
        state."""

    @property
    def turns_ended(self) -> int:
        """Ends of turns that ``heard`` found and nobody has taken."""

    @property
    def has_answers(self) -> bool:
        """Whether ``heard`` found something for ``take_answers``."""

    def listen(self, listening: bool) -> None:
        """Begin or end to keep events."""

    def take_events(self, limit: int) -> list[Event]:
        """Undelivered events, oldest first."""

    def backlog(self) -> tuple[int, int, int]:
        """Events that wait, events dropped, bytes that went to disk."""

    def waiting_kinds(self) -> set[str]:
        """Of which kinds the events are that wait; one that has no name here is the empty text."""

    def take_asks(self) -> list[bytes]:
        """What the host is asked (permissions, its hooks, its tools) and what was withdrawn of
        it, as frames."""

    def take_answers(self) -> list[tuple[str, bytes]]:
        """Answers to ``request``: its id and the frame; ``NOTICE`` and a frame for what the CLI
        says of the service unasked."""

    def noted(self) -> None:
        """What a ``NOTICE`` said has been acted upon."""

    def answer(self, ask: str, frame: Mapping[str, Any]) -> None: ...

    def request(self, request: Mapping[str, Any]) -> str:
        """Ask something of the CLI; returns the id under which ``take_answers`` tells."""

    def write(self, data: bytes) -> None:
        """Send whole lines as they are to a CLI that somebody else speaks with."""

    def end_input(self) -> None:
        """End the input once all that was sent before has arrived."""

    def begin_turn(self, prompt: str, timeout: float | None) -> None:
        """Raises ``AgentBusy`` and ``AgentFailed``."""

    def take_turn(self) -> TurnResult | None:
        """The turn's end once it has one. Raises ``AgentTimeout`` and ``AgentFailed``."""

    def check_start(self) -> None:
        """Once the start has an end: raises why the agent never became ready."""

    def abandon(self) -> None:
        """Stop the turn in flight, which nobody waits for; end the agent if it is deaf."""

    def begin_shutdown(self, grace: float) -> None: ...

    def claim(self, config: AgentConfig, news: Callable[[], bool], *, listening: bool) -> None:
        """A spare session gets its owner, whose configuration differs in what no process sees
        before its first prompt; with a prompt it is a run from now on."""


class StandingSession(LiveSession, Protocol):
    """A session that stands by."""

    def has_begun(self) -> bool:
        """Whether one that stood by has been started."""

    def withdraw(self) -> bool:
        """It stands by no more and never starts. False: it has begun."""

    def entered(self) -> float:
        """The fleet has heard that it has begun; returns how many seconds ago that was."""


class Backend(Protocol):
    """A way to start agents."""

    @property
    def name(self) -> str:
        """``"rust"`` or ``"python"``."""

    def containment(self) -> str:
        """The tier this backend guarantees here: cgroup, subreaper, job_object or pgroup.

        Raises ``SpawnError`` where what guarantees it cannot be started.
        """

    def tier(self) -> str:
        """``containment()`` for a report, which may be that of its failure: empty then."""

    def containment_reason(self) -> str:
        """Why the tier is not a better one; empty for the best."""

    def spawn(self, config: AgentConfig) -> Session:
        """Start an agent; returns when ``initialize`` is answered.

        Raises ``SpawnError`` or ``AgentTimeout`` with the tail of its stderr; nothing of the
        agent is left then.
        """

    def start(
        self,
        config: AgentConfig,
        news: Callable[[], bool],
        *,
        listening: bool,
        ownership: Ownership,
        lookups: Lookups | None = None,
        counting: bool = False,
        spare: bool = False,
        standby: Standby | None = None,
        stands_by: bool = False,
    ) -> LiveSession:
        """Start an agent on the running loop without waiting; with a prompt it is a run.

        ``spare``: it waits for its owner (``claim``), whatever its prompt. ``counting``: its
        answers tell of each message of the model, under ``NOTICE``. ``standby``: its end may start
        one of those; ``stands_by``: it is one of them.

        ``host_death_grace`` in seconds is what the host's death leaves it, where the backend can
        keep that; None is the adapter's.
        Raises ``ConfigError`` and ``SpawnError`` for what is known before the process is.
        """

    def standby(self, most_starting: int) -> Standby | None:
        """For a new fleet, of which so many may be starting at once; None where nobody can start
        without the event loop."""

    def close(self, grace: float) -> None:
        """End every agent within ``grace`` seconds, by force after it. For interpreter exit."""

    def forget_in_fork(self) -> None:
        """In a forked child: let go of everything, ending nothing; it is the parent's."""

    def usage_of(self, sessions: Sequence[Session]) -> list[Usage]:
        """``usage()`` of each, with one look at the system for all."""

    def metrics(self) -> dict[str, float]:
        """Counters of this backend, named as Prometheus would print them."""
