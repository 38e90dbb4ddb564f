"""The schemes of source URLs, and the adapter that reads each: one visible table.

Another package adds an adapter by an entry point, named after the scheme, that leads to an `Opener`:

    [project.entry-points."prefect_stagegate.sources"]
    sqlar = "my_package.archives:open_archive"

The entry point is loaded when a URL of its scheme is opened, so a broken package breaks no other scheme.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from prefect_stagegate.errors import UsageError
from prefect_stagegate.redaction import remember_access
from prefect_stagegate.sources.base import Source, public_url
from prefect_stagegate.sources.terms import IDLE_SECONDS, Opener, Options, Recall, Terms, nothing
from prefect_stagegate.sources.walk import ENTRIES
from prefect_stagegate.sources.wrappers.boundary import bounded
from prefect_stagegate.spec.permitted import LIBRARIES, Kind, Library, flat, scheme_of
from prefect_stagegate.transport.http import Allowed, require_allowed
from prefect_stagegate.transport.objectstore.translating import unknown_option

GROUP = "prefect_stagegate.sources"
"""The entry point group of adapters in other packages."""
ADDRESSES = ("endpoint_url", "endpoint", "host", "base_url")
"""Options that name a server, in any adapter, also in another package's."""

_SERVERS = re.compile(
    r"\b(?:ftp|https?|oci|postgres(?:ql)?|sftp|smb|ssh|webdavs?|(?:web)?hdfs)://[^/?#]*", re.IGNORECASE
)
"""URLs that name a host, by their schemes. Others name a bucket or a folder."""

log = logging.getLogger(__name__)


def _by(module: str, name: str) -> Opener:
    """The opener that makes a source of a class, whose module is imported then."""

    def open_by(url: str, options: Options, terms: Terms) -> Source:
        source: Source = getattr(import_module(f"prefect_stagegate.{module}"), name)(url, options, terms)
        return source

    return open_by


