"""Names of datasets as OpenLineage's naming convention has them: a namespace, which is the place, and a name there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect_stagegate.redaction import redact
from prefect_stagegate.show.legible import legible_text
from prefect_stagegate.sources import public_url

MOST = 1000
"""Characters of a name, at most; of a longer one the beginning stays."""
_SCHEMES = {"s3a": "s3", "gcs": "gs", "postgresql": "postgres", "ssh": "sftp", "local": "file"}
_ROOTED = ("file", "hdfs")
"""Schemes whose names are paths from the root."""
_VERSIONED = ("delta", "iceberg", "hf", "oci")
"""Families whose URLs may end a name by `@` and a version, which is no part of the name."""
_AZURE = ("az", "abfs", "abfss")
_POSTGRES_PORT = ":5432"


@dataclass(frozen=True, slots=True)
class DatasetName:
    """The name of a dataset, free of credentials and of characters that act instead of showing."""

    namespace: str
    name: str

    def below(self, *parts: str) -> DatasetName:
        """The name of something in this dataset."""
        return DatasetName(self.namespace, clean("/".join((self.name.rstrip("/"), *parts))))


def clean(text: str, most: int = MOST) -> str:
    """A text that may come from anybody, as others may read it."""
    return legible_text(redact(text))[:most]


def source_name(url: str, options: Mapping[str, Any] | None = None) -> DatasetName:
    """The name of a source, by its URL and options.

    >>> source_name("s3a://me:secret@lake/flights/2013/?sig=1")
    DatasetName(namespace='s3://lake', name='flights/2013')
    >>> source_name("delta+file:///mnt/nas/trips@7/")
    DatasetName(namespace='file', name='/mnt/nas/trips')
    >>> source_name("postgresql://db/air?sslmode=require#public.flights")
    DatasetName(namespace='postgres://db:5432', name='air.public.flights')
    >>> source_name("abfss://raw@acme.dfs.core.windows.net/flights")
    DatasetName(namespace='abfss://raw@acme.dfs.core.windows.net', name='flights')
    """
    scheme, separator, rest = public_url(url).partition("://")
    if not separator:
        return _named("file", "", url)
    family, _, transport = scheme.lower().partition("+")
    scheme = _SCHEMES.get(transport or family, transport or family)
    authority, _, path = rest.partition("/")
    if scheme in _AZURE:
        return _azure_name(url, authority, path, options or {})
    if scheme == "postgres":
        return _postgres_name(authority, path.partition("#")[0], url.partition("#")[2])
    if family in _VERSIONED:
        path = re.sub("@[^/]*", "", path)
    return _named(scheme, authority, f"/{path}" if scheme in _ROOTED else path)


def _named(scheme: str, authority: str, path: str) -> DatasetName:
    # A file's authority is a host, as in `file://host/path`.
    namespace = f"{scheme}://{authority}" if authority or scheme != "file" else scheme
    return DatasetName(clean(namespace), clean(path.rstrip("/") or "/"))


def _azure_name(url: str, host: str, path: str, options: Mapping[str, Any]) -> DatasetName:
    """A container of Azure: `az://container/path` with the account as an option, or `abfss://container@host/path`."""
    authority = url.partition("://")[2].partition("/")[0]
    container, at, _ = authority.rpartition("@")
    if at and ":" not in container:
        return _named("abfss", f"{container}@{host}", path)
    account = options.get("account_name")
    return _named("abfss", f"{host}@{account}.dfs.core.windows.net", path) if account else _named("az", host, path)


def _postgres_name(host: str, database: str, table: str) -> DatasetName:
    server = host if ":" in host.rpartition("]")[2] else host + _POSTGRES_PORT
    return _named("postgres", server, ".".join(filter(None, (database.strip("/"), table))))
