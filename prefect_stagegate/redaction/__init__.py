"""Takes credentials out of text before it becomes an error, a log line, an artifact or a record.

Two kinds are hidden: the secrets that this process uses, which whoever opens a source or a catalog reports here, in
plain, percent-encoded, escaped and Base64 form; and whatever has a credential's shape, such as a signed address, an
Authorization header, a private key or an element `<SecretAccessKey>`. The second kind finds what a server made up or
what somebody else's secret is. Costs are on the paths of errors and logs only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_stagegate.redaction.known import Redactor
from prefect_stagegate.redaction.options import secrets_of

__all__ = ["redact", "remember", "remember_access"]

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


def redact(text: str) -> str:
    """The text without secrets: those in use by this process, and all that has a credential's shape.

    >>> redact("<Error><SecretAccessKey>wJalr/XUtn</SecretAccessKey></Error> at https://me:pass@nas/?sig=aB%2F&v=1")
    '<Error><SecretAccessKey>***</SecretAccessKey></Error> at https://***@nas/?sig=***&v=1'
    """
    return _PROCESS.redact(text)
