"""What a spec must not hold: credentials, as it is stored beside every version, and options that no source permits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from prefect_stagegate.doors import Kind, flat, source_of
from prefect_stagegate.errors import UsageError
from prefect_stagegate.redaction.names import is_secret_name

INSTEAD_OF_CREDENTIALS = "name a Prefect block under `credentials:`, or leave it to the environment"

_TOKEN_USER_SCHEMES = frozenset({"http", "https", "webdav", "webdavs", "git"})
"""Schemes whose user is often a token. Elsewhere a user is part of an address: SFTP's login, Azure's container."""


def secret_in_url(url: str) -> str:
    """Say which part of a URL is a credential, without repeating it; empty when none is.

    Raises:
        ValueError: The text is not a URL.
    """
    # Each link of a chained URL (`zip://a::s3://b`) may have credentials.
    for link in url.split("::"):
        parts = urlsplit(link)
        if parts.password is not None or _has_broken_password(parts):
            return "a password"
        if parts.username is not None and parts.scheme in _TOKEN_USER_SCHEMES:
            return "a user or token before the host"
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if is_secret_name(name):
                return f"a credential in its query ({name})"
    return ""


def _has_broken_password(parts: SplitResult) -> bool:
    """Whether a password ends the host early, because a slash in it is not written as %2F."""
    _, colon, port = parts.netloc.rpartition(":")
    return bool(colon) and not port.isdigit() and "@" in parts.path


def secret_options(options: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the place of each credential in storage options. Switches and nulls are none."""
    for name, value in options.items():
        if is_secret_name(name) and value is not None and not isinstance(value, bool):
            yield (*path, name)
        else:
            yield from _secret_values(value, (*path, name))


def _secret_values(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, Mapping):
        yield from secret_options(value, path)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _secret_values(item, (*path, index))
    elif isinstance(value, str) and "://" in value and _url_has_secret(value):
        yield path


def _url_has_secret(text: str) -> bool:
    try:
        return bool(secret_in_url(text))
    except ValueError:
        # Any text may stand in an option: one with `://` in it need not be a URL.
        return False


def spec_problems(url: str, options: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the options that a spec may not give to a source: the place of each, and the reason.

    All options pass for a scheme that fsspec alone may know, or whose package can't be loaded: opening it tells.
    """
    try:
        source = source_of(url) if options else None
    except UsageError:
        return
    if source is None:
        return
    for path, value in flat(options):
        kind = source.kind(name := ".".join(path))
        if kind is None:
            problem, hint = source.unknown(name)
            yield path, f"{problem.partition(' ')[2]}; {hint}"
        elif kind is Kind.BLOCK:
            yield path, "is allowed in a Prefect block only; name one under `credentials:`"
        # A switch or a null under a credential's name, such as `token: false`, holds no secret.
        elif kind is Kind.CREDENTIAL and value is not None and not isinstance(value, bool):
            yield path, f"looks like a credential; {INSTEAD_OF_CREDENTIALS}"


def without_secrets(url: str) -> str:
    """The URL as people may see it: no user, no query, no fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        # Its parts can't be told apart. The query goes in any case, for signatures stand there.
        return url.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
