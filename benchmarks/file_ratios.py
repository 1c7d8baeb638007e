"""Responsible for asv's series of file operations: ratios to the peers, taken side by side."""

from __future__ import annotations

import statistics

from . import file_work as work
from .files import interleaved, ratio


class Ratios:
    """The peer's seconds over ours, the median of interleaved rounds: above 1 is faster."""

    params = (["rust", "python"],)
    param_names = ("impl",)
    timeout = 600.0
    unit = "x peer"

    def _ratio(self, contestants: dict[str, work.Round], impl: str, rounds: int = 7) -> float:
        return statistics.median(ratio(interleaved(contestants, rounds), impl))

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


class RustRatios:
    """What only the Rust backend is measured in."""

    timeout = 600.0
    unit = "x file"

    def track_edit_peak(self) -> float:
        """F3: most memory that an edit takes, as a multiple of the file."""
        with work.folder("memory") as folder:
            return work.edit_peak(folder / "f", 10 * work.MEGABYTE, many=True)


class Blake3:
    """F5 beside b3sum, for the Rust backend; left out where there is no b3sum."""

    timeout = 600.0
    unit = "x peer"

    def setup(self) -> None:
        """Asv takes NotImplementedError for 'skip this one' only when it comes from here."""
        if work.b3sum() is None:
            raise NotImplementedError("no b3sum; `cargo install b3sum --root target/peers`")

    def track_blake3(self) -> float:
        """256 MB, all processors."""
        with work.folder("disk") as folder:
            contestants = work.hashes(folder / "f", 256 * work.MEGABYTE, "blake3")
            return statistics.median(ratio(interleaved(contestants, 7), "rust"))
