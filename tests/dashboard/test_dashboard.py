"""Responsible for a dashboard that is whole and that a browser shows: a real one, from loopback.

`nox -s dashboard` makes the pages and says where they are; the plain suite has no asv to make them.
"""

from __future__ import annotations

import functools
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import dashboard

PAGES = os.environ.get("VESPERA_DASHBOARD", "")
made = pytest.mark.skipif(not PAGES, reason="`nox -s dashboard` makes the pages")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# As root it has no sandbox; and nobody is to be asked for anything but the page.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1280,1000"),
)


@pytest.fixture(scope="module")
def browser() -> str:
    """Debian's Chromium, or another that is there."""
    for name in BROWSERS:
        if (path := shutil.which(name)) is not None:
            return path
    missing = "no Chromium; `apt install chromium`"
    if os.environ.get("VESPERA_REQUIRE_BROWSER"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The pages on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    handler = functools.partial(Quiet, directory=PAGES)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


def opened(browser: str, url: str, profile: Path, *words: str) -> str:
    """What the browser has made of the page once its scripts have run."""
    line = [browser, *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=20000"]
    done = subprocess.run(
        [*line, *(words or ["--dump-dom"]), url], check=True, capture_output=True, text=True
    )
    return html.unescape(done.stdout)


def series() -> list[str]:
    """Names of everything that was measured."""
    index = json.loads((Path(PAGES) / "index.json").read_text())
    return sorted(index["benchmarks"])


def test_what_is_kept_has_a_number_for_both_implementations_at_three_commits() -> None:
    assert list(dashboard.holes(dashboard.KEPT, 3)) == []


def test_a_hole_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    row = [[1.0, None], [["'rust'", "'python'"]]]
    alone = [[1.0], [["'rust'"]]]
    told = {"commit_hash": "0" * 40, "results": {"a.hole": row, "b.alone": alone}}
    (folder / "0-env.json").write_text(json.dumps(told))
    skipped = [[1.0, float("nan")], [["'rust'", "'python'"]]]
    later = {"commit_hash": "1" * 40, "results": {"a.hole": skipped}}
    (folder / "1-env.json").write_text(json.dumps(later))
    found = "; ".join(dashboard.holes(tmp_path, 3))
    assert "results of 2 commits, 3 are wanted" in found
    assert "00000000: a.hole has no number" in found
    assert "11111111: a.hole has no number" in found
    assert "b.alone is not measured for both" in found
    assert "11111111: b.alone was not measured" in found


@made
def test_what_is_kept_is_of_commits_of_this_history() -> None:
    for one in dashboard.results(dashboard.KEPT):
        line = ["git", "merge-base", "--is-ancestor", one["commit_hash"], "HEAD"]
        assert subprocess.run(line, cwd=dashboard.ROOT).returncode == 0, one["commit_hash"]


@made
def test_the_page_asks_no_other_host_for_a_script() -> None:
    page = (Path(PAGES) / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="https?://[^"]+\.(?:js|css)"', page)
    assert page.count("integrity=") >= 4, "files that are asv's very own keep their check-sums"


@made
@pytest.mark.slow
def test_a_browser_lists_every_series(browser: str, site: str, tmp_path: Path) -> None:
    shown = opened(browser, f"{site}#/summarylist", tmp_path)
    assert series(), "nothing was published"
    for name in series():
        assert name in shown


@made
@pytest.mark.slow
def test_a_browser_draws_the_graph_of_both_implementations(
    browser: str, site: str, tmp_path: Path
) -> None:
    for name in ("sessions.Sessions.time_sessions", "file_ratios.Ratios.track_edit"):
        shown = opened(browser, f"{site}#{name}", tmp_path / name)
        assert "flot-base" in shown, f"{name}: no graph was drawn"
        drawn = " ".join(re.findall(r'class="legendLabel">([^<]*)<', shown))
        assert "impl-rust" in drawn, name
        assert "impl-python" in drawn, name


@made
@pytest.mark.slow
def test_its_picture_can_be_looked_at(browser: str, site: str, tmp_path: Path) -> None:
    for name, page in (("dashboard", "/"), ("graph", "sessions.Sessions.time_sessions")):
        picture = Path(PAGES).parent / f"{name}.png"
        opened(browser, f"{site}#{page}", tmp_path / name, f"--screenshot={picture}")
        assert picture.stat().st_size > 10_000, name
