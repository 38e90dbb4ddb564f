"""`publish_version`, the last small step: make a version of the transferred objects."""

from __future__ import annotations

from collections.abc import Iterable

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.model import Receipt, Receipts, Version
from prefect_stagegate.operations.address import SpecLike, read_spec
from prefect_stagegate.operations.staging import stage
from prefect_stagegate.tasks._support.failed import show_failed
from prefect_stagegate.tasks._support.notify import announce_version
from prefect_stagegate.tasks._support.places import CacheLike, CatalogLike, open_places
from prefect_stagegate.tasks._support.running import engine_task, short_name


@engine_task(lambda parameters: f"publish {short_name(parameters['spec'])}")
def publish_version(
    spec: SpecLike, receipts: Iterable[Receipt], *, cache: CacheLike = None, catalog: CatalogLike = None
) -> Version:
    """Make a version of the received objects: its view, its records in the catalog, and the ref `latest`.

    Args:
        spec: A path, URL, dictionary, or a loaded spec.
        receipts: The result of `transfer` for the same spec, which also has the objects that failed. Receipts that a
            flow put together itself all count as staged.
        cache: The node's cache; by default the settings'.
        catalog: The shared catalog; by default the settings'.

    Raises:
        UsageError: There are no objects, or a file's path is also a folder's.
        TransferFailed: Every object failed.
        CacheError, CatalogError: The view or a record can't be written; every ref stays.
    """
    loaded, workspace = read_spec(spec), open_places(cache, catalog)
    with (
        # The lease keeps the new view from being collected until `latest` names it.
        workspace.cache.leases.hold(LeaseKind.WRITER, loaded.dataset, purpose="publish"),
        workspace.cache.views.draft() as draft,
    ):
        failures = receipts.failures if isinstance(receipts, Receipts) else ()
        version = stage.publish_version(workspace, loaded, receipts, draft, failures=failures)
    show_failed(version.dataset, version.failed, digest=version.digest)
    announce_version(version, loaded)
    return version
