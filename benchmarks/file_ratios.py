"""Responsible for asv's series of file operations: ratios to the peers, taken side by side."""

from __future__ import annotations

import statistics

from . import file_work as work
from .files import interleaved, ratio
from .series import IMPLS, ROUNDS


class Ratios:
    """Our seconds over the peer's, the median of interleaved rounds: asv takes more for worse."""

    params = (IMPLS,)
    param_names = ("impl",)
    timeout = 600.0
    unit = "x peer's time"

    def _ratio(self, contestants: dict[str, work.Round], impl: str) -> float:
        return 1 / statistics.median(ratio(interleaved(contestants, ROUNDS), impl))

    def track_edit(self, impl: str) -> float:
        """F3: one edit of 10 MB beside the same system calls in C, in memory."""
        with work.folder("memory") as folder:
            return self._ratio(work.edits(folder / "f", 10 * work.MEGABYTE, 3), impl)

    def track_multi_edit(self, impl: str) -> float:
        """F3: four edits at once."""
        with work.folder("memory") as folder:
            return self._ratio(work.multi_edits(folder / "f", 10 * work.MEGABYTE, 3), impl)

    def track_read(self, impl: str) -> float:
        """F4: 4 KB beside open().read()."""
        with work.folder("memory") as folder:
            return self._ratio(work.reads(folder / "f", 4096, 5000), impl)

    def track_sha256(self, impl: str) -> float:
        """F5: 256 MB beside hashlib."""
        with work.folder("disk") as folder:
            return self._ratio(work.hashes(folder / "f", 256 * work.MEGABYTE, "sha256"), impl)

    def track_atomic_write(self, impl: str) -> float:
        """F6: 4 KB with fsync, on disk, beside the same system calls in C."""
        with work.folder("disk") as folder:
            return self._ratio(work.writes(folder / "f", 4096, 20), impl)


class EditPeak:
    """F3: most memory that three edits at once take, as a multiple of the file."""

    params = (IMPLS,)
    param_names = ("impl",)
    timeout = 600.0
    unit = "x file"

    def track_edit_peak(self, impl: str) -> float:
        """10 MB in memory."""
        with work.folder("memory") as folder:
            return work.edit_peak(folder / "f", 10 * work.MEGABYTE, many=True, impl=impl)
