"""Takes credentials out of text before it becomes an error, a log line, an artifact or a record.

Two kinds are hidden: the secrets that this process uses, which whoever opens a source or a catalog reports here, in
plain, percent-encoded, escaped and Base64 form; and whatever has a credential's shape, such as a signed address, an
Authorization header, a private key or an element `<SecretAccessKey>`. The second kind finds what a server made up or
what somebody else's secret is. Costs are on the paths of errors and logs only.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property, partial
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
LEAST = 4
"""Characters of a secret that is worth hiding: shorter ones stand in every sentence."""
WORD = 8
"""Shorter secrets are hidden where they are a word of their own: they stand within others."""
REMEMBERED = 256
"""The most secrets that are remembered; tokens are renewed for as long as a process lives."""
LONGEST = 256
"""Characters of a secret that are compared in encoded form; what follows them goes too."""
LINE = 16
"""Characters of a line of a longer secret, such as a private key, that is a secret itself."""

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")
_SECRET_WORDS = frozenset(
    (
        *("auth", "authorization", "cookie", "credential", "credentials", "key", "pass", "passphrase", "passwd"),
        *("password", "pwd", "sas", "secret", "sig", "signature", "token"),
    )
)
_SECRET_ENDINGS = (("access", "key", "id"), ("connection", "string"))
_PLAIN_WORDS = _SECRET_WORDS - {"auth", "credential", "credentials", "key", "pass"}
"""Those that mean a credential also where no option or query stands: a `key` may be an object's."""
_PLAIN_KEYS = frozenset(("access", "account", "api", "private", "secret", "shared", "storage"))
_NO_SECRETS = frozenset(
    ("anon", "anonymous", "basic", "browser", "cache", "cloud", "default", "digest", "false", "google_default", "none")
) | {"null", "oauth2", "true"}
"""What stands where a credential could, and is none."""

log = logging.getLogger(__name__)


def is_secret_name(name: str) -> bool:
    """Whether an option or a query parameter of this name usually holds a credential.

    >>> [is_secret_name(name) for name in ("secret", "aws_secret_access_key", "X-Amz-Signature", "SSECustomerKey")]
    [True, True, True, True]
    >>> [is_secret_name(name) for name in ("endpoint_url", "key_filename", "versionId", "max_tokens", "sse_kms_key_id")]
    [False, False, False, False, False]
    """
    words = tuple(word.lower() for word in _WORDS.findall(name))
    return bool(words) and (words[-1] in _SECRET_WORDS or any(words[-len(end) :] == end for end in _SECRET_ENDINGS))


def _is_plain_secret_name(name: str) -> bool:
    """The same for a name in a sentence or a document, where `key=` may name an object or a partition."""
    words = tuple(word.lower() for word in _WORDS.findall(name))
    if not words:
        return False
    keyed = words[-1] == "key" and len(words) > 1 and words[-2] in _PLAIN_KEYS
    return keyed or words[-1] in _PLAIN_WORDS or words[-3:] == ("access", "key", "id")


# ── secrets in use ──────────────────────────────────────────────────────────────────────────────────────────────────


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
_ESCAPES = {"\n": r"\\+n", "\r": r"\\+r", "\t": r"\\+t", " ": r"\+"}


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
        rf"\\*{re.escape(character)}",
        "".join("%(?:25)*" + _digits(f"{byte:02x}") for byte in character.encode(errors="surrogatepass")),
        rf"\\+[uUx]0*{number}",
        "".join(rf"\\+u{_digits(units[at : at + 4])}" for at in range(0, len(units), 4)),
        f"&#(?:x0*{number}|0*{ord(character)});",
    ]
    spellings += [found[character] for found in (_ENTITIES, _ESCAPES) if character in found]
    return f"(?:{'|'.join(spellings)})"


