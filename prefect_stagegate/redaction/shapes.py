"""Names that usually hold a credential, and the shapes of credentials: signed URLs, headers, tokens, keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")
_SECRET_WORDS = frozenset(
    (
        *("auth", "authorization", "cookie", "credential", "credentials", "key", "pass", "passphrase", "passwd"),
        *("password", "pwd", "sas", "secret", "sig", "signature", "token"),
    )
)
_SECRET_ENDINGS = (("access", "key", "id"), ("auth", "string"), ("connection", "string"))
_PLAIN_WORDS = _SECRET_WORDS - {"auth", "credential", "credentials", "key", "pass"}
"""Words that mean a credential outside options and queries, too, where a `key` may be an object's."""
PLAIN_KEYS = frozenset(("access", "account", "api", "private", "secret", "shared", "storage"))

HIDDEN = "***"
"""Replaces a secret."""

_IS = r"(?:=|%(?:25)*3[dD])"
_COLON = r"\s*(?::|%(?:25)*3[aA])(?:\s|%(?:25)*20)*"
# An encoded & ends a value, too, where a whole query stands encoded inside another.
_VALUE = r"(?:(?!%26)[^\s&\"'<>;,)\]}])+"
# With backslashes before the quote, as in JSON that stands in a text of JSON.
_QUOTED = r"\\*\"[^\"]*|\\*'[^']*"
# At most 60 characters before the word, because a search of long runs of letters would take quadratic time.
_PLAIN_NAME = (
    r"[\w.-]{0,60}(?:authorization|cookie|passphrase|passwd|password|pwd|sas|secret|signature|sig|token|"
    rf"(?:{'|'.join(sorted(PLAIN_KEYS))})[_.-]?key(?:[_.-]?id)?)"
)
_TOKEN_HEADERS = (
    *("private-token", "x-amz-security-token", "x-amz-server-side-encryption-customer-key", "x-api-key"),
    *("x-auth-token", "x-goog-api-key", "x-vault-token"),
)

_HINTS = ("auth", "cookie", "credential", "key", "pass", "pwd", "sas", "secret", "sig", "token")
"""Every credential's name contains one of these. Most texts contain none, and need no search for names."""


def is_secret_name(name: str) -> bool:
    """Whether an option or a query parameter of this name usually holds a credential.

    >>> [is_secret_name(name) for name in ("secret", "aws_secret_access_key", "X-Amz-Signature", "SSECustomerKey")]
    [True, True, True, True]
    >>> [is_secret_name(name) for name in ("endpoint_url", "key_filename", "versionId", "max_tokens", "sse_kms_key_id")]
    [False, False, False, False, False]
    """
    words = tuple(word.lower() for word in _WORDS.findall(name))
    return bool(words) and (words[-1] in _SECRET_WORDS or any(words[-len(end) :] == end for end in _SECRET_ENDINGS))


def is_plain_secret_name(name: str) -> bool:
    """Whether a name in a sentence or document usually means a credential; a bare `key=` may name an object."""
    words = tuple(word.lower() for word in _WORDS.findall(name))
    if not words:
        return False
    keyed = words[-1] == "key" and len(words) > 1 and words[-2] in PLAIN_KEYS
    return keyed or words[-1] in _PLAIN_WORDS or words[-3:] == ("access", "key", "id")


@cache
def _shapes() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns of credentials that need no name beside them, with replacements. Compiled at the first use."""
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
        (r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|ya29\.[\w-]{8,}|sgt_[\w-]{43,})", HIDDEN),
        (rf"(?i)\b(X-(?:Amz|Goog)-Credential){_IS}{_VALUE}", rf"\1={HIDDEN}"),
    )
    return tuple((re.compile(pattern), replacement) for pattern, replacement in shapes)


@cache
def _named_values() -> tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...]:
    """Patterns of a name with a value, each with the test of whether the name means a credential."""
    any_value, before_quote = rf"((?:{_QUOTED})|{_VALUE})", r"(?:b(?=[\"']))?"
    header = rf"((?:{_QUOTED})|[^\r\n\"'\\][^\r\n]*)"
    places = (
        (
            rf"(?i)(\b((?:proxy-)?authorization|(?:set-)?cookie)\\*[\"']?(?:{_COLON}|\s*=\s*){before_quote}){header}",
            is_secret_name,
        ),
        (rf"(?i)(\b({'|'.join(_TOKEN_HEADERS)})\\*[\"']?{_COLON}{before_quote}){any_value}", is_secret_name),
        (rf"((?:[?&]|&amp;|%3[fF]|%26)([\w.~-]{{1,80}}){_IS})({_VALUE})", is_secret_name),  # a query
        (rf"(?i)(\b({_PLAIN_NAME}){_IS}){any_value}", is_plain_secret_name),  # an assignment
        (rf"(?i)([\"']({_PLAIN_NAME})\\*[\"']\s*:\s*)({_QUOTED})", is_plain_secret_name),  # a field of JSON
        (
            rf"(?i)((?:<|&lt;)(?:\w+:)?({_PLAIN_NAME})(?:\s[^<>]*)?(?:>|&gt;))([^<&]+)",  # an element of XML
            is_plain_secret_name,
        ),
    )
    return tuple((re.compile(pattern), is_secret) for pattern, is_secret in places)


def without_shapes(text: str) -> str:
    """The text without everything that looks like a credential."""
    for pattern, replacement in _shapes():
        text = pattern.sub(replacement, text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        for pattern, is_secret in _named_values():
            text = pattern.sub(partial(_without_value, is_secret), text)
    return text


def _without_value(is_secret: Callable[[str], bool], match: re.Match[str]) -> str:
    beginning, name, value = match.groups()
    if not is_secret(name):
        return match[0]
    quote = re.match(r"\\*[\"']", value)
    return f"{beginning}{quote[0] if quote else ''}{HIDDEN}"
