"""Holding a version's files on this node while a job works on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.model import Address
from prefect_stagegate.operations.staging.fetch import fetch_version
from prefect_stagegate.operations.workspace import Workspace


@contextmanager
def present(
    workspace: Workspace, dataset: str, digest: str, purpose: str, cancel: Event | None = None
) -> Iterator[Path]:
    """Hold a version on this node during the block, and give its folder. A version that isn't here is fetched.

    Args:
        workspace: Cache and catalog.
        dataset: The dataset's name.
        digest: The version's digest.
        purpose: What the holder does, for people.
        cancel: Set it to stop the fetching in time.

    Raises:
        UsageError: There is no such version, or no stored spec has its sources.
        TransferFailed: A pin is gone everywhere; the objects are named.
    """
    # The lease comes first: a collection between looking and reading would take the version.
    with workspace.cache.leases.hold(LeaseKind.READER, dataset, digest, purpose):
        view = workspace.cache.views.path(dataset, digest)
        if view is None:
            with workspace.cache.leases.hold(LeaseKind.WRITER, dataset, purpose=purpose) as writer:
                view = fetch_version(workspace, Address(dataset, digest), writer, cancel=cancel).path
        yield view
