"""Responsible for asv's series of finding: times of both backends, and ratios to what a user would
pick instead (above 1 ours is faster), each from rounds in which the two take turns.
"""

from __future__ import annotations

import statistics

from . import finding, trees

ROUNDS = 5


class Search:
    """Seconds to search 5,000 small files."""

    params = (list(finding.SEARCHES), ["rust", "python"])
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

    params = (list(finding.WALKS), ["rust", "python"])
    param_names = ("work", "impl")
    timeout = 300.0

    def setup(self, work: str, impl: str) -> None:
        """Make the tree, once."""
        self.root = trees.names()

    def time_walk(self, work: str, impl: str) -> None:
        """One walk, results consumed."""
        finding.WALKS[work][impl](self.root)


class Ratios:
    """Time of a peer over that of the Rust backend, both in each of five rounds."""

    timeout = 600.0
    unit = "x"

    def setup(self) -> None:
        """Make the trees, once; without ripgrep and fd there is nothing to compare with."""
        try:
            finding.program("rg")
            finding.program("fd")
        except FileNotFoundError as missing:
            raise NotImplementedError(str(missing)) from missing
        self.sources = trees.sources()
        self.names = trees.names()

    def track_search_over_ripgrep(self) -> float:
        """F1: at least 0.9."""
        return self._ratio("search, literal", "ripgrep")

    def track_search_over_python(self) -> float:
        """F1: at least 2."""
        return self._ratio("search, literal", "python")

    def track_glob_over_fd(self) -> float:
        """F2: at least 0.9."""
        return self._ratio("glob *.py", "fd")

    def track_glob_over_pathlib(self) -> float:
        """F2: at least 5."""
        return self._ratio("glob *.py", "pathlib")

    def track_glob_over_os_walk(self) -> float:
        """F2: at least 1.5."""
        return self._ratio("glob *.py", "os.walk")

    def _ratio(self, task: str, peer: str) -> float:
        searching = task in finding.SEARCHES
        works = (finding.SEARCHES if searching else finding.WALKS)[task]
        root = self.sources if searching else self.names
        found = finding.ratios({name: works[name] for name in ("rust", peer)}, root, ROUNDS)
        pairs = zip(found[peer], found["rust"], strict=True)
        return statistics.median(other.wall / ours.wall for other, ours in pairs)
