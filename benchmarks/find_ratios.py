"""Responsible for asv's series of finding: times of both backends, and ratios to what a user would
pick instead (below 1 ours is faster), each from rounds in which the two take turns.
"""

from __future__ import annotations

import statistics

from . import finding, trees
from .series import IMPLS, ROUNDS


class Search:
    """Seconds to search 5,000 small files."""

    params = (list(finding.SEARCHES), IMPLS)
    param_names = ("work", "impl")
    timeout = 120.0

    def setup(self, work: str, impl: str) -> None:
        """Make the tree, once."""
        self.root = trees.sources()

    def time_search(self, work: str, impl: str) -> None:
        """One search, results consumed."""
        finding.SEARCHES[work][impl](self.root)


class Walk:
    """Seconds to walk 100,000 files, .gitignore honoured."""

    params = (list(finding.WALKS), IMPLS)
    param_names = ("work", "impl")
    timeout = 300.0

    def setup(self, work: str, impl: str) -> None:
        """Make the tree, once."""
        self.root = trees.names()

    def time_walk(self, work: str, impl: str) -> None:
        """One walk, results consumed."""
        finding.WALKS[work][impl](self.root)


class Ratios:
    """Our time over a peer's, the median of rounds in which they take turns: asv takes more for
    worse."""

    params = (IMPLS,)
    param_names = ("impl",)
    timeout = 600.0
    unit = "x peer's time"

    def setup(self, impl: str) -> None:
        """Make the tree, once."""
        self.names = trees.names()

    def track_glob_beside_pathlib(self, impl: str) -> float:
        """F2: Rust at most 0.2."""
        return self._ratio("glob *.py", "pathlib", impl)

    def track_glob_beside_os_walk(self, impl: str) -> float:
        """F2: Rust at most 0.67."""
        return self._ratio("glob *.py", "os.walk", impl)

    def track_walk_beside_os_walk(self, impl: str) -> float:
        """F2: Rust at most 0.67."""
        return self._ratio("walk", "os.walk", impl)

    def _ratio(self, task: str, peer: str, impl: str) -> float:
        works = finding.WALKS[task]
        found = finding.ratios({name: works[name] for name in (impl, peer)}, self.names, ROUNDS)
        pairs = zip(found[peer], found[impl], strict=True)
        return statistics.median(ours.wall / other.wall for other, ours in pairs)
