"""Opening what a job works on: this node's cache and the shared catalog, as the settings say."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect_stagegate.cache import Cache
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.model import Identity
from prefect_stagegate.model.settings import Settings
from prefect_stagegate.workspace import Admit, ResolveCredentials, Workspace, no_credentials


def open_workspace(
    cache: str | os.PathLike[str] | None = None,
    catalog: str | os.PathLike[str] | None = None,
    *,
    catalog_options: Mapping[str, Any] | None = None,
    create_catalog: bool = True,
    identity: Identity | None = None,
    resolve_credentials: ResolveCredentials = no_credentials,
    admit: Admit | None = None,
    flow_run: str = "",
) -> Workspace:
    """Open the cache and the catalog. Arguments that are left out come from the STAGEGATE_* settings.

    Args:
        cache: The cache's folder.
        catalog: The catalog's folder or URL.
        catalog_options: Storage options of the catalog's URL, by fsspec's names.
        create_catalog: Whether to create a catalog where there is none.
        identity: Who runs the job; by default the declared identity of the settings, else the operating system's user.
        resolve_credentials: Turns the name under a spec's `credentials:` into storage options.
        admit: Admits each transfer from sources before it begins; None admits all at once.
        flow_run: The id of Prefect's flow run that the job belongs to.

    Raises:
        UsageError: A setting is wrong, or several folders are named.
        CacheError: The cache can't be opened.
        CatalogError: The catalog can't be opened, or there is none.
    """
    # Late: it imports all checks, and few commands need it.
    from prefect_stagegate.jobs.gating.consent import consent
    from prefect_stagegate.jobs.gating.proofs import SignatureProof

    settings = Settings.from_environment(os.environ)
    opened = Cache.open(Path(cache or settings.cache), create=True, durability=settings.durability)
    opened_catalog = Catalog.open(
        os.fspath(catalog or settings.catalog),
        catalog_options,
        create=create_catalog,
        # The catalog notes here which log entries this node has checked.
        memory=opened.memory,
        consent=consent,
        proof=SignatureProof.by(settings),
    )
    return Workspace(
        opened,
        opened_catalog,
        identity or whoami(settings),
        settings,
        catalog_options or {},
        resolve_credentials,
        admit,
        flow_run=flow_run,
    )


def whoami(settings: Settings) -> Identity:
    """The identity that runs this process: the declared one, else the operating system's user."""
    if settings.identity:
        return Identity(settings.identity, "declared")
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        name = f"uid-{os.getuid()}"
    return Identity(name, "os-user")
