"""Delta Lake: the data files of one version of a table, without deleted rows.

`deltalake` reads only the table's log and deletion vectors. The data files are read as any others of their store. Delta
never changes a file, so its path and the time when it was added pin it, in whatever version it is listed. A data file
with a deletion vector is re-written without the rows that the vector marks, and its pin depends on them, too.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from prefect_stagegate.errors import ObjectVanished, SourceError, StagegateError, UsageError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.plugins.lake.locations import is_below
from prefect_stagegate.plugins.lake.log_relay import LogRelay
from prefect_stagegate.plugins.lake.rewriting import Task, plan_rewrite, rewrite
from prefect_stagegate.plugins.lake.table_format import TableSource
from prefect_stagegate.sources.adapter import Source, Wanted, everything
from prefect_stagegate.sources.buckets.s3_source import S3Source
from prefect_stagegate.sources.local.local_source import FileSource, local_path
from prefect_stagegate.sources.spooled_file import Sink
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.transport.objectstore import translate

if TYPE_CHECKING:
    import pyarrow as pa

_STEP = re.compile(r"\x1b\[[0-9;]*m|[↳\s]+")


def table_of(url: str) -> tuple[str, str]:
    """Split a URL into the table's own URL and its version or time; the latter is empty when there is none.

    >>> table_of("delta+s3://lake/flights@12"), table_of("delta+s3://lake/flights@2026-01-31T08:00:00Z")
    (('s3://lake/flights/', '12'), ('s3://lake/flights/', '2026-01-31T08:00:00Z'))
    >>> table_of("delta+file:///mnt/me@nas/flights/")
    ('file:///mnt/me@nas/flights/', '')
    """
    table = url.partition("+")[2].rstrip("/")
    before, at, state = table.rpartition("@")
    if at and "/" not in state and (state.isdigit() or _time(state)):
        return before.rstrip("/") + "/", state
    return table + "/", ""


class DeltaSource(TableSource):
    """The data files of a Delta table: of the version or time in the URL, else of the newest at each listing.

    Args:
        url: `delta+s3://bucket/table`, optionally with `@12` or `@2026-01-31T08:00:00Z` behind it.
        options: Those of S3, for the table's folder.
        terms: Those of the folder's source; the folder for re-written files, and their known sizes.

    Raises:
        UsageError: An option is one that only s3fs knows.
    """

    records = "log"
    gone_hint = (
        "VACUUM removes the files of old versions: name a newer one, or keep old files for longer by the table's "
        "delta.deletedFileRetentionDuration."
    )

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        import deltalake

        table, self._at = table_of(url)
        settings, unknown = translate(options)
        if unknown:
            raise UsageError(f"The option {unknown[0]!r} can't be used for a table", hint="Leave it out.", source=url)
        local = table.startswith("file:")
        self._files: Source = FileSource(table, terms=terms) if local else S3Source(table, settings, terms)
        super().__init__(url, self._files.identity, terms)
        self._place = str(local_path(table)) if local else table
        self._relay: LogRelay | None = None
        self._library, self.endpoint = deltalake, getattr(self._files, "endpoint", "")
        self._lock = threading.Lock()

    def credential_life(self) -> CredentialLife:
        """The life of the store's credentials."""
        return self._files.credential_life()

    def close(self) -> None:
        """Close the store, and free the re-written files."""
        super().close()
        self._files.close()
        if self._relay:
            self._end_relay()

    def _data_files(self, wanted: Wanted) -> Iterator[tuple[SourceObject, Task | None]]:
        """The wanted data files of the version. deltalake holds their list in memory."""
        return self._planned(self._table(self._at), wanted)

    def _place_of(self, listed: SourceObject) -> tuple[Source, str]:
        """The table's folder, and the file's key in it."""
        return self._files, listed.key

    def _planned(self, table: Any, wanted: Wanted) -> Iterator[tuple[SourceObject, Task | None]]:
        """The wanted data files, and beside each one with deleted rows the task that re-writes it."""
        # Vectors are by the keys of data files, so all are read before the first file.
        vectors = self._vectors(table)
        for data in self._files_of(table):
            if wanted(data.key):
                yield data, self._rewrite_task(data, vectors[data.key]) if data.key in vectors else None

    def _tasks(self, version: str) -> Iterator[Task]:
        """The tasks of a version, or of the one that the URL names when that is gone."""
        try:
            table = self._table(version)
        except SourceError:
            table = self._table(self._at)
        yield from (task for _, task in self._planned(table, everything) if task)

    def _rewrite_task(self, data: SourceObject, vector: pa.BooleanArray) -> Task:
        """The task that writes a data file without the rows that its deletion vector marks."""

        def make(sink: Sink) -> Iterator[None]:
            # A vector may be shorter than its file: the rows behind its end are kept.
            yield from rewrite(self._pinned(data), lambda rows: _bytes(vector).ljust(rows, b"\x01"), sink)

        # Without the kept rows at its end, which a writer may leave out: the same rows have the same pin.
        return plan_rewrite(data, bytes(_bytes(vector)).rstrip(b"\x01"), make)

    def _table(self, at: str) -> Any:
        """The table in a version or at a time; in its newest version where `at` is empty."""
        # A new object for each state: `load_as_version` changes the table in place.
        with self._lock:
            if isinstance(self._files, S3Source) and self._relay is None:
                self._relay = LogRelay(self._files)
                # Also where nobody closes this source: its thread would serve on.
                self._end_relay = weakref.finalize(self, self._relay.close)
            try:
                options = self._relay.options if self._relay else {}
                table = self._library.DeltaTable(self._place, storage_options=options)
                if at:
                    table.load_as_version(int(at) if at.isdigit() else _time(at) or at)
            except Exception as error:
                raise self._explained(error) from error
        # deltalake refuses a version that doesn't exist, but not a time before the first.
        if at and not at.isdigit():
            self._require_begun(table)
        return table

    def _require_begun(self, table: Any) -> None:
        """Refuse a time before the table's first version: deltalake would return that version."""
        wanted = _time(self._at)
        # Of the version that was loaded: it is younger than the wanted time only where none was older. Not by
        # `table.history`, which keeps the interpreter's lock while it waits for the relay.
        try:
            commit = self._files.find(f"_delta_log/{table.version():020}.json")
        except ObjectVanished:
            return  # the log was cleaned since
        if wanted and commit.modified is not None and wanted.timestamp() < commit.modified:
            began = datetime.fromtimestamp(commit.modified, UTC).isoformat(timespec="seconds")
            raise SourceError(
                f"The table has no version as old as {self._at}",
                hint=f"Its oldest version is of {began}.",
                source=self.url,
            )

    def _files_of(self, table: Any) -> Iterator[SourceObject]:
        """The data files of a version. The log percent-encodes their paths once more than the store does."""
        import pyarrow as pa

        try:
            actions = pa.table(table.get_add_actions()).select(["path", "size_bytes", "modification_time"])
        except Exception as error:
            raise self._explained(error) from error
        state = str(table.version())
        # In batches, so that few rows are Python objects at a time.
        for batch in actions.to_batches(max_chunksize=4096):
            for path, size, modified in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                key = unquote(path)
                if key.startswith("/") or "://" in key or not is_below(f"{self._place}/{key}", self._place):
                    raise SourceError(
                        f"The file {path} lies outside of the table's folder",
                        hint="A shallow clone can't be staged: name the table that it was cloned from.",
                        source=self.url,
                        object=path,
                    )
                yield SourceObject(key, size, Pin("file", f"{key}@{modified}", "strong"), modified / 1000, state=state)

    def _vectors(self, table: Any) -> dict[str, pa.BooleanArray]:
        """The deletion vectors by the keys of their files. A vector has a bit for each row: whether the row is kept."""
        # Few tables have any, and the protocol tells without a read.
        if "deletionVectors" not in (table.protocol().reader_features or ()):
            return {}
        import pyarrow as pa

        root, vectors = unquote(table.table_uri), {}
        try:
            for batch in map(pa.record_batch, table.deletion_vectors()):
                for name, vector in zip(batch["filepath"], batch["selection_vector"], strict=True):
                    vectors[unquote(name.as_py()).removeprefix(root)] = vector.values
        except Exception as error:
            raise self._explained(error) from error
        return vectors

    def _explained(self, error: Exception) -> StagegateError:
        """The typed error for deltalake's exception: that of the request which failed, else by its class and text."""
        if self._relay and self._relay.failure:
            return self._relay.failure
        # deltalake colours its chain of causes for a terminal.
        text = _STEP.sub(" ", str(error)).strip()
        kind = type(error).__name__
        if kind == "TableNotFoundError" or "No files in log segment" in text or "not a Delta table" in text:
            hint = "Use the URL of the folder above _delta_log; behind @ stands a version's number or a time."
            return SourceError("There is no Delta table at this address", hint=hint, source=self.url)
        if "LogSegment end version" in text or "Invalid table version" in text:
            hint = "The log may have been cleaned since, or the version is not written yet."
            return SourceError(f"The table has no version {self._at}", hint=hint, source=self.url)
        return SourceError(f"The table's log can't be read: {text}", source=self.url)


def _bytes(vector: pa.BooleanArray) -> bytearray:
    """A byte for each bit."""
    return bytearray(vector.cast("uint8").buffers()[1].to_pybytes()[: len(vector)])


def _time(text: str) -> datetime | None:
    """The time in a text, in UTC where it names no zone; None when the text is no time."""
    with suppress(ValueError):
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    return None
