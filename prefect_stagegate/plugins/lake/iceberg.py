"""Apache Iceberg: the data files of one snapshot of a table, without deleted rows.

`pyiceberg` reads only the catalog, metadata and manifests, by the user's own configuration of the catalog. The data
files are read as any others of their store. Iceberg never changes a file, so its path and the snapshot that added it
pin it, in whatever snapshot it is listed. A data file whose rows position delete files mark is re-written without these
rows; its pin depends on those files, too.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

from prefect_stagegate.doors import Kind
from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    SourceError,
    SourceUnavailable,
    StagegateError,
    UsageError,
)
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.plugins.lake import ICEBERG, ICEBERG_CATALOGS
from prefect_stagegate.plugins.lake.locations import Locations
from prefect_stagegate.plugins.lake.rewriting import Task, marked_paths, plan_rewrite, rewrite, unmarked
from prefect_stagegate.plugins.lake.table_format import TableSource
from prefect_stagegate.redaction import remember_access
from prefect_stagegate.sources.adapter import Source, Wanted, everything, public_url
from prefect_stagegate.sources.opening import open_source
from prefect_stagegate.sources.spooled_file import Sink
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.sources.wrappers.timeout import call_with_timeout

POSITIONS = 1
"""Iceberg's number for position delete files."""
EVERYWHERE: tuple[int, Any] = (-1, ())
"""The scope of a delete file without a partition."""
PATH_ID = 2147483546
"""Iceberg's id of the column `file_path` in position delete files."""
STORE = {
    "s3.endpoint": "endpoint_url",
    "s3.access-key-id": "key",
    "s3.secret-access-key": "secret",
    "s3.session-token": "token",
    "s3.region": "region",
    "s3.anonymous": "anon",
}
"""A catalog's properties of its store, and our options of the same meaning."""
TOKENS = ("auth", "credential", "header.", "token")
"""Beginnings of the properties whose values a REST catalog gets in requests."""
CATALOG_SECONDS = 60.0
"""Most seconds for loading a table from its catalog."""

_ABSENT = ("NoSuchTableError", "NoSuchNamespaceError", "NoSuchIdentifierError", "NoSuchIcebergTableError")
_REFUSED = ("ForbiddenError", "UnauthorizedError", "PermissionError", "SignError")
_UNAVAILABLE = ("ConnectionError", "Timeout", "ServerError", "ServiceUnavailableError", "OperationalError", "OSError")


