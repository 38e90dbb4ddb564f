"""The flow `sweep`: keep a node's cache true and small."""

from __future__ import annotations

from prefect import flow

from prefect_stagegate.cache.gc import Collection
from prefect_stagegate.operations.maintain import Verification
from prefect_stagegate.tasks.collect_garbage import collect_garbage
from prefect_stagegate.tasks.places import CacheLike, CatalogLike
from prefect_stagegate.tasks.verify_cache import verify_cache


@flow(name="stagegate-sweep")
def sweep(repair: bool = True, cache: CacheLike = None, catalog: CatalogLike = None) -> tuple[Collection, Verification]:
    """Remove what no ref, lease or pin needs, then hash all that is left again and mend it.

    When the volume is nearly full after the removal, `stagegate.cache.nearly_full` is emitted.

    Args:
        repair: Fetch what is damaged again from where it came.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.
    """
    collected = collect_garbage(cache=cache, catalog=catalog)
    return collected, verify_cache(repair=repair, cache=cache, catalog=catalog)
