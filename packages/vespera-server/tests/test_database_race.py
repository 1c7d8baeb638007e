"""A database that several processes make at the same moment is made once, and all have it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

OPENS = """
import sys, time
from pathlib import Path
from vespera_server.tasks.database import open_database
while time.time() < float(sys.argv[2]):
    pass
print(open_database(Path(sys.argv[1])).execute("PRAGMA journal_mode").fetchone()[0])
"""


def test_all_who_begin_at_once_have_it(tmp_path: Path) -> None:
    for number in range(6):
        at = str(time.time() + 0.6)
        line = [sys.executable, "-c", OPENS, str(tmp_path / f"{number}.db"), at]
        opening = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(4)]
        assert [each.communicate(timeout=60)[0] for each in opening] == ["wal\n"] * 4