def _files(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.local.files import FileSource

    return FileSource(url, options, most=terms.most)


def _s3(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.buckets.s3 import S3Source
    from prefect_stagegate.transport.objectstore import translate

    settings, unknown = translate(options)
    if unknown:
        # s3fs knows more options than obstore: reading slowly is better than ignoring an option.
        log.warning("%s is read through s3fs, which is slower: only s3fs knows the option %s", url, ", ".join(unknown))
        from prefect_stagegate.sources.buckets.s3fs_session import NoRedirectSession

        config = {**options.get("config_kwargs", {}), "http_session_cls": NoRedirectSession}
        return _fsspec(url, {**options, "config_kwargs": config}, terms)
    return S3Source(url, settings, terms)


def _gcs(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.plugins.gcs.gcs import gcs_settings, open_gcs
    from prefect_stagegate.sources.buckets.bucket import BucketSource
    from prefect_stagegate.transport.objectstore import parse_bucket_url

    path = parse_bucket_url(url)
    store = open_gcs(path, gcs_settings(options), idle=terms.idle, allowed=terms.allowed)
    return BucketSource(url, store, path.key)


def _azure(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.plugins.azure.azure import open_azure, parse_container_url
    from prefect_stagegate.plugins.azure.azure_options import azure_settings
    from prefect_stagegate.sources.buckets.bucket import BucketSource

    path, host = parse_container_url(url)
    store = open_azure(path, azure_settings(options, host=host), idle=terms.idle, allowed=terms.allowed)
    return BucketSource(url, store, path.key)


def _delta(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.plugins.lake.delta import DeltaSource, table_of
    from prefect_stagegate.transport.objectstore import object_store_options, translate

    table = table_of(url)[0]
    if table.startswith("file:"):
        return DeltaSource(url, _files(table, {}, terms), {}, terms)
    settings, unknown = translate(options)
    if unknown:
        raise UsageError(f"The option {unknown[0]!r} can't be used for a table", hint="Leave it out.", source=url)
    return DeltaSource(url, _s3(table, options, terms), object_store_options(table, settings, idle=terms.idle), terms)


def _iceberg(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.plugins.lake.iceberg import IcebergSource

    return IcebergSource(url, options, partial(open_source, idle=terms.idle, allowed=terms.allowed), terms)


def _sql(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.plugins.sql.source import SqlSource

    source = SqlSource(url, options, idle=terms.idle, scratch=terms.scratch)
    # libpq's URLs may name several hosts: each is checked.
    for host in url.partition("://")[2].partition("/")[0].rpartition("@")[2].split(","):
        require_allowed(host, terms.allowed)
    return source


def _fsspec(url: str, options: Options, terms: Terms) -> Source:
    from prefect_stagegate.sources.fsspec import FsspecSource, library_of

    _require_permitted(library_of(url), url, options, terms.allowed)
    return FsspecSource(url, options, most=terms.most)  # fsspec's file systems have timeouts of their own


SCHEMES: dict[str, Opener] = {
    "": _files,
    "delta+file": _delta,
    "delta+s3": _delta,
    "delta+s3a": _delta,
    "file": _files,
    "hf": _by("plugins.hub.hub", "HubSource"),
    "iceberg": _iceberg,
    "local": _files,
    "oci": _by("plugins.exchange.oci.oci_source", "OciSource"),
    "abfs": _azure,
    "abfss": _azure,
    "az": _azure,
    "gcs": _gcs,
    "gs": _gcs,
    "hdfs": _by("plugins.hdfs.hdfs", "HdfsSource"),
    "http": _by("sources.web.website", "HttpSource"),
    "https": _by("sources.web.website", "HttpSource"),
    "postgres": _sql,
    "postgresql": _sql,
    "s3": _s3,
    "s3a": _s3,
    "sftp": _by("plugins.sftp.source", "SftpSource"),
    "ssh": _by("plugins.sftp.source", "SftpSource"),
    "webdav+http": _by("plugins.webdav.webdav", "WebDavSource"),
    "webdav+https": _by("plugins.webdav.webdav", "WebDavSource"),
}
"""The opener of each scheme; `register` adds to it. Other schemes go to an entry point, else to fsspec."""


def register(scheme: str, opener: Opener) -> None:
    """Let `open_source` read another scheme. An installed package does this by an entry point instead.

    Args:
        scheme: What stands before `://`, in lower case.
        opener: Opens the adapter, which keeps the promises of `Source`.

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
    """Open the source at `url`. Sends no request yet.

    Args:
        url: A URL, or a path of this machine.
        options: Storage options by fsspec's names.
        credentials: Further options, from a block or a secret store; they override `options`.
        idle: Seconds without a byte after which a read is given up.
        allowed: Hosts that may be asked even at addresses that no source may have.
        scratch: Folder for temporary copies of objects that an adapter must render before they are read; None for the
            system's folder of temporary files.
        recall: Looks up the sizes of objects that were rendered before.
        most: Most files and folders that one listing looks at, where the source has folders.

    Raises:
        UsageError: The scheme, the URL, an option or the server's address can't be used or is not permitted.
        AccessDenied: There are no credentials.
        AdapterFailed: The adapter, or a library that it uses, is defective.
    """
    scheme = scheme_of(url)
    given = {**(options or {}), **(credentials or {})}
    # Secrets must be known to the redaction before anything can fail and quote them.
    remember_access(url, {**os.environ, **given})
    # Addresses are checked here, before an adapter of any package can connect to one.
    for place in (*_SERVERS.findall(url), *(str(given[name]) for name in ADDRESSES if given.get(name))):
        require_allowed(place, allowed)
    if scheme in LIBRARIES:
        _require_permitted(LIBRARIES[scheme], url, given, allowed)
    opener = SCHEMES.get(scheme) or _installed(scheme) or _fsspec

    def opened() -> Source:
        source = opener(url, given, Terms(idle, allowed, scratch, recall, most))
        # The environment may name the endpoint, so it is known only now. Nothing was sent yet.
        require_allowed(getattr(source, "endpoint", ""), allowed)
        return source

    return bounded(url, opened)


def _installed(scheme: str) -> Opener | None:
    """The opener that an installed package has for the scheme; None when no package has one.

    Raises:
        UsageError: The plugin can't be loaded.
    """
    # Sorted, so that with two packages for one scheme the same one is taken each time.
    for point in sorted(entry_points(group=GROUP, name=scheme), key=lambda point: point.value):
        package = point.dist.name if point.dist else point.value
        try:
            opener: Opener = point.load()
        # Importing a package runs its code, which may raise anything, and may even try to end the process.
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"The plugin {package}, which reads {scheme}://, can't be loaded: {type(error).__name__}: {error}",
                hint=f"Repair or remove it: pip show {package}; pip uninstall {package}",
            ) from error
        return opener
    return None


def _require_permitted(library: Library, url: str, options: Mapping[str, Any], allowed: Allowed) -> None:
    """Refuse an option that is not permitted, a forbidden address, and a device or pipe in place of a file.

    Raises:
        UsageError: An option can't be used.
    """
    for name, value in flat(options):
        kind = library.kind(name)
        if kind is None:
            raise unknown_option(library, name, source=public_url(url))
        for item in value if isinstance(value, list | tuple) else (value,):
            if kind is Kind.ADDRESS:
                require_allowed(str(item), allowed)
            elif kind is Kind.FILE and isinstance(item, str):
                _require_plain_file(name, item, url)


def _require_plain_file(name: str, path: str, url: str) -> None:
    """Refuse a device or pipe, which may be endless. The library itself reports an absent file."""
    file = Path(path).expanduser()
    if file.exists() and not file.is_file():
        raise UsageError(
            f"The option {name} names {path}, which is no plain file", hint="Name a file.", source=public_url(url)
        )
