"""Where objects are read from: one visible table of schemes, and the adapter behind each."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.sources.base import BaseSource, Source, Wanted, everything, public_url
from prefect_stagegate.sources.hosts import Allowed, require_allowed
from prefect_stagegate.sources.renewing import renewing

__all__ = ["BaseSource", "Source", "Wanted", "everything", "open_source", "public_url", "renewing"]

IDLE_SECONDS = 30.0
"""How long a read may stand still before it is given up, unless the caller says otherwise."""

NETWORKED = ("ftp", "hdfs", "http", "https", "sftp", "smb", "ssh", "webdav", "webdavs", "webhdfs")
"""Schemes whose URLs name a host; others name a bucket or a folder."""
ADDRESSES = ("endpoint_url", "host", "base_url")
"""Options that say where a source's server is."""

_SERVERS = re.compile(r"(\w+)://([^/?#]*)")  # of each link of a chain like `zip://*.csv::https://host/`

Options = Mapping[str, Any]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How servers are asked."""

    idle: float = IDLE_SECONDS
    """Seconds without a byte after which a read is given up."""
    allowed: Allowed = ()
    """Hosts that may be asked wherever they are."""


def _files(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.files import FileSource

    del options, terms
    return FileSource(url)


def _s3(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.objects import translate
    from prefect_stagegate.sources.s3 import S3Source

    settings, left = translate(options)
    if left:
        log.warning("%s is read through s3fs, which is slower: only it knows the option %s", url, ", ".join(left))
        return _fsspec(url, options, terms)
    source = S3Source(url, settings, idle=terms.idle)
    require_allowed(source.endpoint, terms.allowed)
    return source


def _fsspec(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.anyfs import FsspecSource

    return FsspecSource(url, options, idle=terms.idle, allowed=terms.allowed)


SCHEMES: dict[str, Callable[[str, Options, Terms], Source]] = {
    "": _files,
    "file": _files,
    "local": _files,
    "s3": _s3,
    "s3a": _s3,
}
"""The adapter for each scheme; whatever else fsspec knows is read through fsspec."""


def open_source(
    url: str,
    options: Options | None = None,
    *,
    credentials: Options | None = None,
    idle: float = IDLE_SECONDS,
    allowed: Allowed = (),
) -> Source:
    """Open the source at `url`. A server is asked nothing yet.

    Args:
        url: A URL, or a path of this machine.
        options: Storage options by fsspec's names.
        credentials: Further options, which win: what a block or a secret store gives.
        idle: Seconds without a byte after which a read is given up.
        allowed: Hosts that may be asked though they have an address that no source may have.

    Raises:
        UsageError: The scheme, the URL or an option can't be used, or the server's address is one of those.
        AccessDenied: There are no credentials.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    given = {**(options or {}), **(credentials or {})}
    servers = [f"{name}://{server}" for name, server in _SERVERS.findall(url) if name.lower() in NETWORKED]
    for place in (*servers, *(str(given[name]) for name in ADDRESSES if given.get(name))):
        require_allowed(place, allowed)
    return SCHEMES.get(scheme, _fsspec)(url, given, Terms(idle, allowed))
