"""Where the files of a table may lie. A file elsewhere is an error that names it.

The writer of a table's metadata and the catalog are less trusted than the user who stages. Metadata that name
`file:///etc/shadow`, or another bucket, would read it with that user's rights.
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
"""The schemes that metadata may use, and the store that each means."""
AZURE_HOSTS = (".core.windows.net", ".core.chinacloudapi.cn", ".core.usgovcloudapi.net", ".fabric.microsoft.com")
"""Endings of the hosts of Azure's accounts. Any other host would be sent Azure's credentials."""


def is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, or is the folder. Paths are not percent-encoded; local links are followed.

    >>> is_below("s3a://lake/t/data/a.parquet", "s3://lake/t"), is_below("s3://lake/t2/a", "s3://lake/t")
    (True, False)
    >>> is_below("/mnt/t/../secret", "file:///mnt/t"), is_below("file:/mnt/t/a", "/mnt/t/")
    (False, True)
    """
    (store, place), (other, root) = _parts(path), _parts(folder)
    # A path with dots could leave the folder, whatever the store makes of them.
    if not store or store != other or {".", ".."}.intersection(place.split("/")):
        return False
    if store == "file":
        place, root = os.path.realpath(place), os.path.realpath(root)
    return f"{place}/".startswith(f"{root.rstrip('/')}/")


def _parts(path: str) -> tuple[str, str]:
    """The store, and the path behind the scheme; an empty store for a path that metadata may not name."""
    scheme, separator, rest = path.partition("://")
    if not separator:
        scheme, rest = "file", path.removeprefix("file:")
    store = STORES.get(scheme.lower(), "")
    if store == "file":
        rest = rest.removeprefix("localhost")
        return ("file", rest) if rest.startswith("/") else ("", rest)
    return (store, rest) if rest.partition("/")[0] else ("", rest)


def _names_a_machine(path: str) -> bool:
    """Whether a path names this machine's files or a host: a catalog alone may not place a table there."""
    store, place = _parts(path)
    host = place.partition("/")[0].partition("@")[2]
    return store in ("file", "hdfs") or (store == "abfs" and bool(host) and not host.endswith(AZURE_HOSTS))


class Locations:
    """The folders in which one table's files may lie.

    Args:
        listed: The folders of the option `locations`, in the spec or in the user's configuration.
        warehouse: The folder that these name for all tables; empty when they name none.
        url: The table's, for errors.
    """

    def __init__(self, listed: Iterable[str], warehouse: str, *, url: str) -> None:
        self._listed = tuple(listed)
        self._chosen = (*self._listed, warehouse)
        self._url = url
        self._table: str | None = None

    def set_table(self, location: str) -> None:
        """Set the table's folder, below which files must lie from now on. Reading its metadata came before."""
        self._table = location

    def require(self, path: str) -> None:
        """Refuse a file that lies elsewhere.

        Raises:
            SourceError: It does.
        """
        if any(is_below(path, folder) for folder in self._listed):
            return
        if _names_a_machine(path) and not any(is_below(path, folder) for folder in self._chosen):
            raise self._elsewhere(path, "on a machine, outside of the spec's folders")
        # While the table's folder is unknown, its metadata may lie in any store, but not on a machine.
        if not is_below(path, path if self._table is None else self._table):
            raise self._elsewhere(path, "outside of the table's folder")

    def _elsewhere(self, path: str, place: str) -> SourceError:
        return SourceError(
            f"The table's metadata name a file {place}: {path}",
            hint="If the file belongs to the table, add its folder to the option `locations:`.",
            source=self._url,
            object=path,
        )
