"""PostgreSQL tables and queries as Parquet files.

A SQL result has no size and no bytes before it is rendered. So each object is rendered once, when it is listed, into a
spool on disk, and is read from there. Its pin is the SHA-256 of its bytes, which is strong. The price is that every
listing runs the queries: SQL has no cheap way to tell that a result would be the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from prefect_stagegate.errors import ObjectChanged, ObjectVanished, SourceError
from prefect_stagegate.model import CredentialLife, Pin, SourceObject
from prefect_stagegate.plugins.sql.relation import Partition, Relation
from prefect_stagegate.plugins.sql.request import connection_uri, read_request
from prefect_stagegate.plugins.sql.session import Session
from prefect_stagegate.sources.adapter import BaseSource, Wanted, everything
from prefect_stagegate.sources.spooled_file import WRITER, Sink, Spool, SpooledRange
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.transport.http import require_allowed

CLOSING_SECONDS = 5.0


class _Snapshot:
    """A session, the relation that it reads, and the partitions in its state of the database."""

    def __init__(self, session: Session, relation: Relation) -> None:
        self.session, self.relation = session, relation
        self.partitions = {partition.key: partition for partition in relation.partitions()}


class SqlSource(BaseSource):
    """One table or query: one object, or one for each partition.

    All objects of one listing are of one snapshot of the database. Memory holds one batch of rows.

    Args:
        url: `postgresql://host/db#schema.table`.
        options: Those of `SqlRequest`, and the login.
        terms: Its idle time, permitted hosts and folder for rendered objects apply.

    Raises:
        UsageError: The URL or an option can't be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any], terms: Terms) -> None:
        self._request = read_request(url, options)
        self.url, self.identity = self._request.url, self._request.identity
        self._uri = connection_uri(url, options, idle=terms.idle)
        for host in urlsplit(url).netloc.rpartition("@")[2].split(","):  # libpq's URLs may name several
            require_allowed(host, terms.allowed)
        self._has_password = bool(options.get("password"))
        self._scratch = terms.scratch
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._snapshot: _Snapshot | None = None
        self._spool: Spool | None = None
        self._rendered: dict[str, tuple[SourceObject, SpooledRange]] = {}
        self._closed = False

    def credential_life(self) -> CredentialLife:
        """A password lasts until somebody changes it. libpq does not tell which other credentials it found."""
        if self._has_password:
            return CredentialLife("static", "a password")
        return CredentialLife("unknown", "what libpq finds: PGPASSWORD, ~/.pgpass, a service file, a certificate")

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted partition, rendered as it is listed. All are of one snapshot, which ends with the listing."""
        with self._lock:
            # A listing sees the database as it is now, so nothing of the last one is kept.
            self._end_snapshot()
            self._rendered.clear()
            keys = list(self._opened().partitions)
        for key in filter(wanted, keys):
            yield self._object(key)[0]
        with self._lock:
            self._end_snapshot()

    def find(self, key: str) -> SourceObject:
        """The object as the last listing saw it; as it is now, if it was not listed."""
        return self._object(key)[0]

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Read the bytes from the spool. An object that this source has not rendered yet is rendered now."""
        rendered, place = self._object(listed.key)
        if rendered.pin != listed.pin:
            raise ObjectChanged("The query's rows changed since they were listed", source=self.url, object=listed.key)
        assert self._spool is not None  # noqa: S101 - `_object` has rendered into it
        try:
            self._spool.read_into(place, start, buffer)
        except OSError as error:
            raise SourceError(f"The spool can't be read: {error}", source=self.url, object=listed.key) from error

    def close(self) -> None:
        """Cancel the running statement, and free connection and spool."""
        self._closed = True
        # Without the lock, which the thread that runs the statement holds.
        if session := self._session:
            session.cancel()
        if not self._lock.acquire(timeout=CLOSING_SECONDS):
            return  # another thread waits for a silent server; the spool goes with the process
        try:
            self._end_snapshot()
            if self._spool:
                self._spool.close()
                self._spool = None
        finally:
            self._lock.release()

    def _object(self, key: str) -> tuple[SourceObject, SpooledRange]:
        """An object and its place in the spool, rendered at first use."""
        # Without the lock, so that a read need not wait while another thread renders the next object.
        if rendered := self._rendered.get(key):
            return rendered
        with self._lock:
            if self._closed:
                raise SourceError("The source is closed", source=self.url, object=key)
            if key not in self._rendered:
                snapshot = self._opened()
                if key not in snapshot.partitions:
                    raise ObjectVanished("The object is gone", source=self.url, object=key)
                self._rendered[key] = self._render(snapshot, snapshot.partitions[key])
            return self._rendered[key]

    def _opened(self) -> _Snapshot:
        """The open snapshot, or a new one."""
        if self._snapshot is None:
            request = self._request
            self._session = Session(self._uri, url=self.url, statement_timeout=request.statement_timeout)
            with self._ending_on_failure():
                self._snapshot = _Snapshot(self._session, Relation(self._session, request))
        return self._snapshot

    @contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        """End the snapshot when the block fails: PostgreSQL refuses further statements in a failed transaction."""
        try:
            yield
        except BaseException:
            self._end_snapshot()
            raise

    def _end_snapshot(self) -> None:
        if self._session:
            self._session.close()
        self._session = self._snapshot = None

    def _render(self, snapshot: _Snapshot, partition: Partition) -> tuple[SourceObject, SpooledRange]:
        with self._ending_on_failure():
            try:
                self._spool = self._spool or Spool(self._scratch)
                with self._spool.object() as sink:
                    self._write(snapshot, partition, sink)
            except OSError as error:
                folder = self._spool.folder if self._spool else self._scratch
                hint = "Free space on its volume, or divide the query by `partition_by:` and `include:`."
                raise SourceError(
                    f"The result can't be stored in {folder}: {error}", hint=hint, source=self.url
                ) from error
            except SourceError as error:
                error.object = error.object or partition.key
                raise
        place = sink.slice()
        return SourceObject(partition.key, place.size, Pin("sha256", place.sha256, "strong")), place

    def _write(self, snapshot: _Snapshot, partition: Partition, sink: Sink) -> None:
        """Write one row group per batch. The bytes of the rows end a batch, so the same rows give the same groups."""
        columns = snapshot.relation.columns
        with pq.ParquetWriter(sink, columns.schema, **WRITER) as writer:
            for batch in snapshot.session.batches(snapshot.relation.statement(partition)):
                if self._closed:
                    raise SourceError("The source is closed", source=self.url)
                writer.write_batch(columns.converted(batch), row_group_size=max(1, batch.num_rows))
