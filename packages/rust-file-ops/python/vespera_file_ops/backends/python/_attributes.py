"""Responsible for what a replaced file keeps beside its name: owner, mode, extended attributes, and
ACLs, which are among them.

The new file is born in a directory whose default ACL it inherits, and which may give strangers what
the old file never gave them. So what was not the old file's goes; and what of the old one cannot be
kept takes rights away, never adds any.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import sys
from dataclasses import dataclass, field

__all__ = ["Attributes", "keep", "read"]

_ACL = "system.posix_acl_access"
# The tag of the entry for the group that owns the file.
_GROUP_OBJ = 4
# Labels and signatures: what the system gave the new file is right for it.
_SYSTEMS_OWN = "security."

_FLAGS = getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC
_READABLE = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
_LOOK = getattr(os, "O_PATH", _READABLE)


@dataclass(slots=True)
class Attributes:
    """The extended attributes of a file; ``values`` are of those that may be read."""

    names: list[str] = field(default_factory=list)
    values: dict[str, bytes] = field(default_factory=dict)

    def group_of_acl(self) -> int | None:
        """What the entry ``group::`` of the ACL allows."""
        # A version, then entries of tag, rights and id, all of them little-endian: acl(5).
        entries = self.values.get(_ACL, b"")[4:]
        for tag, rights, _ in struct.iter_unpack("<HHI", entries[: len(entries) // 8 * 8]):
            if tag == _GROUP_OBJ:
                return int(rights) & 0o7
        return None


def read(directory: int, name: str) -> Attributes | None:
    """Those of the file ``name``; none if they cannot be told."""
    if sys.platform != "linux":
        return Attributes()
    try:
        descriptor = os.open(name, _FLAGS | _READABLE, dir_fd=directory)
        file: int | str = descriptor
    except OSError:
        # An ACL may be read without the right to read the file, but not by its descriptor.
        try:
            descriptor = os.open(name, _FLAGS | _LOOK, dir_fd=directory)
        except OSError:
            return None
        file = f"/proc/self/fd/{descriptor}"
    try:
        names = _listed(file)
        if names is None:
            return None
        found = Attributes(names)
        for attribute in names:
            with contextlib.suppress(OSError):
                found.values[attribute] = os.getxattr(file, attribute)
        return found
    finally:
        os.close(descriptor)


def keep(descriptor: int, old: os.stat_result, attributes: Attributes | None) -> None:
    """Give the new file, which has its content, what the ``old`` one had."""
    # First, while the file is private: an ACL would open it to the group of this process. And a
    # change of the owner takes away capabilities, which are attributes.
    mode = _keep_owner(descriptor, old, stat.S_IMODE(old.st_mode))
    mode = _keep_attributes(descriptor, attributes, mode)
    # After the content: a write would clear set-id bits, and until now the file was private.
    # After an ACL too, whose mask is the mode's group bits.
    os.fchmod(descriptor, mode)


def _listed(file: int | str) -> list[str] | None:
    """The names of extended attributes; none where there are no such things."""
    if sys.platform != "linux":
        return []
    try:
        return os.listxattr(file)
    except OSError as error:
        return [] if error.errno in (errno.ENOTSUP, errno.ENOSYS) else None


def _keep_attributes(descriptor: int, attributes: Attributes | None, mode: int) -> int:
    """The mode that is safe with the attributes that the file has now."""
    if sys.platform != "linux":
        return mode
    inherited = _listed(descriptor) or []
    kept: set[str] = set()
    if attributes is not None:
        for name in inherited:
            if name not in attributes.names and not name.startswith(_SYSTEMS_OWN):
                with contextlib.suppress(OSError):
                    os.removexattr(descriptor, name)
        for name, value in attributes.values.items():
            # Some belong to the system alone (labels, capabilities): kept where we may.
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, value)
                kept.add(name)
    if _ACL in kept:
        return mode
    if _ACL in inherited:
        try:
            os.removexattr(descriptor, _ACL)
        except OSError as error:
            if error.errno != errno.ENODATA:
                return _with_group(mode, 0)
    if attributes is not None and _ACL not in attributes.names:
        return mode
    # The group bits were the mask of an ACL, or may have been.
    group = None if attributes is None else attributes.group_of_acl()
    return _with_group(mode, mode & 0o7 if group is None else group)


def _keep_owner(descriptor: int, old: os.stat_result, mode: int) -> int:
    """The mode that is safe with the owner that the file has now."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid):
        return mode
    with contextlib.suppress(OSError):
        os.fchown(descriptor, old.st_uid, old.st_gid)
        return mode
    # Only root may give a file away. Without that, set-id bits would serve the wrong owner.
    mode &= 0o777
    if new.st_gid == old.st_gid:
        return mode
    # One's own file may be given to any group one is in. To another, the bits would open the file.
    with contextlib.suppress(OSError):
        os.fchown(descriptor, -1, old.st_gid)
        return mode
    return _with_group(mode, mode & 0o7)


def _with_group(mode: int, allowed: int) -> int:
    """The mode without those bits of the group that are not among the ``allowed`` ones."""
    return mode & (~0o070 | allowed << 3)
