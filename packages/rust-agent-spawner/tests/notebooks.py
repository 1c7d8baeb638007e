"""Responsible for a Jupyter kernel as a notebook has it: cells, interrupts, restarts."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from fake_agents import FAKE

__all__ = ["Cell", "Notebook"]

SETUP = """
import asyncio, json, sys, threading
import vespera_agent_spawner as spawner
from vespera_agent_spawner import AgentConfig, Supervisor, SupervisorConfig
BACKEND, FAKE, TRACE = {backend!r}, {fake!r}, {trace!r}

def supervisor(**more):
    return Supervisor(SupervisorConfig(backend=BACKEND, memory_reserve=0, max_agents=8, **more))

def agent(prompt=None, how="", **more):
    return AgentConfig(program=sys.executable, args=(FAKE,), prompt=prompt,
                       environment={{"FAKE_CLAUDE": how, "FAKE_TRACE": TRACE}}, **more)
"""


@dataclasses.dataclass
class Cell:
    """What a cell left in the notebook."""

    out: str = ""
    err: str = ""
    #: The name of the exception that ended it.
    raised: str | None = None
    traceback: str = ""


class Notebook:
    """A kernel in a process of its own; ended with the ``with``."""

    def __init__(self, backend: str, trace: str, folder: Path) -> None:
        from jupyter_client.manager import KernelManager

        self._manager = KernelManager(kernel_name="python3")
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        assert self._manager.kernel_spec is not None
        self._manager.kernel_spec.argv = command
        self._folder = folder
        self._setup = SETUP.format(backend=backend, fake=str(FAKE), trace=trace)

    def __enter__(self) -> Self:
        self._manager.start_kernel(cwd=str(self._folder))
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()

    def _connect(self) -> None:
        self._client: Any = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)
        assert self.run(self._setup) == Cell()

    def run(self, code: str, seen: Callable[[Cell], None] | None = None) -> Cell:
        """Run a cell to its end; ``seen`` is called with whatever it has printed so far."""
        cell = Cell()

        def hook(message: dict[str, Any]) -> None:
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                if content["name"] == "stdout":
                    cell.out += content["text"]
                else:
                    cell.err += content["text"]
                if seen is not None:
                    seen(cell)
            elif kind == "error":
                cell.raised = content["ename"]
                cell.traceback = "\n".join(content["traceback"])

        self._client.execute_interactive(code, timeout=60, output_hook=hook, allow_stdin=False)
        return cell

    def run_and_interrupt(self, code: str) -> Cell:
        """Run a cell that prints when it is where it should be interrupted."""
        begun, over = threading.Event(), threading.Event()

        def press() -> None:
            begun.wait(60)
            # What interrupt_kernel() does, at once: while that waits in a loop of its own the
            # client misses the end of a cell that ends in that moment. Again as a person would:
            # on a busy machine a press was seen to come to nothing.
            kernel: Any = self._manager.provisioner
            while not over.is_set():
                kernel.process.send_signal(signal.SIGINT)
                over.wait(10)

        pressing = threading.Thread(target=press)
        pressing.start()
        try:
            return self.run(code, lambda _: begun.set())
        except TimeoutError:
            if begun.is_set():
                # The same cancellation, without a kernel, is test_ownership.py's.
                pytest.skip("on this machine the kernel heard none of six presses")
            raise
        finally:
            over.set()
            begun.set()
            pressing.join()

    def restart(self, *, now: bool) -> None:
        """``now``: by SIGKILL; else the kernel is asked."""
        self._client.stop_channels()
        self._manager.restart_kernel(now=now)
        self._connect()
