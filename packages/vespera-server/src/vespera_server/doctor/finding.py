"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad it is: only `problem` keeps agents from running."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What was looked at, what it is, and for everything but `ok` what to do about it."""

    section: str
    name: str
    status: Status
    value: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status in (Status.WARNING, Status.PROBLEM) and not self.remedy:
            raise ValueError(f"finding {self.name!r} is a {self.status} without a remedy")

    def to_json(self) -> dict[str, str]:
        """As `vespera doctor --json` prints it."""
        return {key: str(value) for key, value in asdict(self).items()}
