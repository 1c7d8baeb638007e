"""Responsible for the cgroup that an operator delegates: whether it can be used, and how far.

Making one cgroup per agent is the guardian's work. See cgroups(7) and the kernel's
``Documentation/admin-guide/cgroup-v2.rst`` (delegation).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vespera_agent_spawner.errors import ConfigError

__all__ = ["delegated"]

# Those of our limits that a cgroup can keep.
_CONTROLLERS = ("memory", "pids")


def delegated(name: str) -> str:
    """Check a delegated cgroup2 directory and switch its controllers on; its absolute path.

    Raises ``ConfigError`` when it is no cgroup2, is not empty or may not be written to.
    """
    path = Path(name).absolute()
    problem = _problem(path)
    if problem is not None:
        raise ConfigError(
            f"cgroup: {path} {problem}",
            field="cgroup",
            value=name,
            remedy="name an empty cgroup2 directory that belongs to this user "
            "(systemd: Delegate=yes, and keep the host out of it)",
        )
    available = (path / "cgroup.controllers").read_text("ascii").split()
    for controller in _CONTROLLERS:
        if controller in available:
            # Refused where a parent keeps it: that limit is watched instead.
            with contextlib.suppress(OSError):
                (path / "cgroup.subtree_control").write_text(f"+{controller}", "ascii")
    return str(path)


def _problem(path: Path) -> str | None:
    if not path.is_dir():
        return "does not exist" if not path.exists() else "is not a directory"
    members = path / "cgroup.procs"
    if not members.exists() or not (path / "cgroup.controllers").exists():
        return "is not a cgroup2 directory"
    if members.read_text("ascii").split():
        return "has processes in it"
    if not os.access(path, os.W_OK) or not os.access(members, os.W_OK):
        return "may not be written to by this user"
    return None
