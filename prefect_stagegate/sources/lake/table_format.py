"""The part that table formats share: files that never change, which the table's own records list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prefect_stagegate.errors import ObjectChanged, ObjectVanished
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.base import Source
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.units import count_text

REMEMBERED_STATS = 4096
"""Files whose state in the store is remembered, so that all parts of one file are read from one state."""


def stat(store: Source, key: str, listed: SourceObject, *, url: str, records: str, hint: str) -> SourceObject:
    """Look up a table's file in its store.

    Args:
        store: The store that holds it.
        key: Its key in the store.
        listed: The file as the table lists it.
        url: The table's.
        records: The noun for what lists the table's files: its log, its snapshot.
        hint: Why the format may have removed it, and what to do then.

    Raises:
        ObjectVanished: The file is gone.
        ObjectChanged: It has another size than the table lists.
    """
    try:
        stored = store.find(key)
    except ObjectVanished as error:
        message = f"The table's {records} lists the file, but it is gone"
        raise ObjectVanished(message, hint=hint, source=url, object=listed.key) from error
    if stored.size != listed.size:
        raise ObjectChanged(
            f"The file has {count_text(stored.size, 'byte')}, and the table's {records} says {listed.size:,}",
            hint="Something that knows nothing of the table wrote over it.",
            source=url,
            object=listed.key,
        )
    return stored


def read_into(
    store: Source, key: str, listed: SourceObject, start: int, buffer: memoryview, lookup: Callable[[], SourceObject]
) -> None:
    """Fill a buffer with a range of a table's file.

    A single request for the whole file needs no lookup in a bucket: its bytes are of one state, and the response tells
    the size.

    Args:
        store: The store that holds the file.
        key: Its key in the store.
        listed: The file as the table lists it.
        start: Where the range begins.
        buffer: As long as the range.
        lookup: Looks the file up in its store, by `stat`.
    """
    if not isinstance(store, BucketSource) or not 0 == start < len(buffer) == listed.size:
        store.read_into(lookup(), start, buffer)
        return
    try:
        store.read_into(replace(listed, key=key), start, buffer)
    except (ObjectChanged, ObjectVanished):
        lookup()  # raises the error that names the table's records
        raise


def confirm(store: Source, lookup: Callable[[], SourceObject]) -> None:
    """Let the store confirm a table's file. A bucket need not: it compares every read."""
    if not isinstance(store, BucketSource):
        store.confirm(lookup())
