"""Where objects are read from: one visible table of schemes, and the adapter behind each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from prefect_stagegate.sources.base import BaseSource, Source, Wanted, everything, public_url

__all__ = ["BaseSource", "Source", "Wanted", "everything", "open_source", "public_url"]

IDLE_SECONDS = 30.0
"""How long a read may stand still before it is given up, unless the caller says otherwise."""

Options = Mapping[str, Any]
log = logging.getLogger(__name__)


def _files(url: str, options: Options, idle: float) -> Source:
    from prefect_stagegate.sources.files import FileSource

    del options, idle
    return FileSource(url)


def _s3(url: str, options: Options, idle: float) -> Source:
    from prefect_stagegate.objects import translate
    from prefect_stagegate.sources.s3 import S3Source

    settings, left = translate(options)
    if left:
        log.warning("%s is read through s3fs, which is slower: only it knows the option %s", url, ", ".join(left))
        return _fsspec(url, options, idle)
    return S3Source(url, settings, idle=idle)


def _fsspec(url: str, options: Options, idle: float) -> Source:
    from prefect_stagegate.sources.anyfs import FsspecSource

    return FsspecSource(url, options, idle=idle)


SCHEMES: dict[str, Callable[[str, Options, float], Source]] = {
    "": _files,
    "file": _files,
    "local": _files,
    "s3": _s3,
    "s3a": _s3,
}
"""The adapter for each scheme; whatever else fsspec knows is read through fsspec."""


def open_source(
    url: str, options: Options | None = None, *, credentials: Options | None = None, idle: float = IDLE_SECONDS
) -> Source:
    """Open the source at `url`. A server is asked nothing yet.

    Args:
        url: A URL, or a path of this machine.
        options: Storage options by fsspec's names.
        credentials: Further options, which win: what a block or a secret store gives.
        idle: Seconds without a byte after which a read is given up.

    Raises:
        UsageError: The scheme, the URL or an option can't be used.
        AccessDenied: There are no credentials.
    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    return SCHEMES.get(scheme, _fsspec)(url, {**(options or {}), **(credentials or {})}, idle)
