"""Apache Iceberg: the data files of one snapshot of a table, as they are.

Only the catalog, metadata and manifests are read through `pyiceberg`, by the user's own configuration of the catalog;
the files are read as any others of the store they lie in. Iceberg never changes a file, so its path and the snapshot
that added it pin it, whatever snapshot lists it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    ObjectChanged,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    StagegateError,
    UsageError,
)
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.sources.base import BaseSource, Source, Wanted, everything, public_url
from prefect_stagegate.sources.extras import missing_extra
from prefect_stagegate.sources.hiding import Hiding

if TYPE_CHECKING:
    from typing_extensions import Buffer

STORE = {
    "s3.endpoint": "endpoint_url",
    "s3.access-key-id": "key",
    "s3.secret-access-key": "secret",
    "s3.session-token": "token",
    "s3.region": "region",
    "s3.anonymous": "anon",
}
"""What a catalog says of its store, by Iceberg's names, and the option of ours that says the same."""
CATALOG_SECONDS = 60.0
"""How long a catalog may take to tell of a table."""
LOOKED_UP = 4096
"""Files whose state in the store is remembered, so that the parts of one are read from one state."""

T = TypeVar("T")

_ABSENT = ("NoSuchTableError", "NoSuchNamespaceError", "NoSuchIdentifierError", "NoSuchIcebergTableError")
_REFUSED = ("ForbiddenError", "UnauthorizedError", "PermissionError", "SignError")
_UNAVAILABLE = ("ConnectionError", "Timeout", "ServerError", "ServiceUnavailableError", "OperationalError", "OSError")


