"""Whether this node holds exactly what a ref of the catalog names, complete: what a job on the node waits for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.catalog import withdrawal_of
from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.errors import CatalogError, CorruptRecord, NotReady, SourceUnavailable
from prefect_stagegate.jobs.address import resolve_for_node
from prefect_stagegate.jobs.running_jobs import share_arrived, why_stopped
from prefect_stagegate.jobs.upkeep.verify import require_undamaged
from prefect_stagegate.model import Address, Verdict
from prefect_stagegate.units import digest_text
from prefect_stagegate.workspace import Workspace

POLL_SECONDS = 5.0
"""Seconds between two looks, more or less a fifth, so that a thousand jobs don't ask the catalog at once."""


@dataclass(frozen=True, slots=True)
class NodeReadiness(Verdict, asks="problem"):
    """Whether this node holds the version of an address."""

    dataset: str
    ref: str
    """Empty for an address by digest."""
    digest: str
    """The version that the catalog names."""
    path: str
    """The version's folder; empty while it isn't complete here."""
    problem: str
    """Why this node isn't ready; empty when it is."""

    @property
    def is_ready(self) -> bool:
        """Whether a job may start here."""
        return not self.problem


def node_readiness(workspace: Workspace, address: Address) -> NodeReadiness:
    """Compare this node's cache with what the catalog's ref names now.

    Raises:
        UsageError: There is no such dataset, ref or version.
        CorruptRecord: The ref's log or the version's manifest is damaged.
        CatalogError: The catalog can't be read.
    """
    dataset, ref = address.dataset, address.named_ref
    digest = resolve_for_node(workspace, address)
    view = workspace.cache.views.path(dataset, digest)
    problem = _withdrawal(workspace, dataset, ref, digest) or _absence(workspace, dataset, ref, digest)
    return NodeReadiness(dataset, ref, digest, str(view) if view and not problem else "", problem)


def require_on_node(workspace: Workspace, address: Address) -> NodeReadiness:
    """As `node_readiness`, and raise unless it is ready.

    Raises:
        NotReady: This node doesn't hold the version, or a file of it is damaged; the message says why.
    """
    readiness = node_readiness(workspace, address)
    if readiness.problem:
        raise NotReady(
            f"{address} is not ready on {workspace.settings.node}: {readiness.problem}",
            hint=f"`stagegate stage {address}` fetches it; `stagegate agent {address}` keeps it current.",
            dataset=address.dataset,
        )
    require_undamaged(workspace, readiness.dataset, readiness.digest)
    return readiness


def wait_until_ready(
    open_workspace: Callable[[], Workspace],
    address: Address,
    seconds: float,
    waiting: Callable[[str], None] = lambda _: None,
) -> NodeReadiness:
    """Wait until this node holds the version. A catalog that can't be reached is asked again.

    Args:
        open_workspace: Opens cache and catalog.
        address: The version.
        seconds: The longest wait. A request that is under way then may take a minute more.
        waiting: Called with each new reason to wait.

    Raises:
        NotReady: The time is over.
        CatalogError, SourceUnavailable: The time is over, and the catalog can't be reached.
        UsageError: There is no such dataset or ref.
        CorruptRecord: A record about the version is damaged.
    """
    deadline, last, workspace = time.monotonic() + seconds, "", None
    while True:
        try:
            workspace = workspace or open_workspace()
            return require_on_node(workspace, address)
        except CorruptRecord:
            raise
        # A store that does not answer is reported as a source.
        except (CatalogError, SourceUnavailable, NotReady) as error:
            if time.monotonic() >= deadline:
                raise
            if error.message != last:
                waiting(error.message)
                last = error.message
        pause = POLL_SECONDS * random.uniform(0.8, 1.2)  # noqa: S311
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))


def _withdrawal(workspace: Workspace, dataset: str, ref: str, digest: str) -> str:
    """Why the version that a target names may not be used any more; empty when it may."""
    entry = withdrawal_of(workspace.catalog, dataset, ref, digest)
    return f"{digest_text(digest)} was withdrawn by {entry.who}: {entry.reason}" if entry else ""


def _absence(workspace: Workspace, dataset: str, ref: str, digest: str) -> str:
    """What this node lacks of a version; empty when it is complete, and the node's copy of the ref names it."""
    view = workspace.cache.views.path(dataset, digest)
    if view is None:
        if (share := share_arrived(workspace.cache, digest)) is not None:
            return f"{digest_text(digest)} is arriving, {share:.0%}"
        if stopped := why_stopped(workspace.cache, digest):
            manifest = read_manifest(workspace.catalog, dataset, digest)
            holds = workspace.cache.blobs.holds
            here = sum(entry.size for entry in manifest.entries() if holds(entry.digest, entry.size))
            share = here / manifest.bytes if manifest.bytes else 0
            return f"{digest_text(digest)}: arriving stopped at {share:.0%}: {stopped}"
        return f"this node lacks {digest_text(digest)}"
    quarantine = Quarantine(workspace.cache.layout)
    # Manifests are read only where something rotted.
    if quarantine.linked():
        entries = read_manifest(workspace.catalog, dataset, digest).entries()
        if rotten := quarantine.rotten_files(view, entries):
            return f"{rotten[0].path} of {digest_text(digest)} rotted here; `stagegate verify --repair` replaces it"
    if ref:
        current = workspace.cache.refs.get(dataset, ref)
        if current != digest:
            return f"this node's {ref} names {digest_text(current)}" if current else f"this node has no copy of {ref}"
    return ""
