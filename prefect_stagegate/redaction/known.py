"""Secrets that are in use: found in a text as they are, percent-encoded, escaped or within Base64."""

from __future__ import annotations

import re
import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import cached_property, partial
from urllib.parse import unquote

from prefect_stagegate.redaction.shapes import HIDDEN, without_shapes

LEAST = 4
"""Characters of a secret that is worth hiding: shorter ones stand in every sentence."""
WORD = 8
"""Shorter secrets are hidden where they are a word of their own: they stand within others."""
REMEMBERED = 256
"""The most secrets that are remembered; tokens are renewed for as long as a process lives."""
LONGEST = 256
"""Characters of a secret that are compared in encoded form; what follows them goes too."""
_NO_SECRETS = frozenset(
    (
        *("anon", "anonymous", "basic", "browser", "cache", "cloud", "default", "digest", "false", "google_default"),
        *("none", "null", "oauth2", "true"),
        *("access", "admin", "guest", "minio", "minioadmin", "password", "postgres", "public", "root", "secret"),
        *("stagegate", "test", "user"),
    )
)
"""What stands where a credential could, and is none; and what is known to everybody, and stands in sentences."""


class _Secret:
    """One text that must not be told, and how it may be written.

    Args:
        text: As it is.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._is_word = len(text) < WORD
        self._cores = () if self._is_word else tuple(_base64_cores(text.encode(errors="surrogatepass")))

    def hidden(self, text: str) -> str:
        """The text without it."""
        if self._text in text:
            text = self._plain.sub(HIDDEN, text) if self._is_word else text.replace(self._text, HIDDEN)
        if any(sign in text for sign in "%\\&") or (" " in self._text and "+" in text):
            text = self._encoded.sub(HIDDEN, text)
        return text

    def is_in_base64(self, run: str) -> bool:
        """Whether Base64 without a break holds it, with whatever before and behind it."""
        return any(core in run for core in self._cores)

    @cached_property
    def _plain(self) -> re.Pattern[str]:
        return re.compile(self._bounded(re.escape(self._text)))

    @cached_property
    def _encoded(self) -> re.Pattern[str]:
        """Matches it with any of its characters percent-encoded or escaped."""
        rest = r"[^\s\"'<>&]*" if len(self._text) > LONGEST else ""
        return re.compile(self._bounded("".join(map(_spelled, self._text[:LONGEST])) + rest))

    def _bounded(self, pattern: str) -> str:
        return rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])" if self._is_word else pattern


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_=-]|%(?:25)*(?:2[bBdDfF]|3[dD]|5[fF])){8,}")
"""Base64 of both alphabets, percent-encoded or not."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
# A bound, so that a long run of backslashes is not searched from each of them to its end; 31 is text quoted five times.
_MAYBE_ESCAPED, _ESCAPED = r"\\{0,31}", r"\\{1,31}"
_ESCAPES = {
    **{character: f"{_ESCAPED}{letter}" for character, letter in zip("\b\f\n\r\t", "bfnrt", strict=True)},
    " ": r"\+",
}


def _base64_cores(data: bytes) -> Iterator[str]:
    """What each Base64 text holds that encodes these bytes with others before and behind them, in both alphabets."""
    for before in range(3):
        text = b64encode(b"\0" * before + data).decode()
        core = text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield core
        if (in_urls := core.translate({ord("+"): "-", ord("/"): "_"})) != core:
            yield in_urls


def _spelled(character: str) -> str:
    """A pattern of one character as it is, percent-encoded (several times, too), or escaped for JSON, Python or XML."""
    number = _digits(f"{ord(character):x}")
    units = character.encode("utf-16-be", errors="surrogatepass").hex()
    spellings = [
        f"{_MAYBE_ESCAPED}{re.escape(character)}",
        "".join("%(?:25)*" + _digits(f"{byte:02x}") for byte in character.encode(errors="surrogatepass")),
        f"{_ESCAPED}[uUx]0*{number}",
        "".join(f"{_ESCAPED}u{_digits(units[at : at + 4])}" for at in range(0, len(units), 4)),
        f"&#(?:x0*{number}|0*{ord(character)});",
    ]
    spellings += [escapes[character] for escapes in (_ENTITIES, _ESCAPES) if character in escapes]
    return f"(?:{'|'.join(spellings)})"


def _digits(text: str) -> str:
    """A pattern of hexadecimal digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in text)


def _without_secrets(secrets: Iterable[_Secret], match: re.Match[str]) -> str:
    run = match[0]
    while "%" in run:
        run = unquote(run)
    return HIDDEN if any(secret.is_in_base64(run) for secret in secrets) else match[0]


class Redactor:
    """Knows secrets and hides them, and everything that has a credential's shape. Safe to use from many threads."""

    def __init__(self) -> None:
        self._secrets: OrderedDict[str, _Secret] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, texts: Iterable[str]) -> None:
        """Hide these from now on; those that were named longest ago are forgotten when there are too many."""
        with self._lock:
            for text in texts:
                if len(text) >= LEAST and text.lower() not in _NO_SECRETS:
                    self._secrets.setdefault(text, _Secret(text))
                    self._secrets.move_to_end(text)
            while len(self._secrets) > REMEMBERED:
                self._secrets.popitem(last=False)

    def redact(self, text: str) -> str:
        """The text without secrets."""
        with self._lock:
            secrets = sorted(self._secrets.items(), key=lambda item: len(item[0]), reverse=True)
        for _, secret in secrets:
            text = secret.hidden(text)
        if secrets:
            text = _BASE64.sub(partial(_without_secrets, [secret for _, secret in secrets]), text)
        return without_shapes(text)
