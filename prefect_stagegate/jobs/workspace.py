"""What a job works on: this node's cache, the shared catalog, and the identity of whoever runs it."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from prefect_stagegate.cache import Cache
from prefect_stagegate.catalog import Catalog
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.read import open_cache
from prefect_stagegate.model import Identity
from prefect_stagegate.settings import Settings
from prefect_stagegate.spec import Spec

ResolveCredentials = Callable[[str], Mapping[str, Any]]
"""Turns the name that a spec gives under `credentials:` into storage options."""
Admit = Callable[[Spec, Event | None], AbstractContextManager[None]]
"""Admits a transfer from a spec's sources for the time of a block. May wait; gives up when the event is set."""


def no_passphrase(path: Path) -> str:
    """Refuse keys that need a passphrase: nobody can type it into a task."""
    raise UsageError(
        f"The key {path} needs a passphrase, and a task has no terminal to ask for it",
        hint="Use the `stagegate` command at a terminal, or a key without one that only this user can read.",
    )


def no_credentials(name: str) -> Mapping[str, Any]:
    """Refuse names of credentials: only Prefect's tasks, flows and the command load blocks."""
    raise UsageError(
        f"The credentials {name!r} are a Prefect block, and this program loads no blocks",
        hint="Use the tasks, the flows or the `stagegate` command, or take credentials from the environment.",
    )


def admit_at_once(spec: Spec, cancel: Event | None = None) -> AbstractContextManager[None]:
    """Admit every transfer at once: only Prefect's limits know what else runs."""
    del spec, cancel
    return nullcontext()


@dataclass(frozen=True)
class Workspace:
    """Everything that a job needs besides its own arguments. Make one with `open_workspace`."""

    cache: Cache
    catalog: Catalog
    identity: Identity
    settings: Settings
    resolve_credentials: ResolveCredentials = field(default=no_credentials)
    admit: Admit = field(default=admit_at_once)
    ask_passphrase: Callable[[Path], str] = field(default=no_passphrase)
    """Asks for the passphrase of a key file."""
    flow_run: str = ""
    """The id of Prefect's flow run that the job belongs to; empty outside of one."""


def open_workspace(
    cache: str | os.PathLike[str] | None = None,
    catalog: str | os.PathLike[str] | None = None,
    *,
    catalog_options: Mapping[str, Any] | None = None,
    create_catalog: bool = True,
    identity: Identity | None = None,
    resolve_credentials: ResolveCredentials = no_credentials,
    admit: Admit = admit_at_once,
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
        admit: Admits each transfer from sources before it begins.
        flow_run: The id of Prefect's flow run that the job belongs to.

    Raises:
        UsageError: A setting is wrong.
        CacheError: The cache can't be opened.
        CatalogError: The catalog can't be opened, or there is none.
    """
    # Late: it imports all checks, and few commands need it.
    from prefect_stagegate.jobs.gating.consent import consent
    from prefect_stagegate.jobs.gating.proofs import SignatureProof

    settings = Settings.from_environment(os.environ)
    opened = open_cache(cache, settings=settings, create=True)
    opened_catalog = Catalog.open(
        os.fspath(catalog or settings.catalog),
        catalog_options,
        create=create_catalog,
        # The catalog notes here which log entries this node has checked.
        memory=opened.memory,
        consent=consent,
    )
    opened_catalog.proof = SignatureProof.by(settings)
    return Workspace(
        opened,
        opened_catalog,
        identity or whoami(settings),
        settings,
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
