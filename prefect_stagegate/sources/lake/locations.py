"""Where the files of a table may lie. What a table's metadata name elsewhere is refused by name.

Whoever writes a table's metadata, or answers for its catalog, is not whoever runs the staging: metadata that name
`file:///etc/shadow`, or another bucket, would have it read with the rights of that user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from prefect_stagegate.errors import SourceError

STORES = {
    "s3": "s3",
    "s3a": "s3",
    "s3n": "s3",
    "gs": "gs",
    "gcs": "gs",
    "abfs": "abfs",
    "abfss": "abfs",
    "hdfs": "hdfs",
    "file": "file",
}
"""The schemes that metadata may name, and the store that each means."""
AZURE_HOSTS = (".core.windows.net", ".core.chinacloudapi.cn", ".core.usgovcloudapi.net", ".fabric.microsoft.com")
"""How the hosts of Azure's accounts end; another one would be sent Azure's credentials."""


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, or is it. Paths are as they are, not percent-encoded; links are followed.

    >>> is_below("s3a://lake/t/data/a.parquet", "s3://lake/t"), is_below("s3://lake/t2/a", "s3://lake/t")
    (True, False)
    >>> is_below("/mnt/t/../secret", "file:///mnt/t"), is_below("file:/mnt/t/a", "/mnt/t/")
    (False, True)
    """
    (store, place), (other, root) = _parts(path), _parts(folder)
    if not store or store != other or {".", ".."}.intersection(place.split("/")):
        return False
    if store == "file":
        place, root = os.path.realpath(place), os.path.realpath(root)
    return f"{place}/".startswith(f"{root.rstrip('/')}/")


def _parts(path: str) -> tuple[str, str]:
    """The store, and what stands behind the scheme; an empty store for a path that may not be named."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        scheme, rest = "file", path.removeprefix("file:")
    store = STORES.get(scheme.lower(), "")
    if store == "file":
        rest = rest.removeprefix("localhost")
        return ("file", rest) if rest.startswith("/") else ("", rest)
    return (store, rest) if rest.partition("/")[0] else ("", rest)


def _names_a_machine(path: str) -> bool:
    """Whether a path names this machine's files or a host, which a catalog's word for a table's folder can't do."""
    store, place = _parts(path)
    host = place.partition("/")[0].partition("@")[2]
    return store in ("file", "hdfs") or (store == "abfs" and bool(host) and not host.endswith(AZURE_HOSTS))


class Locations:
    """The places of one table's files.

    Args:
        listed: Folders that the spec or the user's configuration lists: the option `locations`.
        warehouse: The folder that they name for all tables; empty when they name none.
        url: The table's, for errors.
    """

    def __init__(self, listed: Iterable[str], warehouse: str, *, url: str) -> None:
        self._listed = tuple(listed)
        self._chosen = (*self._listed, warehouse)
        self._url = url
        self._table: str | None = None

    def set_table(self, location: str) -> None:
        """From now on files lie below the table's own folder. Metadata files are read before it is known."""
        self._table = location

    def require(self, path: str) -> None:
        """Refuse a file that lies elsewhere.

        Raises:
            SourceError: It does.
        """
        if any(is_below(path, one) for one in self._listed):
            return
        if _names_a_machine(path) and not any(is_below(path, one) for one in self._chosen):
            raise self._elsewhere(path, "of a machine, in no folder that the spec names")
        if not is_below(path, path if self._table is None else self._table):
            raise self._elsewhere(path, "outside of its folder")

    def _elsewhere(self, path: str, where: str) -> SourceError:
        return SourceError(
            f"The table's metadata name a file {where}: {path}",
            hint="If the table's files lie there rightly, list the folder under the option `locations:`.",
            source=self._url,
            object=path,
        )
