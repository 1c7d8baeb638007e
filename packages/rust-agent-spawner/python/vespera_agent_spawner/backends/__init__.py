"""Responsible for choosing a backend, and for saying truthfully which one it is and why.

``auto`` is the Rust backend where its extension loads, else the Python one with one warning that
names what is lost. ``VESPERA_BACKEND`` sets what ``auto`` means for the process.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import threading
import warnings

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.backends._protocol import Backend, Ownership, Session
from vespera_agent_spawner.errors import ConfigError, SpawnError

__all__ = [
    "Backend",
    "Ownership",
    "Session",
    "backend",
    "choose",
    "in_subinterpreter",
    "loaded",
    "reset_lock_in_fork",
    "rust_problem",
]

VARIABLE = "VESPERA_BACKEND"
_CHOICES = ("auto", "rust", "python")

_log = logger_for("agent_spawner.backends")
# What may be otherwise at the next try; the loader tells them in words only.
_PASSES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)

_lock = threading.RLock()
_instances: dict[str, Backend] = {}
_problem: Exception | None = None
_tried_rust = False
_warned = False


def choose(name: str = "auto", *, field: str = "backend") -> Backend:
    """The backend of that name; one instance per process.

    Raises ``ConfigError`` for an unknown name, and for ``rust`` when its extension does not load
    (the reason is its cause); ``SpawnError`` when there is no descriptor or memory to load it.
    """
    wanted, source = _resolve(name, field)
    with _lock:
        if wanted == "python":
            return _python()
        rust = _rust()
        if rust is not None:
            return rust
        if wanted == "rust":
            raise ConfigError(
                f"{source}: the Rust backend was asked for but its extension does not load: "
                f"{_problem}",
                field=source,
                value="rust",
                remedy="install a compiled wheel of vespera-agent-spawner, or use 'python'",
                code="backend_unavailable",
            ) from _problem
        _warn_once()
        return _python()


def backend() -> str:
    """What ``auto`` is in this process: ``"rust"`` or ``"python"``. Starts nothing."""
    wanted, _ = _resolve("auto", "backend")
    with _lock:
        if wanted == "python":
            return "python"
        if wanted == "rust":
            return choose("rust", field=VARIABLE).name
        return "python" if _rust() is None else "rust"


def rust_problem() -> Exception | None:
    """Why the Rust backend is not available; None when it is."""
    with _lock:
        _rust()
        return _problem


def loaded() -> list[Backend]:
    """The backends that were used in this process."""
    with _lock:
        return list(_instances.values())


def reset_lock_in_fork() -> None:
    """In a forked child: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.RLock()


def _resolve(name: str, field: str) -> tuple[str, str]:
    """The wanted backend and the name of the setting that wants it."""
    if name == "auto":
        name, field = os.environ.get(VARIABLE, "").strip().lower() or "auto", VARIABLE
    if name not in _CHOICES:
        raise ConfigError(
            f"{field}: '{name}' is no backend; use one of {', '.join(_CHOICES)}",
            field=field,
            value=name,
            remedy=f"use one of {', '.join(_CHOICES)}",
        )
    return name, field


def _python() -> Backend:
    if "python" not in _instances:
        from vespera_agent_spawner.backends.python import PythonBackend

        _instances["python"] = PythonBackend()
    return _instances["python"]


def _rust() -> Backend | None:
    global _problem, _tried_rust
    if not _tried_rust:
        _tried_rust = True
        try:
            if in_subinterpreter():
                raise ImportError("its extension serves the main interpreter only")
            from vespera_agent_spawner.backends.rust import RustBackend

            _instances["rust"] = RustBackend()
        except Exception as error:
            if any(os.strerror(number) in str(error) for number in _PASSES):
                # Another backend for the life of the process would be a poor answer to that.
                _tried_rust = False
                raise SpawnError(
                    f"the Rust backend could not be loaded now: {error}; raise 'ulimit -n', or "
                    "free memory, and try again",
                    errno=getattr(error, "errno", None),
                    stage="import",
                ) from error
            # Missing, built for another machine, refused in a subinterpreter: all mean "use the
            # other one", and rust_problem() keeps the reason.
            _problem = error
    return _instances.get("rust")


@functools.cache
def in_subinterpreter() -> bool:
    """Whether this is not the process's main interpreter."""
    # pyo3 refuses only the second interpreter that loads it: a subinterpreter that came first
    # would take the extension away from the main one.
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False


def _warn_once() -> None:
    global _warned
    if _warned:
        return
    _warned = True
    text = (
        f"the Rust backend is not available ({_problem}); the Python backend is used: its "
        "containment tier is 'pgroup', so agents may outlive a killed host. Install a compiled "
        f"wheel of vespera-agent-spawner, or set {VARIABLE}=python to silence this"
    )
    _log.warning("%s", text)
    warnings.warn(text, RuntimeWarning, stacklevel=4)
