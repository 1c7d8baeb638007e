"""Responsible for what asv's series share: both implementations, and how many rounds a ratio takes.

Every series has a number for both implementations at every commit: peers that may be missing
(ripgrep, fd, b3sum, the official SDK) are in the table of `nox -s bench` only.
"""

import os

IMPLS = ["rust", "python"]
ROUNDS = int(os.environ.get("VESPERA_BENCH_ROUNDS", "7"))
