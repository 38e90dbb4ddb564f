"""What a listing tells of an object, and other ways to list than obstore's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing."""

    key: str
    size: int
    etag: str
    """Without quotes; empty when the store names none."""
    modified: float
    """Seconds since the epoch."""
    version: str = ""
    """The version id or generation, where each listing tells it."""
    checksums: tuple[tuple[str, str], ...] = ()
    """What the listing offers to check the bytes by: (`md5` | `sha256` | …, lowercase hex)."""


class Lister(Protocol):
    """Lists a bucket by other means than obstore, whatever its keys are."""

    @property
    def tells_versions(self) -> bool:
        """Whether it tells each object's version, which pins better than an etag: then it is asked first."""

    def listing(self, prefix: str, after: str = "") -> Iterator[Listed]:
        """Every object below `prefix` that comes after the key `after`; empty objects that stand for folders left out.

        Raises:
            OSError: The bucket can't be listed.
        """


def behind(after: str, found: Iterable[Listed]) -> Iterator[Listed]:
    """What comes after the key `after` in a listing that can only begin at its beginning; all of it when that is empty.

    No order of the keys is relied on, only that two listings agree in theirs.

    Raises:
        OSError: The key is not there.
    """
    remaining = iter(found)
    if after and not any(one.key.rstrip("/") == after for one in remaining):
        raise OSError("the listing changed while it was read: error sending request")
    for one in remaining:
        if one.size or not one.key.endswith("/"):
            yield one
