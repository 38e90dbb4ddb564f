"""What the formats of tables have in common: files that never change, which the table's own records list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prefect_stagegate.errors import ObjectChanged, ObjectVanished
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.base import Source
from prefect_stagegate.sources.buckets.bucket import BucketSource
from prefect_stagegate.units import count_text

LOOKED_UP = 4096
"""Files whose state in the store is remembered, so that the parts of one are read from one state."""


def lying(store: Source, key: str, listed: SourceObject, *, url: str, records: str, hint: str) -> SourceObject:
    """A file of a table as it lies in its store.

    Args:
        store: Where it lies.
        key: Its key there.
        listed: The file as the table lists it.
        url: The table's.
        records: What lists the table's files: its log, its snapshot.
        hint: Why the format may have removed it, and what to do then.

    Raises:
        ObjectVanished: It is gone.
        ObjectChanged: It has another size.
    """
    try:
        found = store.find(key)
    except ObjectVanished as error:
        told = f"The table's {records} lists the file, but it is gone"
        raise ObjectVanished(told, hint=hint, source=url, object=listed.key) from error
    if found.size != listed.size:
        raise ObjectChanged(
            f"The file has {count_text(found.size, 'byte')}, and the table's {records} says {listed.size:,}",
            hint="Something that knows nothing of the table wrote over it.",
            source=url,
            object=listed.key,
        )
    return found


def read_into(
    store: Source, key: str, listed: SourceObject, start: int, buffer: memoryview, look: Callable[[], SourceObject]
) -> None:
    """Fill a buffer with a range of a table's file.

    What one request brings is of one state by itself, and its response tells the size: so a bucket need not be asked
    for the file's pin before.

    Args:
        store: Where it lies.
        key: Its key there.
        listed: The file as the table lists it.
        start: Where the range begins.
        buffer: As long as the range.
        look: Finds the file in its store, as `lying` does.
    """
    if not isinstance(store, BucketSource) or not 0 == start < len(buffer) == listed.size:
        store.read_into(look(), start, buffer)
        return
    try:
        store.read_into(replace(listed, key=key), start, buffer)
    except (ObjectChanged, ObjectVanished):
        look()  # says more
        raise


def confirm(store: Source, look: Callable[[], SourceObject]) -> None:
    """Ask the store whether a table's file is as it was found; not a bucket, whose every read is compared."""
    if not isinstance(store, BucketSource):
        store.confirm(look())
