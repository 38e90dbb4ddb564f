"""Apache Iceberg: the data files of one snapshot of a table, as they are, or without the rows that are deleted.

Only the catalog, metadata and manifests are read through `pyiceberg`, by the user's own configuration of the catalog;
the files are read as any others of the store they lie in. Iceberg never changes a file, so its path and the snapshot
that added it pin it, whatever snapshot lists it. A data file of which files of positions mark rows as deleted is
re-written without them; its pin names those files too.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from functools import lru_cache, partial
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from prefect_stagegate.errors import (
    AccessDenied,
    CredentialsExpired,
    ObjectVanished,
    SourceError,
    SourceUnavailable,
    StagegateError,
    UsageError,
)
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.redaction import remember_access
from prefect_stagegate.sources.base import BaseSource, Source, Wanted, everything, public_url
from prefect_stagegate.sources.extras import missing_extra
from prefect_stagegate.sources.lake.locations import Locations
from prefect_stagegate.sources.lake.rewriting import (
    REWRITTEN,
    Pinned,
    Rewritten,
    Task,
    marked_paths,
    rewrite,
    task,
    unmarked,
)
from prefect_stagegate.sources.lake.table_format import LOOKED_UP, confirm, lying, read_into
from prefect_stagegate.sources.spooled_file import Sink
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.spec.permitted import ICEBERG, ICEBERG_CATALOGS, Kind

POSITIONS = 1
"""Iceberg's number for files that delete rows by position."""
EVERYWHERE: tuple[int, Any] = (-1, ())
"""The scope of a delete file without a partition."""
PATH_ID = 2147483546
"""Its number of the column `file_path` of such files."""
STORE = {
    "s3.endpoint": "endpoint_url",
    "s3.access-key-id": "key",
    "s3.secret-access-key": "secret",
    "s3.session-token": "token",
    "s3.region": "region",
    "s3.anonymous": "anon",
}
"""What a catalog says of its store, by Iceberg's names, and the option of ours that says the same."""
TOKENS = ("auth", "credential", "header.", "token")
"""How the properties begin that a REST catalog is sent as they are."""
CATALOG_SECONDS = 60.0
"""How long a catalog may take to tell of a table."""

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
        terms: Where re-written files are kept, and what is remembered of them.

    Raises:
        MissingExtra: pyiceberg is not installed.
        UsageError: The URL names no table.
    """

    def __init__(
        self, url: str, options: Mapping[str, Any], store: Callable[[str, Mapping[str, Any]], Source], terms: Terms
    ) -> None:
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
        properties: dict[str, Any] = {**_of_the_same_servers(configured, options), **_given(options, url)}
        self._properties, self._allowed = properties, terms.allowed
        listed = options.get("locations") or ()
        self._listed = (listed,) if isinstance(listed, str) else tuple(map(str, listed))
        self._locations = self._confined()
        self.server = public_url(str(properties.get("uri", "")))
        self.identity = f"{self.server} iceberg://{self._catalog}/{self._name}".strip()
        remember_access(str(properties.get("uri", "")), properties)
        self._store = store
        self._rewritten = Rewritten(terms, url=url, identity=self.identity)
        self._opened: dict[str, Source] = {}
        self._store_options: dict[str, str] = {}
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._lying = lru_cache(LOOKED_UP)(self._look)

    def credential_life(self) -> CredentialLife:
        """Say that nobody can tell: the catalog may hand out credentials of its own."""
        return CredentialLife("unknown", "what the Iceberg catalog is opened with")

    def close(self) -> None:
        """Close the stores that were read from, and free what was re-written."""
        self._rewritten.close()
        for source in self._opened.values():
            source.close()

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted data file of the snapshot, a manifest at a time.

        One of whose rows some are deleted is re-written without them, unless it is remembered how large that is.

        Raises:
            SourceError: There is no such table or snapshot, or rows are deleted in a way that is not read here.
        """
        table = self._table()
        for one, made in self._planned(table, self._snapshot(table), wanted):
            yield self._rewritten.sized(one, made) if made else one

    def find(self, key: str) -> SourceObject:
        """The data file, if the snapshot that the URL names has it, or the newest now."""
        found = next(self.list(lambda one: one == key), None)
        if found is None:
            raise ObjectVanished("The table no longer has the file", source=self.url, object=key)
        return found

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """The bytes, from the store, or as they were re-written."""
        if listed.pin.kind == REWRITTEN:
            self._rewritten.read_into(listed, start, buffer, partial(self._tasks, listed.state))
        else:
            source, key = self._place_of(listed)
            read_into(source, key, listed, start, buffer, lambda: self._lying(listed)[1])

    def confirm(self, listed: SourceObject) -> None:
        """Ask the store. What a file was re-written from was confirmed then."""
        if listed.pin.kind != REWRITTEN:
            confirm(self._place_of(listed)[0], lambda: self._lying(listed)[1])

    def _planned(self, table: Any, snapshot: Any, wanted: Wanted) -> Iterator[tuple[SourceObject, Task | None]]:
        """The wanted data files of a snapshot; beside one of whose rows some are deleted, how it is re-written.

        Such an object has the size of the data file, not of what is made of it.
        """
        manifests = self._ask(partial(snapshot.manifests, table.io))
        deletes = self._deletes(table, [one for one in manifests if one.content])
        for manifest in manifests:
            for entry in () if manifest.content else self._entries(table, manifest):
                found = self._object(entry, table.location(), snapshot.snapshot_id)
                if not wanted(found.key):
                    continue
                file = entry.data_file
                if by := deletes.by_equality(entry):
                    raise self._rows_deleted("by equality deletes", by)
                marking = [
                    one for one in deletes.marks.get(file.file_path, ()) if one.sequence >= entry.sequence_number
                ]
                if marking and _format(file) != "PARQUET":
                    raise self._rows_deleted(f"from a file of {_format(file)}", file.file_path)
                yield found, self._without(found, marking) if marking else None

    def _deletes(self, table: Any, manifests: Iterable[Any]) -> _Deletes:
        found = _Deletes()
        for entry in chain.from_iterable(self._entries(table, one) for one in manifests):
            file = entry.data_file
            if int(file.content) != POSITIONS:
                found.equality[_scope(file)].append((entry.sequence_number, file.file_path))
                continue
            if _format(file) != "PARQUET":
                raise self._rows_deleted(f"by a file of {_format(file)}", file.file_path)
            marks = _Marks(entry.sequence_number, self._object(entry, table.location(), 0))
            only = _one_path(file)
            for path in {only} if only else self._ask(partial(marked_paths, self._pinned(marks.object))):
                found.marks[path].append(marks)
        return found

    def _entries(self, table: Any, manifest: Any) -> Iterable[Any]:
        found: Iterable[Any] = self._ask(partial(manifest.fetch_manifest_entry, table.io, discard_deleted=True))
        return found

    def _tasks(self, state: str) -> Iterator[Task]:
        """What is re-written of a snapshot, or of the one that the URL names when that is gone."""
        table = self._table(again=False)
        snapshot = table.snapshot_by_id(int(state)) if state.isdigit() else None
        planned = self._planned(table, snapshot or self._snapshot(table), everything)
        yield from (made for _, made in planned if made)

    def _without(self, data: SourceObject, marking: Iterable[_Marks]) -> Task:
        """How a data file is written without the rows that files of positions mark."""
        deletes = sorted((one.object for one in marking), key=lambda one: one.pin.value)
        path = data.pin.value.partition(":")[2]

        def make(sink: Sink) -> Iterator[None]:
            marks = [self._pinned(one) for one in deletes]
            yield from rewrite(self._pinned(data), partial(unmarked, marks, path), sink)

        return task(data, json.dumps([one.pin.value for one in deletes]).encode(), make)

    def _pinned(self, listed: SourceObject) -> Pinned:
        return Pinned(*self._lying(listed))

    def _confined(self) -> Locations:
        """The places of files, as they are known before the table is."""
        return Locations(self._listed, str(self._properties.get("warehouse", "")), url=self.url)

    def _object(self, entry: Any, location: str, snapshot: int) -> SourceObject:
        """A file that a manifest names, if it lies where it may."""
        self._locations.require(entry.data_file.file_path)
        return _object(entry, location, snapshot)

    def _look(self, listed: SourceObject) -> tuple[Source, SourceObject]:
        """The file in its store."""
        source, key = self._place_of(listed)
        hint = "Expiring snapshots removes the files of old ones: name a newer one, or a tag that keeps it."
        return source, lying(source, key, listed, url=self.url, records="snapshot", hint=hint)

    def _place_of(self, listed: SourceObject) -> tuple[Source, str]:
        """The store in which a file lies, and its key there."""
        self._table(again=False)  # which tells where files may lie, and how their store is opened
        path = listed.pin.value.partition(":")[2]
        self._locations.require(path)
        scheme, root, key = _place(path)
        return self._source(scheme, root), key

    def _source(self, scheme: str, root: str) -> Source:
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
                    self._loaded, self._locations = _within(CATALOG_SECONDS, self._load)
                except StagegateError:
                    raise
                except ValueError as error:
                    raise self._unusable(error) from error
                except Exception as error:
                    raise self._explained(error) from error
                given = self._loaded.io.properties
                remember_access("", given)
                self._store_options = {ours: given[name] for name, ours in STORE.items() if given.get(name)}
            return self._loaded

    def _load(self) -> tuple[Any, Locations]:
        from prefect_stagegate.sources.lake.iceberg_catalog import open_catalog

        locations = self._confined()
        table = open_catalog(self._catalog, self._properties, locations, self._allowed).load_table(self._name)
        locations.set_table(table.location())
        return table, locations

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

    def _rows_deleted(self, how: str, path: str) -> SourceError:
        return SourceError(
            f"Rows of the table are deleted {how} ({path}), which is not read here",
            hint="Write the table without them, by Spark: CALL catalog.system.rewrite_data_files(table => "
            f"'{self._name}', options => map('delete-file-threshold', '1')); or name a snapshot before them behind @.",
            source=self.url,
        )

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except StagegateError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    def _unusable(self, error: Exception) -> UsageError:
        told = str(error).partition("\n")[0]
        hint = (
            f"Describe the catalog {self._catalog!r} in ~/.pyiceberg.yaml, by PYICEBERG_CATALOG__…, or in `options:`."
        )
        return UsageError(f"The Iceberg catalog can't be opened: {told}", hint=hint, source=self.url)

    def _explained(self, error: Exception) -> StagegateError:
        """The typed error for what pyiceberg raised, by the names of its classes."""
        names, told = {kind.__name__ for kind in type(error).__mro__}, str(error)
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


