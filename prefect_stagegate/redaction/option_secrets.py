"""Finds the secrets in a URL and in storage options."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from prefect_stagegate.redaction.known import LEAST
from prefect_stagegate.redaction.shapes import is_secret_name

LINE = 16
"""Characters of the shortest line of a longer secret, such as a private key, that is a secret itself."""


def secrets_of(url: str, options: Mapping[str, Any]) -> list[str]:
    """The secrets in a URL and in storage options, as written and percent-decoded."""
    secrets = [text for text in (*_of_url(url), *_of_options(options)) if len(text) >= LEAST]
    return [*secrets, *map(unquote, secrets)]


def _of_url(url: str) -> Iterator[str]:
    for link in url.split("::"):
        query = link.partition("?")[2]
        yield query
        pairs = (pair.partition("=") for pair in query.split("&"))
        yield from (value for name, _, value in pairs if is_secret_name(name))
        # By the last @, since a password may hold one that is not encoded.
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
    """A secret, and the parts that are secrets alone: a header's token, a key's lines, a connection string's fields."""
    if secret.startswith(("/", "~")) and os.path.exists(os.path.expanduser(secret)):  # noqa: PTH110, PTH111 - a `Path` raises when it is long
        return  # the path of a credential, or the variable PWD
    yield from (secret, secret.strip(), secret.rpartition(" ")[2])
    if "\n" in secret.strip():
        yield from (line for line in secret.splitlines() if len(line) >= LINE)
    if secret.startswith("{"):
        with suppress(ValueError, AttributeError, RecursionError):  # it is no JSON, or no object
            yield from _of_options(json.loads(secret))
    if ";" in secret:
        pairs = (part.partition("=") for part in secret.split(";"))
        yield from (value for name, _, value in pairs if is_secret_name(name))