class IcebergSource(BaseSource):
    """The data files of an Iceberg table: of the snapshot, branch or tag that the URL names, else of its main branch.

    Args:
        url: `iceberg://catalog/namespace.table`, with `@` and a snapshot's id, a branch or a tag behind it or not.
        options: Properties of the catalog by pyiceberg's names; they win over its configuration file and environment.
        store: Opens the place that files lie in: a URL, and options by fsspec's names.

    Raises:
        MissingExtra: pyiceberg is not installed.
        UsageError: The URL names no table.
    """

    def __init__(self, url: str, options: Mapping[str, Any], store: Callable[[str, Mapping[str, Any]], Source]) -> None:
        try:
            from pyiceberg.utils.config import Config
        except ImportError as error:
            raise missing_extra("iceberg", source=url) from error
        self.url = url
        self._catalog, _, table = url.partition("://")[2].rstrip("/").partition("/")
        self._name, _, self._at = table.partition("@")
        if not self._catalog or "." not in self._name:
            raise UsageError(f"{url} names no table", hint="It looks like iceberg://catalog/namespace.table.")
        configured: Mapping[str, Any] = Config().get_catalog_config(self._catalog) or {}
        given = {name: value if isinstance(value, Mapping) else str(value) for name, value in options.items()}
        properties: dict[str, Any] = {**configured, **given}
        self._properties = properties
        self.server = public_url(str(properties.get("uri", "")))
        self.identity = f"{self.server} iceberg://{self._catalog}/{self._name}".strip()
        self._hiding = Hiding(str(properties.get("uri", "")), properties)
        self._store = store
        self._opened: dict[str, Source] = {}
        self._store_options: dict[str, str] = {}
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._lying = lru_cache(LOOKED_UP)(self._look)

    def credential_life(self) -> CredentialLife:
        """Say that nobody can tell: the catalog may hand out credentials of its own."""
        return CredentialLife("unknown", "what the Iceberg catalog is opened with")

    def close(self) -> None:
        """Close the stores that were read from."""
        for source in self._opened.values():
            source.close()

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted data file of the snapshot, a manifest at a time.

        Raises:
            SourceError: There is no such table or snapshot, or rows of it are deleted by delete files.
        """
        table = self._table()
        snapshot = self._snapshot(table)
        manifests = self._ask(partial(snapshot.manifests, table.io))
        for manifest in sorted(manifests, key=lambda one: one.content, reverse=True):  # those of deletes first
            for entry in self._ask(partial(manifest.fetch_manifest_entry, table.io, discard_deleted=True)):
                if entry.data_file.content:
                    raise self._rows_deleted(entry.data_file)
                found = _object(entry, table.location(), snapshot.snapshot_id)
                if wanted(found.key):
                    yield found

    def find(self, key: str) -> SourceObject:
        """The data file, if the snapshot that the URL names has it, or the newest now."""
        found = next((one for one in self.list() if one.key == key), None)
        if found is None:
            raise ObjectVanished("The table no longer has the file", source=self.url, object=key)
        return found

    def read(self, listed: SourceObject, start: int, end: int) -> Iterator[Buffer]:
        """The bytes, from the store."""
        source, lying = self._lying(listed)
        yield from source.read(lying, start, end)

    def confirm(self, listed: SourceObject) -> None:
        """Ask the store."""
        source, lying = self._lying(listed)
        source.confirm(lying)

    def _look(self, listed: SourceObject) -> tuple[Source, SourceObject]:
        """The file in its store."""
        scheme, root, key = _place(listed.pin.value.partition(":")[2])
        source = self._source(scheme, root)
        try:
            found = source.find(key)
        except ObjectVanished as error:
            raise ObjectVanished(
                "The table's snapshot lists the file, but it is gone",
                hint="Expiring snapshots removes the files of old ones: name a newer one, or a tag that keeps it.",
                source=self.url,
                object=listed.key,
            ) from error
        if found.size != listed.size:
            raise ObjectChanged(
                f"The file has {found.size} bytes, and the table says {listed.size}",
                hint="Something other than Iceberg wrote over it.",
                source=self.url,
                object=listed.key,
            )
        return source, found

    def _source(self, scheme: str, root: str) -> Source:
        self._table(again=False)  # which tells how the store is opened
        with self._lock:
            if root not in self._opened:
                options = self._store_options if scheme in ("s3", "s3a", "s3n") else {}
                self._opened[root] = self._store(root, options)
            return self._opened[root]

    def _table(self, *, again: bool = True) -> Any:
        """The table as it is now, or, when it need not be asked again, as it was."""
        with self._lock:
            if self._loaded is None or again:
                try:
                    self._loaded = _within(CATALOG_SECONDS, self._load)
                except ValueError as error:
                    raise self._unusable(error) from self._hiding.cause(error)
                except Exception as error:  # noqa: BLE001 - explained; its cause may be hidden
                    raise self._explained(error) from self._hiding.cause(error)
                given = self._loaded.io.properties
                self._store_options = {ours: given[name] for name, ours in STORE.items() if given.get(name)}
            return self._loaded

    def _load(self) -> Any:
        from pyiceberg.catalog import load_catalog

        return load_catalog(self._catalog, **self._properties).load_table(self._name)

    def _snapshot(self, table: Any) -> Any:
        """The snapshot to be listed. A scan of one that has expired would be empty, and say nothing."""
        refs = table.refs()
        if not self._at:
            found = table.current_snapshot()
        elif self._at in refs:
            found = table.snapshot_by_id(refs[self._at].snapshot_id)
        else:
            found = table.snapshot_by_id(int(self._at)) if self._at.isdigit() else None
        if found is None:
            wanted = f"no snapshot, branch or tag {self._at}" if self._at else "no snapshot: nothing was written to it"
            known = ", ".join(sorted(refs)) or "none"
            hint = f"It may have expired. Branches and tags of the table: {known}."
            raise SourceError(f"The table has {wanted}", hint=hint, source=self.url)
        return found

    def _rows_deleted(self, file: Any) -> SourceError:
        kind = {1: "position", 2: "equality"}.get(int(file.content), "row")
        return SourceError(
            f"Rows of the table are deleted by {kind} deletes ({file.file_path}), so its files are not what it says",
            hint="Write it without them, by Spark: CALL system.rewrite_data_files(table => …, "
            "options => map('delete-file-threshold', '1')). Without more of them: write.delete.mode = copy-on-write.",
            source=self.url,
        )

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except Exception as error:  # noqa: BLE001 - explained; its cause may be hidden
            raise self._explained(error) from self._hiding.cause(error)

    def _unusable(self, error: Exception) -> UsageError:
        told = self._hiding.in_text(str(error).partition("\n")[0])
        hint = (
            f"Describe the catalog {self._catalog!r} in ~/.pyiceberg.yaml, by PYICEBERG_CATALOG__…, or in `options:`."
        )
        return UsageError(f"The Iceberg catalog can't be opened: {told}", hint=hint, source=self.url)

    def _explained(self, error: Exception) -> StagegateError:
        """The typed error for what pyiceberg raised, by the names of its classes."""
        names, told = {kind.__name__ for kind in type(error).__mro__}, self._hiding.in_text(str(error))
        if names.intersection(_ABSENT):
            return SourceError("The catalog has no such table", hint="Check namespace and name.", source=self.url)
        if "AuthorizationExpiredError" in names or "ExpiredToken" in told:
            return CredentialsExpired("The credentials have expired", hint="Log in again.", source=self.url)
        if names.intersection(_REFUSED) or "ACCESS_DENIED" in told or "SignatureDoesNotMatch" in told:
            hint = "Check the catalog's credentials, and those of its store (s3.access-key-id, s3.secret-access-key)."
            return AccessDenied("Access is denied", hint=hint, source=self.url)
        if "FileNotFoundError" in names:
            return SourceError(f"The table's metadata is not there: {told}", source=self.url)
        if names.intersection(_UNAVAILABLE):
            told = told.partition("\n")[0] or "no answer in time"
            return SourceUnavailable(f"The catalog or its store failed: {told}", source=self.url)
        return SourceError(f"The table can't be read: {type(error).__name__}: {told}", source=self.url)


def _within(seconds: float, question: Callable[[], T]) -> T:
    """The answer to a question that may wait for ever: pyiceberg's REST client knows no time-out.

    Raises:
        TimeoutError: There is none in time. Its thread is left behind, and keeps no process alive.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(question())
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer.result(seconds)


def _object(entry: Any, location: str, snapshot: int) -> SourceObject:
    """A data file: its key below the table's location, or behind the bucket where it lies elsewhere."""
    path, below = entry.data_file.file_path, location.rstrip("/") + "/"
    key = path.removeprefix(below) if path.startswith(below) else _place(path)[2]
    pin = Pin("file", f"{entry.snapshot_id}:{path}", "strong")
    return SourceObject(key, entry.data_file.file_size_in_bytes, pin, state=str(snapshot))


def _place(path: str) -> tuple[str, str, str]:
    """Scheme, root and key of a file's path, which is not percent-encoded.

    >>> _place("s3://lake/flights/a%20b.parquet"), _place("/mnt/a.parquet")
    (('s3', 's3://lake/', 'flights/a%20b.parquet'), ('file', 'file:///', 'mnt/a.parquet'))
    """
    scheme, separator, rest = path.partition("://")
    if not separator:
        scheme, rest = "file", path.removeprefix("file:")
    bucket, _, key = rest.partition("/")
    return scheme, f"{scheme}://{bucket}/", key
