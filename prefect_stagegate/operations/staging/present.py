"""A version's files on this node for as long as somebody works on them: brought when they aren't here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.model import Address
from prefect_stagegate.operations.staging.fetch import bring
from prefect_stagegate.operations.workspace import Workspace


@contextmanager
def present(workspace: Workspace, dataset: str, digest: str, what: str, cancel: Event | None = None) -> Iterator[Path]:
    """Hold a version on this node during the block, and give its folder.

    Args:
        workspace: Cache and catalog.
        dataset: The dataset's name.
        digest: The version's digest.
        what: What the holder does, for people.
        cancel: Set it to stop bringing the version in time.

    Raises:
        UsageError: There is no such version, or no stored spec has its sources.
        TransferFailed: A pin is gone everywhere; the objects are named.
    """
    # Held before it is looked for or brought, so that no collection comes between.
    with workspace.cache.leases.hold(LeaseKind.READER, dataset, digest, what):
        view = workspace.cache.views.path(dataset, digest)
        if view is None:
            with workspace.cache.leases.hold(LeaseKind.WRITER, dataset, what=what) as writer:
                view = bring(workspace, Address(dataset, digest), writer, cancel=cancel).path
        yield view
