"""Responsible for the two doors, stdio and HTTP: who comes in, how much, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from vespera_agent_spawner.errors import ConfigError
from vespera_server.serve import HttpOptions, ServerOptions, VesperaServer
from vespera_server.serve.command import Flags, address, server_options
from vespera_server.serve.gate import Bucket
from vespera_server.serve.http import http_app, serve_http
from vespera_server.serve.token import keep_token

TOKEN = "a-token-that-is-long-enough-for-the-test"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    },
}
HEADERS = {
    "authorization": f"Bearer {TOKEN}",
    "accept": "application/json, text/event-stream",
    "host": "127.0.0.1:8765",
}


# -- HTTP ------------------------------------------------------------------------------------


def ask(
    tmp_path: Path, *requests: dict[str, Any], http: dict[str, Any] | None = None, **options: Any
) -> list[httpx2.Response]:
    """The answers of an application to requests, one after the other."""

    async def main() -> list[httpx2.Response]:
        server = VesperaServer(ServerOptions(roots=[tmp_path], http=http or {}, **options), host={})
        assert server.options.http is not None
        app = http_app(server, server.options.http, TOKEN, 8765)
        inner: Any = app._app  # type: ignore[attr-defined]
        async with (
            inner.router.lifespan_context(inner),
            httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1:8765"
            ) as web,
        ):
            answers = []
            for request in requests:
                given: dict[str, Any] = {"headers": HEADERS, "json": HELLO} | request
                if "content" in given:
                    del given["json"]
                answers.append(await web.post("/mcp", **given))
            return answers

    return asyncio.run(main())


def test_with_the_token_from_here_it_answers(tmp_path: Path) -> None:
    (answer,) = ask(tmp_path, {})
    assert answer.status_code == 200
    assert "vespera" in answer.text


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"authorization": None}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN} "}, 200),
        ({"authorization": "Bearer é"}, 401),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1:8765.evil.example"}, 421),
        ({"host": "127.0.0.1:9999"}, 421),
        ({"host": "localhost:8765"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:8765"}, 200),
        ({"origin": "https://app.example"}, 200),
        ({"content-type": "text/plain"}, 400),
    ],
)
def test_strangers_stay_outside(
    tmp_path: Path, changed: dict[str, str | None], status: int
) -> None:
    headers = {name: value for name, value in (HEADERS | changed).items() if value is not None}
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    (answer,) = ask(tmp_path, {"headers": encoded}, http={"origins": ["https://app.example"]})
    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["error"]["remedy"]


def test_a_proxy_in_front_may_have_a_name_of_its_own(tmp_path: Path) -> None:
    named = {"headers": HEADERS | {"host": "agents.example"}}
    assert ask(tmp_path, named)[0].status_code == 421
    assert ask(tmp_path, named, http={"names": ["agents.example"]})[0].status_code == 200


def test_a_body_has_a_largest_size(tmp_path: Path) -> None:
    headers = HEADERS | {"content-type": "application/json"}
    large = {"content": b"{" + b" " * 5000, "headers": headers}
    assert ask(tmp_path, large, largest_message=4096)[0].status_code == 413
    stranger = large | {"headers": headers | {"authorization": "x"}}
    (answer,) = ask(tmp_path, stranger, largest_message=4096)
    assert answer.status_code == 401


def test_too_many_requests_are_told_to_wait_and_strangers_keep_nobody_out(tmp_path: Path) -> None:
    stranger = {"headers": HEADERS | {"authorization": "Bearer wrong"}}
    answers = ask(tmp_path, *[stranger] * 5, *[{}] * 5, http={"requests_per_minute": 12})
    assert [answer.status_code for answer in answers] == [
        *(401, 401, 429, 429, 429),
        *(200, 200, 429, 429, 429),
    ]
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_a_bucket_fills_again() -> None:
    bucket = Bucket(60, now=0.0)
    assert [bucket.take(0.0) for _ in range(11)] == [0.0] * 10 + [1.0]
    assert bucket.take(1.0) == 0.0
    assert bucket.take(1.0) > 0.0
    assert [bucket.take(1000.0) for _ in range(11)] == [0.0] * 10 + [1.0]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_come_only_where_the_operator_says_so(tmp_path: Path, host: str) -> None:
    options = ServerOptions(roots=[tmp_path], http={"host": host, "token_file": tmp_path / "t"})
    with pytest.raises(ConfigError, match="other machines"):
        asyncio.run(serve_http(VesperaServer(options, host={})))


# -- the token -------------------------------------------------------------------------------


def test_the_token_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "state" / "token"
    token = keep_token(file)
    assert len(token) >= 43
    assert keep_token(file) == token
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in file.parent.iterdir()] == ["token"]


def test_several_servers_that_start_at_once_have_one_token(tmp_path: Path) -> None:
    file, tokens = tmp_path / "token", []
    threads = [threading.Thread(target=lambda: tokens.append(keep_token(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tokens)) == 1
    assert len(tokens) == 8


def test_a_token_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="alone") as caught:
        keep_token(file)
    assert "chmod 600" in caught.value.remedy
    file.chmod(0o600)
    assert keep_token(file) == TOKEN
    file.write_text("short")
    with pytest.raises(ConfigError, match="holds no token"):
        keep_token(file)
    (tmp_path / "link").symlink_to(file)
    with pytest.raises(OSError, match="symbolic"):
        keep_token(tmp_path / "link")


# -- stdio -----------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "vespera_server", "serve", "--root", str(tmp_path)]
    with (
        (tmp_path / "stderr").open("wb") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "HOME": str(tmp_path)},
        ) as process,
    ):
        yield process
        process.kill()


def say(process: subprocess.Popen[bytes], *messages: dict[str, Any] | bytes) -> None:
    assert process.stdin is not None
    for message in messages:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        process.stdin.write(line + b"\n")
    process.stdin.flush()


def answers_to(process: subprocess.Popen[bytes], *numbers: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    found: dict[int, dict[str, Any]] = {}
    for line in process.stdout:
        answer: dict[str, Any] = json.loads(line)
        if answer.get("id") in numbers:
            found[answer["id"]] = answer
        if len(found) == len(numbers):
            return [found[number] for number in numbers]
    raise AssertionError("it ended without an answer")


def call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def test_noise_on_stdin_harms_nobody(served: subprocess.Popen[bytes], tmp_path: Path) -> None:
    say(served, HELLO)
    answers_to(served, 1)
    say(
        served,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        b"",
        b"not json",
        b"\xff\xfe\x00",
        b"[]",
        b"[" * 100_000,
        b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": []}',
        b'{"jsonrpc": "2.0", "id": 8, "method": "' + b"x" * 5_000_000 + b'"}',
        b'{"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "read_file", '
        b'"arguments": {"path": "\\ud800"}}}',
        call(2, "file_info", path="."),
    )
    known, strange = answers_to(served, 2, 9)
    assert known["result"]["structuredContent"]["is_directory"] is True
    assert strange["result"]["structuredContent"]["error"]["code"] == "not_found"
    assert "Traceback" not in (tmp_path / "stderr").read_text()


def test_the_end_of_stdin_ends_it(served: subprocess.Popen[bytes]) -> None:
    say(served, HELLO)
    answers_to(served, 1)
    assert served.stdin is not None
    served.stdin.close()
    assert served.wait(20) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_while_stdin_is_open(
    served: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    say(served, HELLO)
    answers_to(served, 1)
    served.send_signal(number)
    assert served.wait(20) == 128 + number
    assert (tmp_path / "stderr").read_text() == ""


def test_a_client_that_reads_nothing_and_leaves(served: subprocess.Popen[bytes]) -> None:
    say(served, HELLO, *[call(n, "metrics") for n in range(2, 400)])
    assert served.stdin is not None
    assert served.stdout is not None
    served.stdout.close()
    served.stdin.close()
    assert served.wait(20) == 0


def test_ctrl_c_in_a_terminal_ends_it_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "vespera_server", "serve", "--root", str(tmp_path)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        ) as process:
            os.write(ours, json.dumps(HELLO).encode() + b"\n")
            said = b""
            while b"protocolVersion" not in said.partition(b"\n")[2]:
                said += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 128 + signal.SIGINT
        assert os.get_blocking(theirs)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_conversation_may_come_from_a_file(tmp_path: Path) -> None:
    asked, said = tmp_path / "asked", tmp_path / "said"
    asked.write_text(json.dumps(HELLO) + "\n")
    with asked.open() as stdin, said.open("w") as stdout:
        command = [sys.executable, "-m", "vespera_server", "serve", "--root", str(tmp_path)]
        assert subprocess.run(command, stdin=stdin, stdout=stdout, timeout=60).returncode == 0
    assert json.loads(said.read_text())["result"]["serverInfo"]["name"] == "vespera"


# -- flags -----------------------------------------------------------------------------------


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vespera_server", "serve", *flags]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--root", "/nowhere/at/all"), "no directory"),
        (("--toolset", "agents,shell"), "toolsets"),
        (("--http", "0.0.0.0:0", "--token-file", "TMP/token"), "--expose"),
        (("--with-env", "azure"), "azure"),
        (("--tool", "Read,Bash"), "tools"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_served(
    tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    done = run(*(flag.replace("TMP", str(tmp_path)) for flag in flags))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_flags_become_options() -> None:
    assert address("8000") == {"host": "127.0.0.1", "port": 8000}
    assert address("[::1]:0") == {"host": "::1", "port": 0}
    with pytest.raises(ConfigError):
        address("somewhere")
    assert server_options(Flags(), {}) == ServerOptions()
    assert server_options(Flags(programs=["next=/opt/n", "b"], claude="/c"), {}).programs == {
        "claude": "/c",
        "next": "/opt/n",
        "b": "b",
    }
    groups = Flags(with_groups=["aws"], without_groups=["proxy"])
    assert server_options(groups, {}).environment == ("base", "certificates", "anthropic", "aws")
    assert server_options(Flags(http="0"), {}).http == HttpOptions(port=0)


def test_flags_win_over_the_settings_field_by_field() -> None:
    settings = {
        "max_agents": 2,
        "idle": "5m",
        "tools": ["Read", "Edit"],
        "programs": {"other": "/o"},
        "environment": ["base"],
        "http": {"port": 9000, "origins": ["https://a.example"]},
    }
    flags = Flags(
        fields={"max_agents": 3, "tools": ["Grep"], "idle": None, "roots": []},
        claude="/c",
        with_groups=["google"],
        http="8000",
        http_fields={"expose": None, "names": ["b.example"]},
    )
    options = server_options(flags, settings)
    assert (options.max_agents, options.idle, options.tools) == (3, 300.0, ("Grep",))
    assert options.programs == {"other": "/o", "claude": "/c"}
    assert options.environment == ("base", "google")
    assert options.http == HttpOptions(
        port=8000, origins=["https://a.example"], names=["b.example"]
    )
    assert server_options(Flags(stdio=True), settings).http is None