class IcebergSource(TableSource):
    """The data files of an Iceberg table: of the snapshot, branch or tag in the URL, else of the main branch.

    Args:
        url: `iceberg://catalog/namespace.table`, optionally with `@` and a snapshot's id, a branch or a tag behind it.
        options: The catalog's properties by pyiceberg's names. They override its configuration file and environment.
        terms: The folder for re-written files, their known sizes, and permitted hosts.

    Raises:
        UsageError: The URL names no table.
    """

    records = "snapshot"
    gone_hint = "Expiring snapshots removes the files of old ones: name a newer one, or a tag that keeps it."

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        from pyiceberg.utils.config import Config

        self.url = url
        self._catalog, _, table = url.partition("://")[2].rstrip("/").partition("/")
        self._name, _, self._ref = table.partition("@")
        if not self._catalog or "." not in self._name:
            raise UsageError(f"{url} names no table", hint="It looks like iceberg://catalog/namespace.table.")
        # The spec's options override the user's configuration, but get none of its secrets for another server.
        configured: Mapping[str, Any] = Config().get_catalog_config(self._catalog) or {}
        properties: dict[str, Any] = {**_for_same_servers(configured, options), **_properties(options, url)}
        self._properties, self._allowed = properties, terms.allowed
        folders = options.get("locations") or ()
        self._listed_folders = (folders,) if isinstance(folders, str) else tuple(map(str, folders))
        self._locations = self._initial_locations()
        self.endpoint = public_url(str(properties.get("uri", "")))
        super().__init__(url, f"{self.endpoint} iceberg://{self._catalog}/{self._name}".strip(), terms)
        remember_access(str(properties.get("uri", "")), properties)
        self._open_store = partial(open_source, idle=terms.idle, allowed=terms.allowed)
        self._stores: dict[str, Source] = {}
        self._store_options: dict[str, str] = {}
        self._lock = threading.Lock()
        self._loaded: Any = None

    def credential_life(self) -> CredentialLife:
        """Unknown: the catalog may hand out credentials of its own."""
        return CredentialLife("unknown", "the credential of the Iceberg catalog")

    def close(self) -> None:
        """Close the stores, and free the re-written files."""
        super().close()
        for source in self._stores.values():
            source.close()

    def _data_files(self, wanted: Wanted) -> Iterator[tuple[SourceObject, Task | None]]:
        """The wanted data files of the snapshot, a manifest at a time."""
        table = self._table()
        return self._planned(table, self._snapshot(table), wanted)

    def _planned(self, table: Any, snapshot: Any, wanted: Wanted) -> Iterator[tuple[SourceObject, Task | None]]:
        """The wanted data files of a snapshot, and beside each one with deleted rows the task that re-writes it.

        The objects have the sizes of the data files, also where they are re-written.
        """
        manifests = self._call(partial(snapshot.manifests, table.io))
        # All delete files come first: any of them may be about any data file.
        deletes = self._deletes(table, [manifest for manifest in manifests if manifest.content])
        for manifest in manifests:
            for entry in () if manifest.content else self._entries(table, manifest):
                data = self._object(entry, table.location(), snapshot.snapshot_id)
                if not wanted(data.key):
                    continue
                file = entry.data_file
                if path := deletes.by_equality(entry):
                    raise self._rows_deleted("by equality deletes", path)
                marks = deletes.by_position(entry)
                if marks and _format(file) != "PARQUET":
                    raise self._rows_deleted(f"from a file of {_format(file)}", file.file_path)
                yield data, self._rewrite_task(data, marks) if marks else None

    def _deletes(self, table: Any, manifests: Iterable[Any]) -> _Deletes:
        deletes = _Deletes()
        for entry in chain.from_iterable(self._entries(table, manifest) for manifest in manifests):
            file = entry.data_file
            if int(file.content) != POSITIONS:
                deletes.equality[_scope(file)].append((entry.sequence_number, file.file_path))
                continue
            # As Puffin's deletion vectors, and files in Avro or ORC.
            if _format(file) != "PARQUET":
                raise self._rows_deleted(f"by a file of {_format(file)}", file.file_path)
            marks = _Marks(entry.sequence_number, self._object(entry, table.location(), 0))
            # Its paths need not be read where the manifest's bounds say that it is about one data file.
            only = _only_path(file)
            for path in {only} if only else self._call(partial(marked_paths, self._pinned(marks.object))):
                deletes.marks[path].append(marks)
        return deletes

    def _entries(self, table: Any, manifest: Any) -> Iterable[Any]:
        entries: Iterable[Any] = self._call(partial(manifest.fetch_manifest_entry, table.io, discard_deleted=True))
        return entries

    def _tasks(self, state: str) -> Iterator[Task]:
        """The tasks of a snapshot, or of the one that the URL names when that is gone."""
        table = self._table(reload=False)
        snapshot = table.snapshot_by_id(int(state)) if state.isdigit() else None
        planned = self._planned(table, snapshot or self._snapshot(table), everything)
        yield from (task for _, task in planned if task)

    def _rewrite_task(self, data: SourceObject, marks: Iterable[_Marks]) -> Task:
        """The task that writes a data file without the rows that position delete files mark."""
        # Sorted, so that the pin does not depend on the order of manifests.
        deletes = sorted((mark.object for mark in marks), key=lambda delete: delete.pin.value)
        path = data.pin.value.partition(":")[2]

        def make(sink: Sink) -> Iterator[None]:
            files = [self._pinned(delete) for delete in deletes]
            yield from rewrite(self._pinned(data), partial(unmarked, files, path), sink)

        return plan_rewrite(data, json.dumps([delete.pin.value for delete in deletes]).encode(), make)

    def _initial_locations(self) -> Locations:
        """Where files may lie, as far as it is known before the table is loaded."""
        return Locations(self._listed_folders, str(self._properties.get("warehouse", "")), url=self.url)

    def _object(self, entry: Any, location: str, snapshot: int) -> SourceObject:
        """The object of a manifest's entry, if its file lies in a permitted place."""
        self._locations.require(entry.data_file.file_path)
        return _object(entry, location, snapshot)

    def _place_of(self, listed: SourceObject) -> tuple[Source, str]:
        """The store that holds a file, and the file's key in it."""
        self._table(reload=False)  # sets where files may lie, and the options of their store
        path = listed.pin.value.partition(":")[2]
        self._locations.require(path)
        scheme, root, key = _place(path)
        return self._source(scheme, root), key

    def _source(self, scheme: str, root: str) -> Source:
        with self._lock:
            # Under the lock, so that a store is opened once.
            if root not in self._stores:
                # The catalog's credentials are for its S3 store; other stores use the user's own.
                options = self._store_options if scheme in ("s3", "s3a", "s3n") else {}
                self._stores[root] = self._open_store(root, options)
            return self._stores[root]

    def _table(self, *, reload: bool = True) -> Any:
        """The table as it is now; with `reload=False` as it was last loaded."""
        with self._lock:
            if self._loaded is None or reload:
                try:
                    # pyiceberg's REST client has no time-out of its own.
                    self._loaded, self._locations = call_with_timeout(self._load, CATALOG_SECONDS)
                except StagegateError:
                    raise
                except ValueError as error:
                    raise self._unusable(error) from error
                except Exception as error:
                    raise self._explained(error) from error
                properties = self._loaded.io.properties
                remember_access("", properties)  # the catalog may have handed out secrets: the redaction must know them
                self._store_options = {ours: properties[name] for name, ours in STORE.items() if properties.get(name)}
            return self._loaded

    def _load(self) -> tuple[Any, Locations]:
        from prefect_stagegate.plugins.lake.iceberg_catalog import open_catalog

        locations = self._initial_locations()
        # Metadata files are read while the table's own folder is unknown: `locations` learns it afterwards.
        table = open_catalog(self._catalog, self._properties, locations, self._allowed).load_table(self._name)
        locations.set_table(table.location())
        return table, locations

    def _snapshot(self, table: Any) -> Any:
        """The snapshot to be listed. pyiceberg's scan of an expired one would be empty, without an error."""
        refs = table.refs()
        if not self._ref:
            snapshot = table.current_snapshot()
        elif self._ref in refs:
            snapshot = table.snapshot_by_id(refs[self._ref].snapshot_id)
        else:
            snapshot = table.snapshot_by_id(int(self._ref)) if self._ref.isdigit() else None
        if snapshot is None:
            problem = (
                f"no snapshot, branch or tag {self._ref}" if self._ref else "no snapshot: nothing was written to it"
            )
            known = ", ".join(sorted(refs)) or "none"
            hint = f"It may have expired. Branches and tags of the table: {known}."
            raise SourceError(f"The table has {problem}", hint=hint, source=self.url)
        return snapshot

    def _rows_deleted(self, how: str, path: str) -> SourceError:
        return SourceError(
            f"Rows of the table are deleted {how} ({path}), which is not supported",
            hint="Rewrite the table without them, by Spark: CALL catalog.system.rewrite_data_files(table => "
            f"'{self._name}', options => map('delete-file-threshold', '1')); or name an earlier snapshot behind @.",
            source=self.url,
        )

    def _call(self, function: Callable[[], Any]) -> Any:
        """Call a function of pyiceberg, and translate its exceptions."""
        try:
            return function()
        except StagegateError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    def _unusable(self, error: Exception) -> UsageError:
        message = str(error).partition("\n")[0]
        hint = (
            f"Describe the catalog {self._catalog!r} in ~/.pyiceberg.yaml, by PYICEBERG_CATALOG__…, or in `options:`."
        )
        return UsageError(f"The Iceberg catalog can't be opened: {message}", hint=hint, source=self.url)

    def _explained(self, error: Exception) -> StagegateError:
        """The typed error for pyiceberg's exception, by the names of its classes."""
        names, text = {kind.__name__ for kind in type(error).__mro__}, str(error)
        if names.intersection(_ABSENT):
            return SourceError("The catalog has no such table", hint="Check namespace and name.", source=self.url)
        if "AuthorizationExpiredError" in names or "ExpiredToken" in text:
            return CredentialsExpired("The credentials have expired", hint="Log in again.", source=self.url)
        if names.intersection(_REFUSED) or "ACCESS_DENIED" in text or "SignatureDoesNotMatch" in text:
            hint = "Check the catalog's credentials, and those of its store (s3.access-key-id, s3.secret-access-key)."
            return AccessDenied("Access is denied", hint=hint, source=self.url)
        if "FileNotFoundError" in names:
            return SourceError(f"The table's metadata file is missing: {text}", source=self.url)
        if names.intersection(_UNAVAILABLE):
            text = text.partition("\n")[0] or type(error).__name__
            return SourceUnavailable(f"The catalog or its store failed: {text}", source=self.url)
        return SourceError(f"The table can't be read: {type(error).__name__}: {text}", source=self.url)


