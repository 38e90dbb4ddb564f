"""Removes credentials from text before it becomes an error, a log line, an artifact or a record.

Two kinds are hidden. First, the secrets that this process uses, in plain, percent-encoded, escaped and Base64 form;
code that opens a source or a catalog registers them here. Second, everything that has the shape of a credential, such
as a signed URL, an Authorization header, a private key or an element `<SecretAccessKey>`; this finds secrets of others.
Only errors and logs pay for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_stagegate.redaction.known import Redactor
from prefect_stagegate.redaction.option_secrets import secrets_of

__all__ = ["redact", "remember", "remember_access"]

_PROCESS = Redactor()


def remember(*texts: str) -> None:
    """Hide these secrets in all text that this process writes from now on."""
    _PROCESS.remember(texts)


def remember_access(url: str, options: Mapping[str, Any]) -> None:
    """Hide the credentials of a URL (user, password, query) and of the options whose names mean credentials.

    The environment's variables are options, too.
    """
    _PROCESS.remember(secrets_of(url, options))


def redact(text: str) -> str:
    """The text without the secrets of this process, and without all that has a credential's shape.

    >>> redact("<Error><SecretAccessKey>wJalr/XUtn</SecretAccessKey></Error> at https://me:pass@nas/?sig=aB%2F&v=1")
    '<Error><SecretAccessKey>***</SecretAccessKey></Error> at https://***@nas/?sig=***&v=1'
    """
    return _PROCESS.redact(text)
