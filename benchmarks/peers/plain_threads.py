"""Responsible for what many programs do: a pool of threads, each in `subprocess.run`."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor


def runs(program: str, count: int, width: int) -> None:
    """Start and end `program` `count` times, `width` at a time."""
    with ThreadPoolExecutor(width) as pool:
        list(
            pool.map(
                lambda _: subprocess.run([program], stdout=subprocess.PIPE, check=True),
                range(count),
            )
        )
