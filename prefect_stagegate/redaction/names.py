"""Names that usually hold a credential: of options, variables, query parameters, headers, fields and elements."""

from __future__ import annotations

import re

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