def _digits(text: str) -> str:
    """A pattern of hexadecimal digits in either case."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in text)


def _without_secrets(secrets: Iterable[_Secret], found: re.Match[str]) -> str:
    run = found[0]
    while "%" in run:
        run = unquote(run)
    return HIDDEN if any(secret.is_in_base64(run) for secret in secrets) else found[0]


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
        return _without_shapes(text)


_PROCESS = Redactor()


def remember(*texts: str) -> None:
    """Hide these secrets in all that this process tells from now on."""
    _PROCESS.remember(texts)


def remember_access(url: str, options: Mapping[str, Any]) -> None:
    """Hide what opens a place: user, password and query of its URL, and the options whose names speak of credentials.

    Args:
        url: As it was given.
        options: Storage options, or the environment's variables.
    """
    _PROCESS.remember(secrets_of(url, options))


def secrets_of(url: str, options: Mapping[str, Any]) -> list[str]:
    """What of a URL and of storage options is secret, as it is given and decoded."""
    given = [text for text in (*_of_url(url), *_of_options(options)) if len(text) >= LEAST]
    return [*given, *map(unquote, given)]


def redact(text: str) -> str:
    """The text without secrets: those in use by this process, and all that has a credential's shape.

    >>> redact("<Error><SecretAccessKey>wJalr/XUtn</SecretAccessKey></Error> at https://me:pass@nas/?sig=aB%2F&v=1")
    '<Error><SecretAccessKey>***</SecretAccessKey></Error> at https://***@nas/?sig=***&v=1'
    """
    return _PROCESS.redact(text)


def _of_url(url: str) -> Iterator[str]:
    for link in url.split("::"):
        query = link.partition("?")[2]
        yield query
        pairs = (pair.partition("=") for pair in query.split("&"))
        yield from (value for name, _, value in pairs if is_secret_name(name))
        user, colon, password = link.partition("://")[2].rpartition("@")[0].partition(":")
        if colon:
            yield from (user, password)


def _of_options(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if is_secret_name(str(name)):
            yield from _leaves(value)
        elif isinstance(value, Mapping):
            yield from _of_options(value)
        elif isinstance(value, str) and "@" in value:
            yield from _of_url(value)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, bytes):
        yield from _leaves(value.decode(errors="replace"))
    elif isinstance(value, str):
        yield from _parts(value)


def _parts(secret: str) -> Iterator[str]:
    """A secret, and what of it is one alone: a header's token, a key's lines, a connection's fields."""
    yield from (secret, secret.strip(), secret.rpartition(" ")[2])
    if "\n" in secret.strip():
        yield from (line for line in secret.splitlines() if len(line) >= LINE)
    if secret.startswith("{"):
        try:
            yield from _of_options(json.loads(secret))
        except (ValueError, AttributeError):
            log.debug("A credential begins as JSON does, and is none")
    if ";" in secret:
        pairs = (part.partition("=") for part in secret.split(";"))
        yield from (value for name, _, value in pairs if is_secret_name(name))


# ── shapes ──────────────────────────────────────────────────────────────────────────────────────────────────────────

_IS = r"(?:=|%(?:25)*3[dD])"
_COLON = r"\s*(?::|%(?:25)*3[aA])(?:\s|%(?:25)*20)*"
_VALUE = r"(?:(?!%26)[^\s&\"'<>;,)\]}])+"
_QUOTED = r"\\*\"[^\"]*|\\*'[^']*"
_PLAIN_NAME = (
    r"[\w.-]{0,60}(?:authorization|cookie|passphrase|passwd|password|pwd|sas|secret|signature|sig|token|"
    rf"(?:{'|'.join(sorted(_PLAIN_KEYS))})[_.-]?key(?:[_.-]?id)?)"
)
_TOKEN_HEADERS = (
    *("private-token", "x-amz-security-token", "x-amz-server-side-encryption-customer-key", "x-api-key"),
    *("x-auth-token", "x-goog-api-key", "x-vault-token"),
)

_HINTS = ("auth", "cookie", "credential", "key", "pass", "pwd", "sas", "secret", "sig", "token")
"""One stands in each name of a credential; most texts hold none."""


