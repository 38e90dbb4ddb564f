"""Which objects a spec takes from a source, and their paths in the dataset: filters, samples, limits and renames.

    key ── wants ──▶ object ── takes ──▶ taken ── limited ──▶ listed
                                                   path ──▶ its place in the dataset

Each path has a rank: the first 16 hexadecimal digits of its SHA-256 (`printf %s PATH | sha256sum`). A sample takes all
paths whose rank is below its share of 2**64, so it holds always the same objects, in whatever order they are listed,
and a larger sample holds all of a smaller one. A limit takes the smallest ranks.

Pure: the caller passes the time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from heapq import nsmallest

from prefect_stagegate.errors import SourceError
from prefect_stagegate.model import SourceObject
from prefect_stagegate.model.objects import dataset_path
from prefect_stagegate.patterns import Expression
from prefect_stagegate.sources.adapter import Wanted, everything
from prefect_stagegate.sources.selection.globs import GlobFilter
from prefect_stagegate.spec import SourceSpec

BITS = 64


class Selection:
    """The filters, sample, limit and renames of one source of a spec.

    Ages are counted from `now`, an aware time.
    """

    def __init__(self, spec: SourceSpec, now: datetime) -> None:
        self._spec = spec
        is_filtered = spec.include or spec.exclude or spec.partitions
        self.wants: Wanted = GlobFilter(spec.include, spec.exclude, spec.partitions) if is_filtered else everything
        """Whether a key alone permits its object."""
        self._after = _seconds(spec.newer_than, now)
        self._before = _seconds(spec.older_than, now)
        self._renames = [(Expression(rename.pattern), rename.to) for rename in spec.rename]

    def takes(self, listed: SourceObject) -> bool:
        """Whether a wanted object passes by its size, its age and its path's rank; the `limit` comes after this.

        Raises:
            SourceError: The spec has a condition on ages, and the source tells no time for the object.
        """
        spec = self._spec
        # A negative size is no small one: the plan refuses it by name.
        if 0 <= listed.size < (spec.min_size or 0) or (spec.max_size is not None and listed.size > spec.max_size):
            return False
        return self._in_time(listed) and (spec.sample is None or sampled(self.path(listed.key), spec.sample))

    def taken(self, listed: Iterable[SourceObject]) -> Iterator[SourceObject]:
        """The objects taken from a listing. With a `limit`, the first comes after the listing ends."""
        objects = filter(self.takes, listed)
        if self._spec.limit is None:
            return objects
        # Only `limit` objects are in memory, however long the listing is.
        return iter(nsmallest(self._spec.limit, objects, key=self._order))

    def path(self, key: str) -> str:
        """An object's path in the dataset: by the first rename that matches its key, else the key."""
        # The first pattern that matches renames; the others are not tried.
        for pattern, to in self._renames:
            if (renamed := pattern.rewrite(key, to)) is not None:
                return dataset_path(self._spec.into, renamed)
        return dataset_path(self._spec.into, key)

    def _order(self, listed: SourceObject) -> tuple[int, str]:
        path = self.path(listed.key)
        return rank(path), path

    def _in_time(self, listed: SourceObject) -> bool:
        if self._after is None and self._before is None:
            return True
        if listed.modified is None:
            raise SourceError(
                f"The source doesn't tell when {listed.key!r} changed",
                hint="Leave out `newer_than:` and `older_than:` here.",
                source=self._spec.url,
                object=listed.key,
            )
        after = self._after is None or listed.modified > self._after
        return after and (self._before is None or listed.modified < self._before)


def rank(path: str) -> int:
    """A number from 0 to 2**64 - 1, spread evenly over paths and the same on every machine.

    >>> f"{rank('flights/2013-01.parquet'):016x}"
    '6f02d76f3f8139e5'
    """
    return int.from_bytes(hashlib.sha256(path.encode("utf-8", "surrogateescape")).digest()[: BITS // 8])


def sampled(path: str, share: Fraction) -> bool:
    """Whether a path is in the sample."""
    # In whole numbers: a float would round, and another release could take another sample.
    return rank(path) * share.denominator < share.numerator << BITS


def _seconds(moment: timedelta | datetime | None, now: datetime) -> float | None:
    """A time, or an age counted back from now, in seconds since the epoch."""
    if moment is None:
        return None
    return (now - moment if isinstance(moment, timedelta) else moment).timestamp()
