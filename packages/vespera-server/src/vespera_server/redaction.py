"""Responsible for text that leaves us without secrets: logs, errors, answers, transcripts.

Two kinds are known. Values that we were told (the environment handed to agents, our own bearer
token) are found wherever they stand, also as JSON or a URL spells them. Others are found by their
form: keys with a vendor's prefix, bearer headers, passwords in URLs, private keys, and whatever
follows a name such as ``api_key=``. It is a net, not a proof: a secret in a form that nobody knows
goes through.

JSON text stays JSON: what is replaced never reaches beyond a string's end.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

__all__ = ["REDACTED", "RedactingFormatter", "Redactor", "secret_values"]

REDACTED = "[redacted]"

# Shorter values stand in ordinary text: a password "main" would blacken every branch name.
_SHORTEST = 8

_SECRET_NAME = re.compile(
    r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|COOKIE)(?:_|$)",
    re.IGNORECASE,
)
# GOOGLE_APPLICATION_CREDENTIALS and its like hold a path.
_PATH_NAME = re.compile(r"(?:_FILE|_PATH|_DIR|_CREDENTIALS|_SOCK)$", re.IGNORECASE)


def _named(found: re.Match[str]) -> str:
    """The value behind a secret's name is taken out; a path stays."""
    return found[0] if found[1] is None else f"{found[1]}{found[2]}{REDACTED}"


# Every class is bounded or anchored: a hostile megabyte must not cost its square.
_FORMS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(form), replacement)
    for form, replacement in (
        (
            (
                r"-----BEGIN (?P<kind>[A-Z ]{0,32}PRIVATE KEY)-----"
                r"[^\"]{0,16384}?-----END (?P=kind)-----"
            ),
            REDACTED,
        ),
        (r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}", REDACTED),
        (r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Z])", REDACTED),
        (r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})", REDACTED),
        (r"(?<![A-Za-z0-9])AIza[0-9A-Za-z_-]{35}", REDACTED),
        (r"(?<![A-Za-z0-9])ya29\.[0-9A-Za-z_-]{16,}", REDACTED),
        (r"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}", REDACTED),
        (
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
            REDACTED,
        ),
        (r"(?i)\b(bearer|basic)([ \t]+)[A-Za-z0-9._~+/-]{8,}={0,2}", rf"\1\2{REDACTED}"),
        (r"(://[^/\s:@\"'\\]{0,256}:)[^/\s@\"'\\]{1,256}(?=@)", rf"\1{REDACTED}"),
        (
            (
                # First what a message says of a path: `'/etc/passwd': no such file` names nothing.
                r"(?i)(?<![\w.-])/(?:[\w.-]{1,255}/){0,32}[\w.-]{1,255}'?(?=:\s)|"
                r"\b((?:[A-Z0-9]{1,32}[_-]){0,6}"
                r"(?:api_?key|auth_?token|access_?token|refresh_?token|secret(?:_?access)?_?key|"
                r"client_?secret|private_?key|password|passwd|passphrase))"
                r"(\\{0,4}[\"']?\s{0,4}[=:]\s{0,4}\\{0,4}[\"']?)[^\s\"'\\,;&}\])]{6,}"
            ),
            _named,
        ),
    )
]


class Redactor:
    """Takes secrets out of text and of plain data.

    ``secrets`` are values to be found wherever they stand; those of fewer than 8 characters are
    left out.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._spelt: set[str] = set()
        self._known: re.Pattern[str] | None = None
        self.add(*secrets)

    @classmethod
    def for_environment(cls, environment: Mapping[str, str]) -> Redactor:
        """One that knows the secrets of an environment."""
        return cls(secret_values(environment))

    def add(self, *secrets: str) -> None:
        """Learn further values."""
        for secret in secrets:
            if len(secret) < _SHORTEST:
                continue
            as_json = (json.dumps(secret), json.dumps(secret, ensure_ascii=False))
            self._spelt |= {secret, quote(secret, safe=""), *(text[1:-1] for text in as_json)}
        if self._spelt:
            # The longest first: one secret may begin with another.
            ordered = sorted(self._spelt, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, ordered)))

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        for form, replacement in _FORMS:
            text = form.sub(replacement, text)
        return text

    def line(self, line: bytes) -> bytes:
        """A line of somebody's output without secrets; bytes that are not UTF-8 stay."""
        return self.text(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")

    def value(self, value: Any) -> Any:
        """Plain data (as JSON holds it) with every string redacted, also the names in it."""
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(str(key)): self.value(item) for key, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
            case _:
                return value


class RedactingFormatter(logging.Formatter):
    """A formatter whose text, traceback included, has no secrets."""

    def __init__(self, redactor: Redactor, format: str | None = None) -> None:
        super().__init__(format)
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.text(super().format(record))


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """The values in an environment that are secrets by their name, and passwords in its URLs."""
    found = []
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and not _PATH_NAME.search(name):
            found.append(value)
        elif "@" in value and "://" in value:
            found += _password(value)
    return found


def _password(url: str) -> list[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return []
    return [] if not password else [password, unquote(password)]
