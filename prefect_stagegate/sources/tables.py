"""What the formats of tables have in common: files that never change, which the table's own records list."""

from __future__ import annotations

from prefect_stagegate.errors import ObjectChanged, ObjectVanished
from prefect_stagegate.model import SourceObject
from prefect_stagegate.sources.base import Source

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
            f"The file has {found.size} bytes, and the table's {records} says {listed.size}",
            hint="Something that knows nothing of the table wrote over it.",
            source=url,
            object=listed.key,
        )
    return found
