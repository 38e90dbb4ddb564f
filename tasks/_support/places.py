"""Open the cache and the catalog of a task: its parameters', or by default the settings'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.runtime import flow_run

from prefect_stagegate.blocks import StagegateCache, StagegateCatalog, options_of, storage_options
from prefect_stagegate.jobs.workspace import Workspace, open_workspace
from prefect_stagegate.tasks._support.slots import admit

CacheLike = StagegateCache | Path | str | None
"""A cache as a block or a folder; None means that of the settings."""
CatalogLike = StagegateCatalog | Path | str | None
"""A catalog as a block, a folder or a URL; None means that of the settings."""
SpecParameter = str | Path | dict[str, Any]
"""A spec as a flow's parameter, as JSON allows it: a path, a URL, a dictionary, or an address."""


def open_places(cache: CacheLike, catalog: CatalogLike) -> Workspace:
    """Open the cache and the catalog. Specs can name credentials blocks, and transfers take slots of limits.

    Raises:
        CacheError, CatalogError: One of them can't be opened.
    """
    block = catalog if isinstance(catalog, StagegateCatalog) else None
    return open_workspace(
        cache.path if isinstance(cache, StagegateCache) else cache,
        catalog.url if isinstance(catalog, StagegateCatalog) else catalog,
        catalog_options=options_of(block) if block else None,
        resolve_credentials=storage_options,
        admit=admit,
        flow_run=str(flow_run.id or ""),
    )
