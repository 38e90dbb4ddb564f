"""Which extra reads which scheme, and the error for an extra that is not installed."""

from __future__ import annotations

from prefect_stagegate.errors import MissingExtra, install_hint

EXTRAS = {
    "delta": "delta",
    "hdfs": "hdfs",
    "hf": "hf",
    "iceberg": "iceberg",
    "oci": "oci",
    "postgres": "sql",
    "postgresql": "sql",
    "sftp": "sftp",
    "ssh": "sftp",
}
"""The extra that installs a scheme's client library. `delta+s3` counts as `delta`."""


def extra_of(url: str) -> str:
    """The extra that reads a URL; empty when none is known.

    >>> extra_of("delta+s3://lake/flights"), extra_of("s3://lake/")
    ('delta', '')
    """
    return EXTRAS.get(url.partition("://")[0].partition("+")[0].lower(), "")


def missing_extra(extra: str, *, source: str = "") -> MissingExtra:
    """The error for a client library that is not installed: raise it from the ImportError.

    >>> str(missing_extra("sftp", source="sftp://nas/data/"))
    'The client library for sftp://nas/data/ is not installed. Install it: pip install "prefect-stagegate[sftp]"'
    """
    message = f"The client library for {source or extra} is not installed"
    return MissingExtra(message, hint=install_hint(extra), source=source)
