"""An object as a listing describes it, and the protocol of listers other than obstore."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class ListedObject:
    """One object of a listing."""

    key: str
    size: int
    etag: str
    """Without quotes; empty when the store names none."""
    modified: float
    """Seconds since the epoch."""
    version: str = ""
    """The version id or generation, where every listing of the store has it."""
    checksums: tuple[tuple[str, str], ...] = ()
    """Checksums of the bytes: (`md5` | `sha256` | …, lowercase hex)."""


class Lister(Protocol):
    """Lists a bucket by other means than obstore, whatever its keys are."""

    @property
    def tells_versions(self) -> bool:
        """Whether it lists each object's version, which pins better than an etag: such a lister is used first."""

    def listing(self, prefix: str, after: str = "") -> Iterator[ListedObject]:
        """Every object below `prefix` that comes after the key `after`, without the empty objects that mark folders.

        Raises:
            OSError: The bucket can't be listed.
        """


def listing_after(after: str, listing: Iterable[ListedObject]) -> Iterator[ListedObject]:
    """The part of a whole listing that comes after the key `after`; all of it when `after` is empty.

    The keys may come in any order, if two listings have the same one.

    Raises:
        OSError: The key is not there.
    """
    remaining = iter(listing)
    if after and not any(listed_object.key.rstrip("/") == after for listed_object in remaining):
        # With the words by which `explain` knows a broken connection: another try may succeed.
        raise OSError("the listing changed while it was read: error sending request")
    for listed_object in remaining:
        if listed_object.size or not listed_object.key.endswith("/"):
            yield listed_object