class _Marks(NamedTuple):
    """A position delete file."""

    sequence: int
    """It marks rows only of data files with this sequence number or a lower one."""
    object: SourceObject


class _Deletes:
    """The delete files of a snapshot."""

    def __init__(self) -> None:
        self.marks: defaultdict[str, list[_Marks]] = defaultdict(list)
        """Position delete files, by the paths of the data files whose rows they mark."""
        self.equality: defaultdict[tuple[int, Any], list[tuple[int, str]]] = defaultdict(list)
        """Sequence number and path of equality delete files, by spec and partition."""

    def by_position(self, entry: Any) -> list[_Marks]:
        """The position delete files that mark rows of a data file."""
        marks = self.marks.get(entry.data_file.file_path, ())
        return [mark for mark in marks if mark.sequence >= entry.sequence_number]

    def by_equality(self, entry: Any) -> str:
        """The path of an equality delete file for a data file: of its partition or of none, and younger; else empty."""
        scopes = (_scope(entry.data_file), EVERYWHERE)
        deletes = chain.from_iterable(self.equality.get(scope, ()) for scope in scopes)
        return next((path for sequence, path in deletes if sequence > entry.sequence_number), "")


def _for_same_servers(configured: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's configuration, without its tokens where the spec would send them to another server.

    A configuration without `uri` is meant for whatever server the spec names.
    """
    servers = [(name, options[name]) for name in ("uri", "oauth2-server-uri") if options.get(name)]
    same = all(str(configured.get(name, "")).rstrip("/") == str(value).rstrip("/") for name, value in servers)
    if same or not configured.get("uri"):
        return dict(configured)
    return {name: value for name, value in configured.items() if not name.startswith(TOKENS)}


def _properties(options: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The options that are pyiceberg's properties, without our own options and ignored ones.

    Raises:
        UsageError: The catalog's `uri` has another scheme than the permitted ones, or parameters.
    """
    if uri := str(options.get("uri") or ""):
        scheme, _, rest = uri.partition("://")
        if scheme.lower() not in ICEBERG_CATALOGS:
            hint = f"Use one of {', '.join(ICEBERG_CATALOGS)}; describe other catalogs in ~/.pyiceberg.yaml."
            raise UsageError(f"The catalog's `uri` begins with {scheme!r}", hint=hint, source=url)
        # A database's parameters may name files and libraries, as `sslkey` does.
        if "?" in rest and not scheme.lower().startswith("http"):
            hint = "Set the connection's parameters in ~/.pyiceberg.yaml or in the environment."
            raise UsageError("The `uri` of a catalog's database has parameters", hint=hint, source=url)
    kept = [name for name in options if name != "locations" and ICEBERG.kind(name) is not Kind.IGNORED]
    return {name: value if isinstance(value := options[name], Mapping) else str(value) for name in kept}


def _object(entry: Any, location: str, snapshot: int) -> SourceObject:
    """A data file's object. Its key is relative to the table's location, or to the bucket of a file elsewhere."""
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


def _format(file: Any) -> str:
    return str(getattr(file.file_format, "value", file.file_format)).upper()


def _scope(file: Any) -> tuple[int, Any]:
    """The spec and partition of a file: a delete file is about data files of the same."""
    return (file.spec_id or 0, file.partition) if len(file.partition) else EVERYWHERE


def _only_path(file: Any) -> str:
    """The path of the only data file that a position delete file is about, if its column bounds tell; else empty."""
    lower, upper = ((bounds or {}).get(PATH_ID) for bounds in (file.lower_bounds, file.upper_bounds))
    return lower.decode(errors="replace") if lower and lower == upper else ""
