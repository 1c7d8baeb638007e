"""Responsible for where callers may work: paths beneath the operator's roots, and nothing else.

Files are reached through ``vespera_file_ops.Workspace``, which lets the kernel decide while it
opens; what is decided here is only which root a path belongs to. A working directory is checked
in the same way, then handed to the engine by its real name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vespera_agent_spawner.errors import ConfigError
from vespera_file_ops import OutsideWorkspace, Workspace
from vespera_file_ops._operations import WorkspaceOperations

__all__ = ["Place", "Places", "expanded"]


@dataclass(frozen=True, slots=True)
class Place:
    """A path as a root sees it: ``path`` is relative to ``workspace``."""

    workspace: WorkspaceOperations
    path: str

    @property
    def shown(self) -> str:
        """The whole path, for people and for the next call."""
        return os.path.normpath(f"{self.workspace.root}{os.sep}{self.path}")


def expanded(given: str | os.PathLike[str], field: str) -> Path:
    """The path with its ``~``. Raises ``ConfigError`` where that is nobody's home."""
    try:
        return Path(given).expanduser()
    except RuntimeError as error:
        remedy = "give the full path"
        raise ConfigError(
            f"{field}: {os.fspath(given)}: there is no such home; {remedy}",
            field=field,
            value=os.fspath(given),
            remedy=remedy,
        ) from error


class Places:
    """The operator's roots. Raises ``ConfigError`` for one that is no directory."""

    def __init__(self, roots: Sequence[str] = (), *, read_only: bool = False) -> None:
        self._workspaces: list[WorkspaceOperations] = []
        # A root answers to its real name and to the one that the operator wrote.
        self._spellings: dict[str, WorkspaceOperations] = {}
        for given in roots or (os.curdir,):
            written = expanded(given, "roots").absolute()
            real = os.path.realpath(written)
            if not Path(real).is_dir():
                raise ConfigError(
                    f"roots: {given} is no directory",
                    field="roots",
                    value=given,
                    remedy="create it, or name another",
                )
            workspace = Workspace(real, read_only=read_only)
            self._workspaces.append(workspace)
            self._spellings |= {str(written): workspace, real: workspace}

    @property
    def roots(self) -> tuple[str, ...]:
        """Their real paths; the first one is where relative paths start."""
        return tuple(workspace.root for workspace in self._workspaces)

    def find(self, path: str) -> Place:
        """The place of a path; raises ``OutsideWorkspace`` for an absolute one beneath no root.

        Whether it really is there, and leads nowhere else, is found out when it is opened.
        """
        if not path or "\0" in path:
            raise ConfigError(
                f"path: {path!r} is no path",
                field="path",
                value=path,
                remedy="give a path beneath a root, such as 'src/main.py'",
            )
        if not Path(path).is_absolute():
            return Place(self._workspaces[0], path)
        # The deepest root first: one may lie within another.
        for root in sorted(self._spellings, key=len, reverse=True):
            if _is_beneath(path, root):
                beneath = path[len(root) :].lstrip(os.sep)
                return Place(self._spellings[root], beneath or os.curdir)
        raise self._outside(path)

    def directory(self, path: str | None) -> str:
        """The real path of a directory to work in; raises ``OutsideWorkspace`` or ``OSError``."""
        if path is None:
            return self.roots[0]
        place = self.find(path)
        if not place.workspace.file_info(place.path).is_dir:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        real = os.path.realpath(f"{place.workspace.root}{os.sep}{place.path}")
        # The workspace followed no link out of itself; its real name must say the same.
        if not _is_beneath(real, place.workspace.root):
            raise self._outside(path)
        return real

    def _outside(self, path: str) -> OutsideWorkspace:
        return OutsideWorkspace(
            f"{path} is outside of this server's roots: {', '.join(self.roots)}",
            context={"path": path, "remedy": f"give a path beneath {' or '.join(self.roots)}"},
        )


def _is_beneath(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
