"""This node as metrics: the room of its cache, what lies in it, and what its jobs counted. Asks no catalog."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from typing import Any

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.layout import Layout, explained
from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import SpaceRules, content_folders, folder_bytes, measure
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.plugins.observe.monitoring import families
from prefect_stagegate.plugins.observe.monitoring.families import (
    BUCKET,
    BUCKETS,
    FAMILIES,
    SUM,
    Durations,
    MetricKind,
    Sample,
)
from prefect_stagegate.unreadable import UnreadableRecords

FRESH_SECONDS = 60.0
"""Seconds for which the size of a folder of blobs is not measured again."""
BUDGET_SECONDS = 0.5
"""Seconds that one scrape measures, at most, and one folder more. Further folders are measured by the next scrapes."""
_SIZES = "sizes of the cache's folders"
"""The note of the cache's memory with the size of each folder, and when it was measured."""


def node_samples(cache: Cache, settings: Settings) -> Iterator[Sample | Durations]:
    """The metrics of this node.

    Raises:
        CacheError: The cache can't be read.
    """
    with explained("look at the cache", cache.root):
        versions = Counter(dataset for dataset, _ in cache.views.all())
        rotten = sum(1 for _ in Quarantine(cache.layout).files())
        leases = Counter(lease.kind for lease in cache.leases.live(UnreadableRecords()))
        yield from _space(cache, settings)
    yield from (Sample(families.CACHE_VERSIONS, (dataset,), count) for dataset, count in versions.items())
    yield Sample(families.CACHE_QUARANTINED, (), rotten)
    yield from (Sample(families.CACHE_LEASES, (kind.value,), leases[kind]) for kind in LeaseKind)
    yield from _counted(cache)


def _space(cache: Cache, settings: Settings) -> Iterator[Sample]:
    sizes = _noted_sizes(cache)
    space = measure(cache.layout, SpaceRules(settings.free_floor))
    used = _used(cache.layout, sizes, time.monotonic() + BUDGET_SECONDS)
    cache.memory.note(_SIZES, json.dumps(sizes))
    yield Sample(families.VOLUME_FREE, (), space.free)
    yield Sample(families.CACHE_RESERVED, (), space.reserved)
    if used is not None:
        yield Sample(families.CACHE_USED, (), used)
    if settings.max_size is not None:
        yield Sample(families.CACHE_LIMIT, (), settings.max_size)
    # With a limit, the room is unknown until the whole volume has been measured once.
    if used is not None or settings.max_size is None:
        yield Sample(families.CACHE_ROOM, (), max(0, replace(space, used=used, limit=settings.max_size).bytes))


def _used(layout: Layout, sizes: dict[str, tuple[float, int]], until: float) -> int | None:
    """Bytes of the volume that the cache takes; None until each folder has been measured once.

    There may be millions of blobs. So each scrape measures the folders whose size is oldest, until `until`.

    Args:
        layout: The volume's.
        sizes: When each folder was measured, and its bytes; brought up to date.
        until: By the monotonic clock.
    """
    folders = {str(folder): folder for folder in content_folders(layout)}
    for name in sorted(folders, key=lambda name: sizes.get(name, (0.0, 0))[0]):
        at, _ = sizes.get(name, (0.0, 0))
        # A time ahead of the clock, which was set back, would count as fresh for long.
        if 0 <= time.time() - at < FRESH_SECONDS:
            break
        with suppress(FileNotFoundError):
            sizes[name] = (time.time(), folder_bytes(layout, folders[name]))
        if time.monotonic() > until:
            break
    for name in sizes.keys() - folders.keys():
        del sizes[name]  # the folder is gone
    measured = [sizes[name][1] for name in folders if name in sizes]
    return sum(measured) if len(measured) == len(folders) else None


def _noted_sizes(cache: Cache) -> dict[str, tuple[float, int]]:
    with suppress(
        ValueError, TypeError, AttributeError, RecursionError
    ):  # whoever shares the cache may have written anything
        noted = json.loads(cache.memory.noted(_SIZES) or "{}")
        return {str(name): (float(at), int(size)) for name, (at, size) in noted.items()}
    return {}


def _counted(cache: Cache) -> Iterator[Sample | Durations]:
    """What jobs counted on this node. Rows of no known metric, which another release may have written, are left out."""
    buckets: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    sums: dict[tuple[str, tuple[str, ...]], float] = {}
    for name, text, value in cache.memory.counted():
        labels = _labels(text)
        if labels is None or not _is_count(value):
            continue
        if name in FAMILIES and FAMILIES[name].kind is MetricKind.COUNTER:
            yield Sample(FAMILIES[name], labels, value)
        elif name.endswith(SUM):
            sums[name.removesuffix(SUM), labels] = value
        elif name.endswith(BUCKET) and labels and labels[-1].isdecimal() and int(labels[-1]) <= len(BUCKETS):
            counts = buckets.setdefault((name.removesuffix(BUCKET), labels[:-1]), [0.0] * (len(BUCKETS) + 1))
            counts[int(labels[-1])] += value
    for (name, labels), counts in buckets.items():
        if name in FAMILIES and FAMILIES[name].kind is MetricKind.HISTOGRAM:
            yield Durations(FAMILIES[name], labels, tuple(accumulate(counts)), sums.get((name, labels), 0.0))


def _labels(text: Any) -> tuple[str, ...] | None:
    with suppress(ValueError, TypeError, RecursionError):
        labels = json.loads(text)
        if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
            return tuple(labels)
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0