@cache
def _shapes() -> tuple[tuple[re.Pattern[str], str], ...]:
    """What is a credential wherever it stands, and what is written for it; compiled when the first text comes."""
    shapes = (
        (r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", HIDDEN),
        (r"\b(?:AWS4|GOOG4)-[\w-]{1,40}(?:[\s,]*\w+=[^\s,\"'<>]+)+", HIDDEN),
        (r"\bAWS [A-Za-z0-9]{16,}:[A-Za-z0-9+/=]{8,}", HIDDEN),
        (r"\b(SharedKey(?:Lite)?) [a-z0-9-]+:[A-Za-z0-9+/=]{8,}", rf"\1 {HIDDEN}"),
        (
            r"\b([Bb]earer|BEARER|[Bb]asic|BASIC|[Nn]egotiate|NTLM|[Tt]oken)((?:\s|%20|\+)+)"
            r"(?=[a-z._~+/%:-]*[A-Z0-9=])[A-Za-z0-9._~+/=:%-]{8,}",
            rf"\1\2{HIDDEN}",
        ),
        (r"://[^\s/?#:@]*:[^\s/?#]*@", f"://{HIDDEN}@"),
        (r"(?i)\b(https?|webdavs?)://[^\s/?#:@]+@", rf"\1://{HIDDEN}@"),
        (r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?", HIDDEN),
        (r"\b(?:AKIA|ASIA|AROA)[A-Z0-9]{16}", HIDDEN),
        (r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|ya29\.[\w-]{8,})", HIDDEN),
        (rf"(?i)\b(X-(?:Amz|Goog)-Credential){_IS}{_VALUE}", rf"\1={HIDDEN}"),
    )
    return tuple((re.compile(pattern), replacement) for pattern, replacement in shapes)


@cache
def _named() -> tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]:
    """Where a name and a value stand, and whether such a name is that of a credential."""
    any_value, before_quote = rf"((?:{_QUOTED})|{_VALUE})", r"(?:b(?=[\"']))?"
    header = rf"((?:{_QUOTED})|[^\r\n\"'\\][^\r\n]*)"
    places = (
        (
            rf"(?i)(\b((?:proxy-)?authorization|(?:set-)?cookie)\\*[\"']?(?:{_COLON}|\s*=\s*){before_quote}){header}",
            is_secret_name,
        ),
        (rf"(?i)(\b({'|'.join(_TOKEN_HEADERS)})\\*[\"']?{_COLON}{before_quote}){any_value}", is_secret_name),
        (rf"((?:[?&]|&amp;|%3[fF]|%26)([\w.~-]{{1,80}}){_IS})({_VALUE})", is_secret_name),  # a query
        (rf"(?i)(\b({_PLAIN_NAME}){_IS}){any_value}", _is_plain_secret_name),  # an assignment
        (rf"(?i)(\\*[\"']({_PLAIN_NAME})\\*[\"']\s*:\s*)({_QUOTED})", _is_plain_secret_name),  # a field of JSON
        (
            rf"(?i)((?:<|&lt;)(?:\w+:)?({_PLAIN_NAME})(?:\s[^<>]*)?(?:>|&gt;))([^<&]+)",  # an element of XML
            _is_plain_secret_name,
        ),
    )
    return tuple((re.compile(pattern), is_secret) for pattern, is_secret in places)


def _without_shapes(text: str) -> str:
    for pattern, replacement in _shapes():
        text = pattern.sub(replacement, text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        for pattern, is_secret in _named():
            text = pattern.sub(partial(_without_value, is_secret), text)
    return text


def _without_value(is_secret: Callable[[str], bool], found: re.Match[str]) -> str:
    beginning, name, value = found.groups()
    if not is_secret(name):
        return found[0]
    quote = re.match(r"\\*[\"']", value)
    return f"{beginning}{quote[0] if quote else ''}{HIDDEN}"


# ── errors and logs ─────────────────────────────────────────────────────────────────────────────────────────────────


class RedactedError(Exception):
    """Stands for an exception of which the text holds a secret; its traceback is the other's."""


def redact_chain(error: BaseException | None) -> BaseException | None:
    """The error with its causes, each that tells a secret replaced by one that doesn't."""
    if error is None or _is_clean(error):
        return error
    clean = RedactedError(redact(f"{type(error).__name__}: {error}")).with_traceback(error.__traceback__)
    for note in getattr(error, "__notes__", ()):
        clean.add_note(redact(note))
    clean.__context__ = redact_chain(error.__context__)
    clean.__cause__ = redact_chain(error.__cause__)
    clean.__suppress_context__ = error.__suppress_context__
    return clean


def _is_clean(error: BaseException) -> bool:
    """Whether neither the error nor any of its causes tells a secret."""
    left, seen = [error], set[int]()
    while left:
        error = left.pop()
        if id(error) in seen:
            continue
        seen.add(id(error))
        told = "\n".join((str(error), *getattr(error, "__notes__", ())))
        if redact(told) != told:
            return False
        left += [one for one in (error.__cause__, error.__context__, *getattr(error, "exceptions", ())) if one]
    return True


class RedactingFilter(logging.Filter):
    """Takes secrets out of a log's records, tracebacks included. Put it on the handlers that write them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record; every record is written."""
        told = record.getMessage()
        if (clean := redact(told)) != told:
            record.msg, record.args = clean, ()
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True
