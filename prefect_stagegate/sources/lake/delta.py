"""Delta Lake: the data files of one version of a table, as they are, or without the rows that are deleted.

Only the table's log and deletion vectors are read through `deltalake`; the files are read as any others of the store
they lie in. Delta never changes a file, so its path and the time when it was added pin it, whatever version lists it. A
data file with a deletion vector is re-written without the rows that this marks, and pinned by them too.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from prefect_stagegate.errors import ObjectVanished, SourceError, StagegateError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.objectstore import explain
from prefect_stagegate.sources.base import BaseSource, Source, Wanted, everything
from prefect_stagegate.sources.extras import missing_extra
from prefect_stagegate.sources.lake.locations import is_below
from prefect_stagegate.sources.lake.rewriting import REWRITTEN, Pinned, Rewritten, Task, rewrite, task
from prefect_stagegate.sources.lake.table_format import LOOKED_UP, confirm, lying, read_into
from prefect_stagegate.sources.local.files import local_path
from prefect_stagegate.sources.spooled_file import Sink
from prefect_stagegate.sources.terms import Terms

if TYPE_CHECKING:
    import pyarrow as pa

_STEP = re.compile(r"\x1b\[[0-9;]*m|[↳\s]+")


def table_of(url: str) -> tuple[str, str]:
    """Take the table's URL and its version or time apart; the latter is empty when the URL names none.

    >>> table_of("delta+s3://lake/flights@12"), table_of("delta+s3://lake/flights@2026-01-31T08:00:00Z")
    (('s3://lake/flights/', '12'), ('s3://lake/flights/', '2026-01-31T08:00:00Z'))
    >>> table_of("delta+file:///mnt/me@nas/flights/")
    ('file:///mnt/me@nas/flights/', '')
    """
    table = url.partition("+")[2].rstrip("/")
    before, at, state = table.rpartition("@")
    if at and "/" not in state and (state.isdigit() or _moment(state)):
        return before.rstrip("/") + "/", state
    return table + "/", ""


class DeltaSource(BaseSource):
    """The data files of a Delta table: of the version or time that the URL names, else of the newest at each listing.

    Args:
        url: `delta+s3://bucket/table`, with `@12` or `@2026-01-31T08:00:00Z` behind it or not.
        files: The table's folder as a source of files.
        options: How deltalake opens the store.
        terms: Where re-written files are kept, and what is remembered of them.

    Raises:
        MissingExtra: deltalake is not installed.
    """

    def __init__(self, url: str, files: Source, options: Mapping[str, str], terms: Terms) -> None:
        try:
            import deltalake
        except ImportError as error:
            raise missing_extra("delta", source=url) from error
        self.url = url
        self.identity = files.identity
        table, self._at = table_of(url)
        self._place = str(local_path(table)) if table.startswith("file:") else table
        self._library, self._options = deltalake, dict(options)
        self._files = files
        self._rewritten = Rewritten(terms, url=url, identity=self.identity)
        self._lock = threading.Lock()
        self._lying = lru_cache(LOOKED_UP)(self._look)

    def credential_life(self) -> CredentialLife:
        """That of the store's credentials."""
        return self._files.credential_life()

    def close(self) -> None:
        """Close the store, and free what was re-written."""
        self._rewritten.close()
        self._files.close()

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted data file of the version; deltalake holds its list in memory.

        One of whose rows some are deleted is re-written without them, unless it is remembered how large that is.

        Raises:
            SourceError: There is no such table or version.
        """
        for one, made in self._planned(self._table(self._at), wanted):
            yield self._rewritten.sized(one, made) if made else one

    def find(self, key: str) -> SourceObject:
        """The data file, if the version that the URL names has it, or the newest now."""
        found = next(self.list(lambda one: one == key), None)
        if found is None:
            raise ObjectVanished("The table no longer has the file", source=self.url, object=key)
        return found

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """The bytes, from the store, or as they were re-written."""
        if listed.pin.kind == REWRITTEN:
            self._rewritten.read_into(listed, start, buffer, partial(self._tasks, listed.state))
        else:
            read_into(self._files, listed.key, listed, start, buffer, partial(self._lying, listed))

    def confirm(self, listed: SourceObject) -> None:
        """Ask the store. What a file was re-written from was confirmed then."""
        if listed.pin.kind != REWRITTEN:
            confirm(self._files, partial(self._lying, listed))

    def _planned(self, table: Any, wanted: Wanted) -> Iterator[tuple[SourceObject, Task | None]]:
        """The wanted data files; beside one of whose rows some are deleted, how it is re-written."""
        vectors = self._vectors(table)
        for one in self._of(table):
            if wanted(one.key):
                yield one, self._without(one, vectors[one.key]) if one.key in vectors else None

    def _tasks(self, version: str) -> Iterator[Task]:
        """What is re-written of a version, or of the one that the URL names when that is gone."""
        try:
            table = self._table(version)
        except SourceError:
            table = self._table(self._at)
        yield from (made for _, made in self._planned(table, everything) if made)

    def _without(self, data: SourceObject, vector: pa.BooleanArray) -> Task:
        """How a data file is written without the rows that its deletion vector marks."""

        def make(sink: Sink) -> Iterator[None]:
            # Rows behind the vector's end are kept.
            listed = self._lying(data)
            yield from rewrite(Pinned(self._files, listed), lambda rows: _bytes(vector).ljust(rows, b"\x01"), sink)

        return task(data, bytes(_bytes(vector)).rstrip(b"\x01"), make)

    def _look(self, listed: SourceObject) -> SourceObject:
        """The file in the store."""
        hint = (
            "VACUUM removes the files of old versions: name a newer one, or keep old files for longer by the table's "
            "delta.deletedFileRetentionDuration."
        )
        return lying(self._files, listed.key, listed, url=self.url, records="log", hint=hint)

    def _table(self, at: str) -> Any:
        """The table in a version or at a time, or in the newest."""
        with self._lock:
            try:
                table = self._library.DeltaTable(self._place, storage_options=self._options)
                if at:
                    table.load_as_version(int(at) if at.isdigit() else _moment(at) or at)
            except Exception as error:
                raise self._explained(error) from error
        if at and not at.isdigit():
            self._require_begun(table)
        return table

    def _require_begun(self, table: Any) -> None:
        """Refuse a time before the table's first version, for which deltalake gives that version."""
        wanted = _moment(self._at)
        stamp = next((commit.get("timestamp") for commit in table.history(1)), None)
        if wanted and stamp and wanted.timestamp() * 1000 < stamp:
            began = datetime.fromtimestamp(stamp / 1000, UTC).isoformat(timespec="seconds")
            raise SourceError(
                f"The table has no version as old as {self._at}", hint=f"Its oldest is of {began}.", source=self.url
            )

    def _of(self, table: Any) -> Iterator[SourceObject]:
        """The files of a version. Their paths are percent-encoded in the log, once more than in the store."""
        import pyarrow as pa

        try:
            actions = pa.table(table.get_add_actions()).select(["path", "size_bytes", "modification_time"])
        except Exception as error:
            raise self._explained(error) from error
        state = str(table.version())
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
        """The deletion vectors by the keys of their files, a bit for each row: whether it is kept."""
        if "deletionVectors" not in (table.protocol().reader_features or ()):
            return {}
        import pyarrow as pa

        root, found = unquote(table.table_uri), {}
        try:
            for batch in map(pa.record_batch, table.deletion_vectors()):
                for name, vector in zip(batch["filepath"], batch["selection_vector"], strict=True):
                    found[unquote(name.as_py()).removeprefix(root)] = vector.values
        except Exception as error:
            raise self._explained(error) from error
        return found

    def _explained(self, error: Exception) -> StagegateError:
        """The typed error for what deltalake raised: by its class, else by the store's answer in its text."""
        text = _STEP.sub(" ", str(error)).strip()
        kind = type(error).__name__
        if kind == "TableNotFoundError" or "No files in log segment" in text or "not a Delta table" in text:
            hint = "The URL names the folder above _delta_log; @ takes a version's number or a time."
            return SourceError("There is no Delta table at this address", hint=hint, source=self.url)
        if "LogSegment end version" in text or "Invalid table version" in text:
            hint = "It may be cleaned from the log, or not be written yet."
            return SourceError(f"The table has no version {self._at}", hint=hint, source=self.url)
        explained = explain(error, source=self.url, endpoint=self.identity.partition(" ")[0])
        if type(explained) is SourceError and kind != "OSError":
            return SourceError(f"The table's log can't be read: {text}", source=self.url)
        return explained


def _bytes(vector: pa.BooleanArray) -> bytearray:
    """A byte for each bit."""
    return bytearray(vector.cast("uint8").buffers()[1].to_pybytes()[: len(vector)])


def _moment(text: str) -> datetime | None:
    """The time that a text names, in UTC where it names no zone; None when it names none."""
    with suppress(ValueError):
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None
