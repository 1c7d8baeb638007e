"""Responsible for what leaves us without secrets, and for text that stays what it was."""

from __future__ import annotations

import json
import logging
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vespera_server.redaction import REDACTED, RedactingFormatter, Redactor, secret_values

SECRET = 'pa"ss\\wörd-of-the-proxy'


@pytest.mark.parametrize(
    "text",
    [
        "key sk-ant-api03-abcdefghijklmnop used",
        "AKIAABCDEFGHIJKLMNOP",
        "token ghp_abcdefghijklmnopqrstuvwxyz0123",
        "Authorization: Bearer abcdef0123456789==",
        "http://user:hunter2hunter2@proxy.example:3128",
        'ANTHROPIC_API_KEY="abcdefgh12345678"',
        '{"client_secret": "abcdefgh12345678"}',
        r"{\"password\": \"abcdefgh12345678\"}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
        "user/password: abcdefgh12345678",
        "/etc/passwd: password=abcdefgh12345678",
        '{"/run/password": "abcdefgh12345678"}',
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_a_secret_is_known_by_its_form(text: str) -> None:
    shown = Redactor().text(text)
    assert REDACTED in shown
    for part in ("abcdefgh", "hunter2", "ABCDEFGH", "MIIabc", "dozjgNry"):
        assert part not in shown


@pytest.mark.parametrize(
    "text",
    [
        "the password is wrong",
        "see https://example.org/a:b/@c and mailto:somebody@example.org",
        "def token(self) -> str: ...",
        "task-skeleton-and-some-more-words",
        "tokens=12, cost=0.5",
        "program '/etc/passwd': /etc/passwd is not an executable file",
        "/etc/passwd: permission denied",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert Redactor().text(text) == text


def test_a_known_value_is_found_in_every_spelling() -> None:
    redactor = Redactor([SECRET])
    spelt = [SECRET, json.dumps({"a": SECRET}), json.dumps([SECRET], ensure_ascii=False)]
    for text in spelt:
        assert "proxy" not in redactor.text(text)
    assert json.loads(redactor.text(spelt[1])) == {"a": REDACTED}
    assert "proxy" not in redactor.text("http://u:pa%22ss%5Cw%C3%B6rd-of-the-proxy@host")


def test_short_values_are_no_secrets() -> None:
    assert Redactor(["main"]).text("on branch main") == "on branch main"


def test_an_environment_tells_its_secrets() -> None:
    found = secret_values(
        {
            "ANTHROPIC_API_KEY": "the-api-key",
            "AWS_SECRET_ACCESS_KEY": "the-secret",
            "GOOGLE_APPLICATION_CREDENTIALS": "a/path.json",
            "HTTPS_PROXY": "http://me:p%20w@proxy:1",
            "KEYBOARD": "us",
            "PATH": "bin",
        }
    )
    assert found == ["the-api-key", "the-secret", "p%20w", "p w"]


def test_data_keeps_its_shape() -> None:
    value = {"a": ["sk-ant-abcdefghijklmnop", 1, None, True], "b": {"c": 0.5}}
    assert Redactor().value(value) == {"a": [REDACTED, 1, None, True], "b": {"c": 0.5}}


def test_a_logged_traceback_has_no_secret() -> None:
    formatter = RedactingFormatter(Redactor(["the-secret-value"]))
    try:
        raise ValueError("the-secret-value was refused")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "it was %s", ("the-secret-value",), None
        )
        record.exc_info = (type(error), error, error.__traceback__)
    shown = formatter.format(record)
    assert "Traceback" in shown
    assert "the-secret-value" not in shown


@given(st.recursive(st.text() | st.integers() | st.none(), st.lists))
def test_json_stays_json(value: object) -> None:
    document = {"password": "abcdefgh", "sk": "sk-ant-0123456789abcdef", "any": value}
    for ascii_only in (True, False):
        line = Redactor([SECRET]).text(json.dumps(document, ensure_ascii=ascii_only))
        assert json.loads(line)["sk"] == REDACTED


@pytest.mark.parametrize(
    "piece", ["eyJ", "://a", "-----BEGIN PRIVATE KEY-----", "sk-", "A_", "password:", "bearer "]
)
def test_a_hostile_text_costs_its_length_and_not_its_square(piece: str) -> None:
    redactor = Redactor([SECRET])

    def seconds(length: int) -> float:
        text = (piece * (length // len(piece) + 1))[:length]
        started = time.process_time()
        redactor.text(text)
        return time.process_time() - started

    small = max(min(seconds(20_000) for _ in range(3)), 1e-3)
    # Sixteen times the text: a square would cost 256 times as much.
    assert seconds(320_000) < 100 * small
