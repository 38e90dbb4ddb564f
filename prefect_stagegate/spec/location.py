"""Paths and URLs of specs, suites and sources, and how relative ones become absolute."""

from __future__ import annotations

import os.path
import posixpath
import re

from prefect_stagegate.doors import scheme_of, sources

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
