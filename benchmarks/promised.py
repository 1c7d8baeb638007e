"""Responsible for the promised table: "Expected Performance Improvements" of the architecture
document, each of its rows beside what was measured, and a sentence that does not flatter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.table import Row, Table

HEAD = """
The architecture document expects four improvements over "current (Python)". That is taken to be
what a user would write or install instead: asyncio, and the official SDK. Idle: the host has
nothing else to do. Busy: one Python thread of the host computes, as an orchestrator's does.
Counted is all that we add: the guardian, a leash for each agent, and the host's own work.

| expected | on which work | idle | busy | reached |
|---|---|---|---|---|
"""
SPAWNING = """
Spawning. Starting a process is the kernel's work, and asyncio's share of it is not the GIL: in
the same rounds a C loop that does nothing but the system calls reaches {floor} asyncio's rate. So
with an idle host nobody can be five times as fast. What the GIL does cost shows when the host
computes: then asyncio waits for it at every step.
{engine}
"""
KEEPS = "The engine does not need it, and keeps its rate."
LOADED = "The engine should not need it; in these rounds the machine was too loaded to show that."
JSON = """
JSON. Not by serde: a frame is walked for the few fields that everybody reads, and parsed only
when the whole is asked for. Who asks for all of it gets no miracle: as a dict it is made at
{full} the rate of orjson alone, which it does not need: making Python objects is most of that work.
"""
MEMORY = """
Memory. The host needs less for each session, but a leash watches over each agent and costs memory
of its own, which the second figure counts: together that is more than the SDK's host, which watches
over nothing. Both are small beside an agent: the real CLI takes 170
to 217 MB, so none of this changes how many agents fit into a machine.
"""
CLEANUP = """
Cleanup. Not by RAII: no destructor runs in a host that is killed. The guardian, a process of its
own, sees the host's socket close and ends the trees. The trials run on loaded machines and do not
part idle from busy. The Python backend promises none of this, and says so (`containment()` is
`pgroup`).
"""


@dataclass(frozen=True)
class Answer:
    """One row, and what has to be said about it."""

    expected: str
    work: str
    idle: str
    busy: str
    reached: str
    sentence: str

    def line(self) -> str:
        """As a row of Markdown."""
        cells = (self.expected, self.work, self.idle, self.busy, self.reached)
        return "| " + " | ".join(cells) + " |"


def times(row: Row | None, who: str, against: str) -> float | None:
    """How many times the rate of `against` is reached, from the medians."""
    if row is None or not row.value(who) or not row.value(against):
        return None
    return (row.value(who) or 0.0) / (row.value(against) or 1.0)


def ratio(row: Row | None, what: str) -> float | None:
    """A verdict's median."""
    verdict = row.verdict(what) if row else None
    return verdict.ratio if verdict else None


def said(value: float | None, form: str = "{:.1f} x") -> str:
    """A figure, or that there is none."""
    return "not measured" if value is None else form.format(value)


def within(value: float | None, least: float) -> str:
    """Whether the expectation was reached."""
    if value is None:
        return "not measured"
    return "yes" if value >= least else "no"


def spawning(found: Table) -> Answer:
    idle, busy = found.row("P1"), found.row("P2")
    alone = ratio(idle, "rust / asyncio")
    beside = ratio(busy, "rust / asyncio")
    floor = times(idle, "floor", "asyncio")
    return Answer(
        "concurrent spawning 5-10 x faster, by GIL elimination",
        "P1, P2: start and exit of a static program, 16 at a time, beside asyncio",
        said(alone),
        said(beside),
        f"idle: {within(alone, 5)}; busy: {within(beside, 5)}",
        SPAWNING.format(floor=said(floor), engine=KEEPS if (beside or 0) >= 5 else LOADED),
    )


def json_work(found: Table) -> Answer:
    row, busy = found.row("P4"), found.row("P4-busy")
    sdk, plain = ratio(row, "rust / sdk, cpu"), ratio(row, "rust / asyncio, cpu")
    beside = times(busy, "rust", "asyncio")
    full = ratio(found.row("P5"), "data / orjson")
    inverse = None if not plain else 1 / plain
    against_sdk = None if not sdk else 1 / sdk
    return Answer(
        "JSON processing 2-5 x faster, serde instead of json",
        "P4: an event of 450 bytes up to the consumer, kind and text read; P5: all of it as a dict",
        f"{said(inverse)} less CPU than asyncio with json, {said(against_sdk)} less than the SDK",
        f"{said(beside)} the events of asyncio in a second",
        within(inverse, 2),
        JSON.format(full=said(full)),
    )


def memory(found: Table) -> Answer:
    row, busy = found.row("P6"), found.row("P6-busy")
    share = ratio(row, "host / sdk")
    less = None if share is None else (1 - share) * 100
    added = ratio(row, "all that we add, KiB")
    streaming = busy.value("rust") if busy else None
    return Answer(
        "memory 40-60 % less, by zero-copy",
        "P6: a live session between turns; P6-busy: an agent whose events stream to a consumer",
        f"{said(less, '{:.0f} %')} less host than the SDK; {said(added, '{:.0f} KiB')} in all",
        f"{said(streaming, '{:.1f} KiB')} of the host",
        f"host: {within(less, 40)}; with leash and guardian: no",
        MEMORY,
    )


def cleanup(found: Table) -> Answer:
    kinds = [
        f"{int(one['survived'])} of {int(one['kills']):,} kills of the {whom} left a process"
        for whom, one in found.chaos.items()
    ]
    late = found.chaos["host"]["p99_ms"] if "host" in found.chaos else None
    kills = sum(one["kills"] for one in found.chaos.values())
    survived = sum(one["survived"] for one in found.chaos.values())
    sure = None if not kills else 100 - (300 / kills if not survived else 100 * survived / kills)
    return Answer(
        "process cleanup 99.9 % reliable (from 95 %), by RAII",
        "the chaos ledger: host, guardian or leash killed at a random moment",
        "; ".join(kinds) or "not measured",
        said(late, "the host killed: nothing left after {:.0f} ms, 99 of 100 times"),
        within(sure, 99.9) + (f", at least {sure:.2f} % at 95 % confidence" if sure else ""),
        CLEANUP,
    )


def promised(found: Table) -> str:
    """The table and its sentences."""

    def parts() -> Iterator[str]:
        answers = [make(found) for make in (spawning, json_work, memory, cleanup)]
        yield HEAD
        yield "\n".join(answer.line() for answer in answers)
        yield "\n\n"
        yield "\n".join(answer.sentence.lstrip("\n") for answer in answers)

    return "".join(parts())
