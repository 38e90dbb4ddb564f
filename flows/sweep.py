"""The flow `sweep`: keep a node's cache intact and small."""

from __future__ import annotations

from prefect import flow

from prefect_stagegate.cache.gc import Collection
from prefect_stagegate.jobs.upkeep.verify import Verification
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike
from prefect_stagegate.tasks.collect_garbage import collect_garbage
from prefect_stagegate.tasks.verify_cache import verify_cache


@flow(name="stagegate-sweep")
def sweep(
    repair: bool = True,
    share: str | None = None,
    lasting: str | None = None,
    rate: str | None = None,
    cache: CacheLike = None,
    catalog: CatalogLike = None,
) -> tuple[Collection, Verification]:
    """Remove what no ref, lease or pin needs, then hash the files that are left again and repair damaged ones.

    When the volume is nearly full after the removal, the flow emits `stagegate.cache.nearly_full`.

    Args:
        repair: Fetch damaged objects again from their sources.
        share: Hash only this share of all files, `1/7` or `15%`; the next run goes on there.
        lasting: Hash only for this time, `1h`; the next run goes on there.
        rate: Bytes to read per second, `200MB/s`; by default STAGEGATE_VERIFY_RATE.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    # Remove first, so that nothing is hashed that is not needed.
    collected = collect_garbage(cache=cache, catalog=catalog)
    verified = verify_cache(repair=repair, share=share, lasting=lasting, rate=rate, cache=cache, catalog=catalog)
    return collected, verified
