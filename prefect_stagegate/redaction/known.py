"""Hides the secrets that this process uses: as they are, percent-encoded, escaped or within Base64."""

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
"""Characters of the shortest secret that is hidden: shorter texts occur in every sentence."""
WORD = 8
"""Secrets shorter than this are hidden only as whole words, because other words contain them."""
REMEMBERED = 256
"""Most secrets that are remembered, since tokens are renewed for as long as a process lives."""
LONGEST = 256
"""Characters of a secret that are compared in encoded form; the rest of the word is hidden with them."""
_NO_SECRETS = frozenset(
    (
        *("anon", "anonymous", "basic", "browser", "cache", "cloud", "default", "digest", "false", "google_default"),
        *("none", "null", "oauth2", "true"),
        *("access", "admin", "guest", "minio", "minioadmin", "password", "postgres", "public", "root", "secret"),
        *("stagegate", "test", "user"),
    )
)
"""Values of credential options that are no secrets, and well-known default passwords that occur in sentences."""


class _Secret:
    """One secret, and the forms in which it may be written."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._is_word = len(text) < WORD
        self._cores = () if self._is_word else tuple(_base64_cores(text.encode(errors="surrogatepass")))

    def hidden(self, text: str) -> str:
        """The text without it."""
        if self._text in text:
            text = self._plain.sub(HIDDEN, text) if self._is_word else text.replace(self._text, HIDDEN)
        # Most texts hold no encoded character, and need no search by the long pattern.
        if any(sign in text for sign in "%\\&") or (" " in self._text and "+" in text):
            text = self._encoded.sub(HIDDEN, text)
        return text

    def is_in_base64(self, run: str) -> bool:
        """Whether a run of Base64 characters encodes it, with any bytes before and after it."""
        return any(core in run for core in self._cores)

    @cached_property
    def _plain(self) -> re.Pattern[str]:
        return re.compile(self._bounded(re.escape(self._text)))

    @cached_property
    def _encoded(self) -> re.Pattern[str]:
        """Matches the secret with any of its characters percent-encoded or escaped."""
        rest = r"[^\s\"'<>&]*" if len(self._text) > LONGEST else ""
        return re.compile(self._bounded("".join(map(_spelled, self._text[:LONGEST])) + rest))

    def _bounded(self, pattern: str) -> str:
        return rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])" if self._is_word else pattern


_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_=-]|%(?:25)*(?:2[bBdDfF]|3[dD]|5[fF])){8,}")
"""Base64 of both alphabets, percent-encoded or not."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
# Bounded, because a search of a long run of backslashes takes quadratic time; 31 of them are text quoted five times.
_MAYBE_ESCAPED, _ESCAPED = r"\\{0,31}", r"\\{1,31}"
_ESCAPES = {
    **{character: f"{_ESCAPED}{letter}" for character, letter in zip("\b\f\n\r\t", "bfnrt", strict=True)},
    " ": r"\+",
}


def _base64_cores(data: bytes) -> Iterator[str]:
    """The characters that every Base64 encoding of these bytes contains, for each offset and in both alphabets."""
    # Three bytes are four characters, so there are three offsets; characters that neighbours share are cut off.
    for before in range(3):
        text = b64encode(b"\0" * before + data).decode()
        core = text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        yield core
        if (in_urls := core.translate({ord("+"): "-", ord("/"): "_"})) != core:
            yield in_urls


def _spelled(character: str) -> str:
    """A pattern of one character as it is, percent-encoded (even repeatedly), or escaped for JSON, Python or XML."""
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
    """A pattern of these hexadecimal digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in text)


def _without_secrets(secrets: Iterable[_Secret], match: re.Match[str]) -> str:
    run = match[0]
    # The loop ends: in a run that `_BASE64` matches, each percent sign encodes something.
    while "%" in run:
        run = unquote(run)
    return HIDDEN if any(secret.is_in_base64(run) for secret in secrets) else match[0]


class Redactor:
    """Hides the secrets that it knows, and all that has a credential's shape. Safe to use from many threads."""

    def __init__(self) -> None:
        self._secrets: OrderedDict[str, _Secret] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, texts: Iterable[str]) -> None:
        """Hide these secrets from now on. When there are too many, the ones remembered longest ago are forgotten."""
        with self._lock:
            for text in texts:
                if len(text) >= LEAST and text.lower() not in _NO_SECRETS:
                    self._secrets.setdefault(text, _Secret(text))
                    # A secret that is used again must not be among the first to be forgotten.
                    self._secrets.move_to_end(text)
            while len(self._secrets) > REMEMBERED:
                self._secrets.popitem(last=False)

    def redact(self, text: str) -> str:
        """The text without secrets."""
        with self._lock:
            # The longest first: a secret may contain a shorter one.
            secrets = sorted(self._secrets.items(), key=lambda item: len(item[0]), reverse=True)
        # Outside the lock, so that a long text of one thread does not hold up the errors of the others.
        for _, secret in secrets:
            text = secret.hidden(text)
        if secrets:
            text = _BASE64.sub(partial(_without_secrets, [secret for _, secret in secrets]), text)
        return without_shapes(text)
