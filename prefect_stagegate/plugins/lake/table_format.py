"""The part that table formats share: files that never change, which the table's own records list."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial

from prefect_stagegate.errors import ObjectChanged, ObjectVanished
from prefect_stagegate.model import SourceObject
from prefect_stagegate.plugins.lake.rewriting import REWRITTEN, PinnedFile, RewrittenFiles, Task
from prefect_stagegate.sources.adapter import BaseSource, Source, Wanted, everything
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.sources.terms import Terms
from prefect_stagegate.units import count_text

REMEMBERED_STATS = 4096
"""Files whose state in the store is remembered, so that all parts of one file are read from one state."""


class TableSource(BaseSource):
    """The data files that a table's records list. A file with deleted rows is re-written without them."""

    records: str
    """The noun for what lists the table's files: its log, its snapshot."""
    gone_hint: str
    """Why the format may have removed a file, and what to do then."""

    def __init__(self, url: str, identity: str, terms: Terms) -> None:
        self.url, self.identity = url, identity
        self._rewritten = RewrittenFiles(terms, url=url, identity=identity)
        self._stat = lru_cache(REMEMBERED_STATS)(self._stat_in_store)

    @abstractmethod
    def _data_files(self, wanted: Wanted) -> Iterator[tuple[SourceObject, Task | None]]:
        """The wanted data files in the state that the URL names, and the task that re-writes one with deleted rows.

        Raises:
            SourceError: There is no such table or state, or rows are deleted in a way that is not supported.
        """

    @abstractmethod
    def _tasks(self, state: str) -> Iterator[Task]:
        """The tasks of a state. When the table no longer has that state, those of the state that the URL names."""

    @abstractmethod
    def _place_of(self, listed: SourceObject) -> tuple[Source, str]:
        """The store that holds a file, and the file's key in it."""

    def list(self, wanted: Wanted = everything) -> Iterator[SourceObject]:
        """Every wanted data file of the state that the URL names.

        A file with deleted rows is re-written without them, unless the size of the result is known.

        Raises:
            SourceError: There is no such table or state, or rows are deleted in a way that is not supported.
        """
        for data, task in self._data_files(wanted):
            yield self._rewritten.sized(data, task) if task else data

    def find(self, key: str) -> SourceObject:
        """The data file in the state that the URL names, else in the newest now."""
        listed = next(self.list(lambda candidate: candidate == key), None)
        if listed is None:
            raise ObjectVanished("The table no longer has the file", source=self.url, object=key)
        return listed

    def read_into(self, listed: SourceObject, start: int, buffer: memoryview) -> None:
        """Read the bytes from the store, or from the re-written file.

        A single request for the whole file needs no lookup in a bucket: its bytes are of one state, and the response
        tells the size.
        """
        if listed.pin.kind == REWRITTEN:
            self._rewritten.read_into(listed, start, buffer, partial(self._tasks, listed.state))
            return
        store, key = self._place_of(listed)
        # Parts must share one state of the file, and only a bucket names a state in each read: else look it up.
        if not isinstance(store, BucketSource) or not 0 == start < len(buffer) == listed.size:
            store.read_into(self._stat(listed), start, buffer)
            return
        try:
            store.read_into(replace(listed, key=key), start, buffer)
        except (ObjectChanged, ObjectVanished):
            self._stat(listed)  # raises the error that names the table's records
            raise

    def confirm(self, listed: SourceObject) -> None:
        """Let the store confirm the file. A bucket need not: it compares every read.

        The original of a re-written file was confirmed when it was re-written.
        """
        if listed.pin.kind == REWRITTEN:
            return
        store, _ = self._place_of(listed)
        if not isinstance(store, BucketSource):
            store.confirm(self._stat(listed))

    def close(self) -> None:
        """Free the re-written files."""
        self._rewritten.close()

    def _pinned(self, listed: SourceObject) -> PinnedFile:
        """The file in its store, pinned there."""
        return PinnedFile(self._place_of(listed)[0], self._stat(listed))

    def _stat_in_store(self, listed: SourceObject) -> SourceObject:
        """Look the file up in its store.

        Raises:
            ObjectVanished: The file is gone.
            ObjectChanged: It has another size than the table lists.
        """
        store, key = self._place_of(listed)
        try:
            stored = store.find(key)
        except ObjectVanished as error:
            message = f"The file is gone, but the table's {self.records} still lists it"
            raise ObjectVanished(message, hint=self.gone_hint, source=self.url, object=listed.key) from error
        if stored.size != listed.size:
            raise ObjectChanged(
                f"The file has {count_text(stored.size, 'byte')}, and the table's {self.records} says {listed.size:,}",
                hint="A program that doesn't know the table has overwritten it.",
                source=self.url,
                object=listed.key,
            )
        return stored
