"""Paths and URLs in specs: how relative ones become absolute, and what they and storage options must not hold.

A spec is stored beside every version, so credentials are refused, and so are options that no source permits.
"""

from __future__ import annotations

import os.path
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from prefect_stagegate.doors import Kind, flat, scheme_of, source_of, sources
from prefect_stagegate.errors import UsageError
from prefect_stagegate.redaction.shapes import is_secret_name

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


_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(text: str) -> bool:
    """Whether `text` is a URL, fsspec's chained ones (`zip://a::s3://b`) included, and not a path."""
    return bool(_SCHEME.match(text)) or "::" in text


def local_path(text: str) -> str | None:
    """The path that a plain path or a `file://` URL names, as written; None for any other URL."""
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() == "file" and "::" not in text:
        return text[scheme.end() :]
    return None if is_url(text) else text


def place(text: str, base: str) -> str:
    """Make a path or `file://` URL absolute; every other URL stays as it is. A closing slash is kept.

    Args:
        text: A path or URL, as written in a spec.
        base: The folder of the spec: an absolute path or a URL.

    Returns:
        An absolute path without a scheme, or a URL.

    >>> place("suites/a.yaml", "/srv/specs"), place("../flights/", "s3://lake/specs"), place("file://nas/", "/srv")
    ('/srv/specs/suites/a.yaml', 's3://lake/flights/', '/srv/nas/')
    """
    path = local_path(text)
    if path is None:
        return text
    # `normpath` drops the slash that tells a folder from an object.
    closing = "/" if path.endswith("/") and path.strip("/") else ""
    scheme = _SCHEME.match(base)
    if scheme and not path.startswith("/"):
        host, _, folder = base[scheme.end() :].partition("/")
        return f"{scheme[0]}{host}{posixpath.normpath(posixpath.join('/', folder, path))}{closing}"
    return posixpath.normpath(posixpath.join("/" if scheme else base, path)) + closing


def folder_of(location: str) -> str:
    """The absolute folder, or the URL of the folder, that holds the file at `location`; a URL's query is dropped."""
    path = local_path(location)
    if path is not None:
        return os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120 - `resolve` would follow links
    return posixpath.dirname(re.split(r"[?#]", location, maxsplit=1)[0])


def chain_problem(url: str) -> str:
    """Say why a URL of fsspec's chained file systems is refused; empty for any other URL."""
    scheme = scheme_of(url)
    # The chain stands before the scheme in `simplecache::s3://…`, and behind it in `zip://a::s3://…`.
    if "::" in scheme or ("::" in url and scheme not in sources()):
        return "chains file systems, which may write files; use the URL of the data itself, or unpack the archive first"
    return ""
