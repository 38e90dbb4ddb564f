"""Where objects are read from: one visible table of schemes, and the adapter behind each."""

from __future__ import annotations

import logging
import os
import re
from functools import partial

from prefect_stagegate.errors import UsageError
from prefect_stagegate.http import Allowed, require_allowed
from prefect_stagegate.redaction import remember_access
from prefect_stagegate.sources.base import BaseSource, Source, Wanted, everything, public_url
from prefect_stagegate.sources.boundary import bounded
from prefect_stagegate.sources.naming import require_permitted
from prefect_stagegate.sources.plugins import installed
from prefect_stagegate.sources.renewing import renewing
from prefect_stagegate.sources.terms import IDLE_SECONDS, Opener, Options, Recall, Terms, nothing
from prefect_stagegate.sources.walk import ENTRIES
from prefect_stagegate.spec.permitted import LIBRARIES, scheme_of

__all__ = [
    "BaseSource",
    "Opener",
    "Options",
    "Recall",
    "Source",
    "Terms",
    "Wanted",
    "everything",
    "open_source",
    "public_url",
    "register",
    "renewing",
]

NETWORKED = (
    *("ftp", "hdfs", "http", "https", "postgres", "postgresql", "sftp", "smb", "ssh", "webdav", "webdavs", "webhdfs"),
)
"""Schemes whose URLs name a host; others name a bucket or a folder."""
ADDRESSES = ("endpoint_url", "endpoint", "host", "base_url")
"""Options that say where a server is, of sources that another package reads."""

_SERVERS = re.compile(r"(\w+)://([^/?#]*)")

log = logging.getLogger(__name__)


def _files(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.files import FileSource

    return FileSource(url, options, most=terms.most)


def _s3(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.objects import translate
    from prefect_stagegate.sources.s3 import S3Source

    settings, left = translate(options)
    if left:
        log.warning("%s is read through s3fs, which is slower: only it knows the option %s", url, ", ".join(left))
        return _fsspec(url, options, terms)
    source = S3Source(url, settings, terms)
    require_allowed(source.endpoint, terms.allowed)
    return source


def _gcs(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.gcs import GcsSource

    source = GcsSource(url, options, terms)
    require_allowed(source.endpoint, terms.allowed)
    return source


def _azure(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.azure import AzureSource

    source = AzureSource(url, options, terms)
    require_allowed(source.endpoint, terms.allowed)
    return source


def _delta(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.objects import texts, translate
    from prefect_stagegate.sources.delta import DeltaSource, table_of

    table = table_of(url)[0]
    if table.startswith("file:"):
        return DeltaSource(url, _files(table, {}, terms), {}, terms)
    settings, left = translate(options)
    if left:
        raise UsageError(f"The option {left[0]!r} can't be used for a table", hint="Leave it out.", source=url)
    return DeltaSource(url, _s3(table, options, terms), texts(table, settings, idle=terms.idle), terms)


def _sftp(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.sftp import SftpSource

    return SftpSource(url, options, terms)


def _iceberg(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.iceberg import IcebergSource

    source = IcebergSource(url, options, partial(open_source, idle=terms.idle, allowed=terms.allowed), terms)
    require_allowed(source.server, terms.allowed)
    return source


def _http(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.http import HttpSource

    return HttpSource(url, options, terms)


def _webdav(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.webdav import WebDavSource

    return WebDavSource(url, options, terms)


def _hub(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.hf import HubSource

    source = HubSource(url, options, terms)
    require_allowed(source.endpoint, terms.allowed)
    return source


def _sql(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.sql import open_sql

    return open_sql(url, options, terms)


def _hdfs(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.hdfs import HdfsSource

    return HdfsSource(url, options, terms)


def _fsspec(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.anyfs import FsspecSource, library_of

    require_permitted(library_of(url), url, options, terms.allowed)
    return FsspecSource(url, options, most=terms.most)  # fsspec's file systems have timeouts of their own


SCHEMES: dict[str, Opener] = {
    "": _files,
    "delta+file": _delta,
    "delta+s3": _delta,
    "delta+s3a": _delta,
    "file": _files,
    "hf": _hub,
    "iceberg": _iceberg,
    "local": _files,
    "abfs": _azure,
    "abfss": _azure,
    "az": _azure,
    "gcs": _gcs,
    "gs": _gcs,
    "hdfs": _hdfs,
    "http": _http,
    "https": _http,
    "postgres": _sql,
    "postgresql": _sql,
    "s3": _s3,
    "s3a": _s3,
    "sftp": _sftp,
    "ssh": _sftp,
    "webdav+http": _webdav,
    "webdav+https": _webdav,
}
"""The adapter for each scheme, and what `register` adds. Then come the plugins, and fsspec for all that it knows."""


def register(scheme: str, opener: Opener) -> None:
    """Let `open_source` read a scheme that it doesn't know; a package names its own as an entry point instead.

    Args:
        scheme: What stands before `://`, in lower case.
        opener: Makes the adapter, which keeps the promises of `Source`.

    Raises:
        ValueError: The scheme is taken.
    """
    if SCHEMES.setdefault(scheme, opener) is not opener:
        raise ValueError(f"the scheme {scheme!r} is taken")


def open_source(
    url: str,
    options: Options | None = None,
    *,
    credentials: Options | None = None,
    idle: float = IDLE_SECONDS,
    allowed: Allowed = (),
    scratch: str | None = None,
    recall: Recall = nothing,
    most: int = ENTRIES,
) -> Source:
    """Open the source at `url`. A server is asked nothing yet.

    Args:
        url: A URL, or a path of this machine.
        options: Storage options by fsspec's names.
        credentials: Further options, which win: what a block or a secret store gives.
        idle: Seconds without a byte after which a read is given up.
        allowed: Hosts that may be asked though they have an address that no source may have.
        scratch: A folder on whose volume an adapter may keep what it must write before it can be read; None for the
            system's folder of temporary files.
        recall: Tells the sizes of objects that were made before.
        most: Files and folders that one listing looks at, where the source has folders.

    Raises:
        UsageError: The scheme, the URL or an option can't be used or is not permitted, or the server's address is one
            of those.
        AccessDenied: There are no credentials.
        AdapterFailed: The adapter, or a library that it uses, is defective. Nothing but errors of errors.py leaves it.
    """
    scheme = scheme_of(url)
    given = {**(options or {}), **(credentials or {})}
    remember_access(url, {**os.environ, **given})
    servers = [f"{name}://{server}" for name, server in _SERVERS.findall(url) if name.lower() in NETWORKED]
    for place in (*servers, *(str(given[name]) for name in ADDRESSES if given.get(name))):
        require_allowed(place, allowed)
    if scheme in LIBRARIES:
        require_permitted(LIBRARIES[scheme], url, given, allowed)
    opener = SCHEMES.get(scheme) or installed(scheme) or _fsspec
    return bounded(url, lambda: opener(url, given, Terms(idle, allowed, scratch, recall, most)))
