"""`vespera model` as the user calls it: the scripted model in the foreground, for programs that
otherwise need an account."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from pydantic import Field, ValidationError

from vespera_agent_spawner.errors import ConfigError
from vespera_server.documents import read_document
from vespera_server.run.model import ScriptedStep, _Part
from vespera_server.run.scripted import script_of
from vespera_server.scripted_model import Script, ScriptedModel
from vespera_server.settings.problems import problems_of

__all__ = ["DEFAULT_ANSWER", "ScriptFile", "serve_model"]

DEFAULT_ANSWER = "This is the scripted model: no account was used."


class ScriptFile(_Part):
    """A file for `vespera model --script`."""

    scripted: list[ScriptedStep] = Field(
        min_length=1, description="What the model answers in each conversation, in order."
    )


def serve_model(*, script: Path | None, format: str | None, port: int) -> int:
    """Serves until Ctrl-C or SIGTERM; 0, or 2 when it could not begin."""
    try:
        chosen = _script(script, format)
        model = ScriptedModel({"default": chosen}, port=port).start()
    except (ConfigError, OSError) as error:
        words = f"--port {port}: {error.strerror}" if isinstance(error, OSError) else str(error)
        if script is not None and isinstance(error, OSError) and error.filename is not None:
            words = f"--script {script}: {error.strerror}"
        print(f"vespera model: {words}", file=sys.stderr)
        return 2
    # Before anything is printed: who has read the two lines may end it.
    signal.signal(signal.SIGTERM, _end)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            print(f"export ANTHROPIC_BASE_URL={shlex.quote(model.base_url)}")
            print("export ANTHROPIC_API_KEY=scripted", flush=True)
            print(
                "serving; give these two lines to another shell, end it here with Ctrl-C",
                file=sys.stderr,
            )
            threading.Event().wait()
    finally:
        model.close()
    return 0


def _script(path: Path | None, format: str | None) -> Script:
    if path is None:
        return script_of((), DEFAULT_ANSWER)
    text = sys.stdin.read() if str(path) == "-" else None
    document = read_document(path, format, text)
    try:
        file = ScriptFile.model_validate(document.data)
    except ValidationError as error:
        at, problem, value = next(problems_of(error, ScriptFile))
        raise document.error(at, problem, value) from error
    steps = [step.model_dump(exclude_defaults=True) for step in file.scripted]
    return script_of(steps, DEFAULT_ANSWER)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
