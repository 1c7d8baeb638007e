"""Responsible for the bearer token of a server: made once, kept for its owner's eyes alone."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

import platformdirs

from vespera_agent_spawner.errors import ConfigError

__all__ = ["default_token_file", "keep_token"]


def default_token_file() -> Path:
    """Where the token is when the operator does not say."""
    return Path(platformdirs.user_state_dir("vespera")) / "serve-token"


def keep_token(file: str | os.PathLike[str] | None) -> str:
    """The token in ``file``, made when there is none.

    Raises ``ConfigError`` for a file that others may read or that holds no token, and ``OSError``.
    """
    path = Path(file).expanduser() if file is not None else default_token_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    with contextlib.suppress(FileExistsError):
        # Written beside it and linked: nobody ever reads half a token.
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w") as stream:
                stream.write(f"{token}\n")
            os.link(fresh, path)
        finally:
            fresh.unlink()
        return token
    return _read(path)


def _read(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor) as stream:
        status = os.fstat(stream.fileno())
        owned = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not owned or stat.S_IMODE(status.st_mode) & 0o077:
            raise ConfigError(
                f"token_file: {path} is not this user's alone",
                field="token_file",
                value=str(path),
                remedy=f"run 'chmod 600 {path}' if the token is still secret, else remove the file",
            )
        token = stream.read(4096).strip()
    if len(token) < 32 or not token.isascii() or not token.isprintable():
        raise ConfigError(
            f"token_file: {path} holds no token",
            field="token_file",
            value=str(path),
            remedy="remove it, a new one is made; or put at least 32 random characters into it",
        )
    return token
