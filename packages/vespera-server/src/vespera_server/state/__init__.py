"""What `vespera` keeps on disk: one directory, one owner of it, a bound on its size and age."""

from __future__ import annotations

from vespera_server.state.directory import RunState, StateDirectory
from vespera_server.state.keeping import Kept, Removed, collect

__all__ = ["Kept", "Removed", "RunState", "StateDirectory", "collect"]