class _Marks(NamedTuple):
    """A file of positions of deleted rows."""

    sequence: int
    """It is about data files that are no younger."""
    object: SourceObject


class _Deletes:
    """What deletes rows in a snapshot, apart from the data files."""

    def __init__(self) -> None:
        self.marks: defaultdict[str, list[_Marks]] = defaultdict(list)
        """The files of positions, by the paths of the data files whose rows they mark."""
        self.equality: defaultdict[tuple[int, Any], list[tuple[int, str]]] = defaultdict(list)
        """Sequence and path of files that delete rows by their values, by spec and partition."""

    def marking(self, entry: Any) -> list[_Marks]:
        """The files of positions that mark rows of a data file."""
        found = self.marks.get(entry.data_file.file_path, ())
        return [one for one in found if one.sequence >= entry.sequence_number]

    def by_equality(self, entry: Any) -> str:
        """A file that deletes rows of a data file by their values: of its partition or of none, and younger."""
        scopes = (_scope(entry.data_file), EVERYWHERE)
        found = chain.from_iterable(self.equality.get(scope, ()) for scope in scopes)
        return next((path for sequence, path in found if sequence > entry.sequence_number), "")


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


def _of_the_same_servers(configured: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's configuration, without the tokens where the spec names another server that they would be sent to.

    One that names no `uri` leaves that to the spec.
    """
    servers = [(name, options[name]) for name in ("uri", "oauth2-server-uri") if options.get(name)]
    same = all(str(configured.get(name, "")).rstrip("/") == str(value).rstrip("/") for name, value in servers)
    if same or not configured.get("uri"):
        return dict(configured)
    return {name: value for name, value in configured.items() if not name.startswith(TOKENS)}


def _given(options: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The options that are properties of pyiceberg's: without those that are ours, or change nothing.

    Raises:
        UsageError: The catalog's `uri` is of a kind that is not read, or says more than where it is.
    """
    if uri := str(options.get("uri") or ""):
        scheme, _, rest = uri.partition("://")
        if scheme.lower() not in ICEBERG_CATALOGS:
            hint = f"It begins with one of {', '.join(ICEBERG_CATALOGS)}; others stand in ~/.pyiceberg.yaml."
            raise UsageError(f"The catalog's `uri` begins with {scheme!r}", hint=hint, source=url)
        if "?" in rest and not scheme.lower().startswith("http"):
            hint = "Parameters of the connection stand in ~/.pyiceberg.yaml or in the environment."
            raise UsageError("The `uri` of a catalog's database has parameters", hint=hint, source=url)
    ours = {"locations", *ICEBERG.names(Kind.IGNORED)}
    kept = {name: value for name, value in options.items() if name not in ours}
    return {name: value if isinstance(value, Mapping) else str(value) for name, value in kept.items()}


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


def _format(file: Any) -> str:
    return str(getattr(file.file_format, "value", file.file_format)).upper()


def _scope(file: Any) -> tuple[int, Any]:
    """Which data files a delete file may be about: those of its spec and partition."""
    return (file.spec_id or 0, file.partition) if len(file.partition) else EVERYWHERE


def _one_path(file: Any) -> str:
    """The one data file that a file of positions is about, when the bounds of its paths tell; else empty."""
    lower, upper = ((bounds or {}).get(PATH_ID) for bounds in (file.lower_bounds, file.upper_bounds))
    return lower.decode(errors="replace") if lower and lower == upper else ""
