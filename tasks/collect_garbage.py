"""`collect_garbage`: remove from this node what nothing needs."""

from __future__ import annotations

from prefect_stagegate.cache.gc import Collection
from prefect_stagegate.jobs.upkeep import maintain
from prefect_stagegate.tasks._support.notify import run_log, watched_room
from prefect_stagegate.tasks._support.running import CacheLike, CatalogLike, async_twin, engine_task, open_places
from prefect_stagegate.units import bytes_text, count_text


@engine_task(lambda parameters: "look for garbage" if parameters["dry_run"] else "collect garbage")
def collect_garbage(*, dry_run: bool = False, cache: CacheLike = None, catalog: CatalogLike = None) -> Collection:
    """Remove from this node's cache what no ref, lease or pin needs. The catalog keeps everything.

    When the volume is nearly full afterwards, the task emits `stagegate.cache.nearly_full`.

    Args:
        dry_run: Only return what would be removed.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        CacheError: The cache can't be changed safely.
    """
    workspace = open_places(cache, catalog)
    with watched_room(workspace):
        collection = maintain.collect_garbage(workspace, dry_run=dry_run)
    log = run_log()
    for name in collection.versions:
        log.debug("%s", name)
    for record in collection.unreadable:
        log.warning("unreadable, so the versions that it may name stay: %s", record)
    verb = "would go" if dry_run else "gone"
    removed = f"{count_text(len(collection.versions), 'version')} and {count_text(collection.blobs, 'blob')}"
    log.info("%s %s, %s", removed, verb, bytes_text(collection.bytes))
    return collection


acollect_garbage = async_twin(collect_garbage)
