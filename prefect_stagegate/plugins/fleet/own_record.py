"""This node's record in the catalog: written after staging and collecting, and by the node's agent."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prefect_stagegate.cache.layout import explained
from prefect_stagegate.cache.leases import Lease, LeaseKind
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import SpaceRules, measure, used_bytes
from prefect_stagegate.catalog.version_records import read_manifest, read_seal
from prefect_stagegate.clock import now, stamp
from prefect_stagegate.doors import Job, Observer
from prefect_stagegate.errors import CatalogError, StagegateError, UnknownDataset, UnknownRef
from prefect_stagegate.model import Version
from prefect_stagegate.plugins.fleet.fleet_settings import FleetSettings
from prefect_stagegate.plugins.fleet.nodes import HeldVersion, NodeRecord, put_node, read_node, record_timeout
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

DRIVER = Path("/proc/driver/nvidia")
"""Is there while NVIDIA's driver is loaded."""
log = logging.getLogger(__name__)

VersionKey = tuple[str, str]
"""Dataset and digest."""


def publish_record(
    workspace: Workspace, begun: VersionKey | None = None, ended: Job | None = None, *, recapture: bool = False
) -> NodeRecord:
    """Write what this node holds now to the catalog, which is asked only about versions that the last record lacks.

    Args:
        workspace: Cache and catalog.
        begun: A version that the caller begins to fetch.
        ended: A job that has just ended: its lease holds no more, and of a version that it made the size is known.
        recapture: Whether to capture the node's environment, which takes a process 0.1 s at first. Otherwise the last
            record's is kept; a first record has only the GPUs.

    Raises:
        CacheError: The cache can't be read.
        CatalogError: A record can't be read or written, or another node has this one's name.
    """
    settings, layout = workspace.settings, workspace.cache.layout
    fleet = settings.of(FleetSettings)
    identity = layout.identity()
    last = _last_record(workspace, identity)
    unreadable = UnreadableRecords()
    known = {(held.dataset, held.digest): held for held in last.versions} if last else {}
    if ended and isinstance(made := ended.result, Version):
        known.setdefault((made.dataset, made.digest), HeldVersion(made.dataset, made.digest, made.bytes))
    with explained("look at this node's cache", layout.root):
        if last and not recapture:
            gpus, fingerprint = last.gpus, last.environment
        else:
            gpus, fingerprint = _captured(workspace, recapture=recapture)
        refs = {
            f"{dataset}@{ref}": digest
            for dataset in workspace.cache.refs.datasets()
            for ref, digest in workspace.cache.refs.of(dataset, unreadable).items()
        }
        versions = tuple(_held_versions(workspace, known, begun, ended.writer if ended else None, unreadable))
        available = measure(layout, SpaceRules(settings.free_floor, settings.max_size))
        used = used_bytes(layout) if available.used is None else available.used
    record = NodeRecord(
        settings.node,
        stamp(now()),
        str(layout.root),
        versions,
        refs,
        used,
        max(0, available.bytes),
        fleet.site,
        fleet.peer_url,
        gpus,
        fingerprint,
        identity=identity,
    )
    put_node(workspace.catalog, record)
    return record


def _captured(workspace: Workspace, *, recapture: bool) -> tuple[Mapping[str, int], str]:
    """The node's GPUs, and with `recapture` its environment's fingerprint."""
    if not recapture and not DRIVER.exists():
        return {}, ""
    # Late: it imports the checks, and a node's staging has its last record or no GPU.
    from prefect_stagegate.jobs.environment import capture_environment, node_gpus

    if not recapture:
        return node_gpus(), ""
    environment = capture_environment(workspace.settings, workspace.cache.root)
    return environment.gpus, environment.fingerprint


class NodeRecorder(Observer):
    """Keeps the node's record: that it fetches a version, and after a fetch or the move of a ref, what it holds."""

    def begun(self, job: Job) -> None:
        """Record the version that is fetched."""
        if job.name == "fetch":
            _try_publish(job.workspace, begun=(job.dataset, str(job.facts["digest"])))

    def ended(self, job: Job) -> None:
        """Record what the node holds, however the fetch ended; also after refs or pins changed, or a collection."""
        if "digest" in job.facts or job.name in ("collect", "pin"):
            _try_publish(job.workspace, ended=job)


def _try_publish(workspace: Workspace, begun: VersionKey | None = None, ended: Job | None = None) -> None:
    """As `publish_record`; a failure is logged, since it ends no staging: the old record becomes unknown by itself."""
    try:
        publish_record(workspace, begun, ended)
    except StagegateError as error:
        log.warning("The record of the node %s was not written: %s", workspace.settings.node, error)


def _held_versions(
    workspace: Workspace,
    known: Mapping[VersionKey, HeldVersion],
    begun: VersionKey | None,
    ended: Lease | None,
    unreadable: UnreadableRecords,
) -> Iterator[HeldVersion]:
    """The versions that lie here: complete ones and, as far as they are known, parts of others."""
    complete = set(workspace.cache.views.all())
    layout = workspace.cache.layout
    has_rotten = layout.quarantine.exists() and bool(Quarantine(layout).linked())
    leases = workspace.cache.leases.live(unreadable)
    pinned = {(lease.dataset, lease.digest) for lease in leases if lease.kind is LeaseKind.PIN}
    # Another process of this node may fetch a version that the last record calls fetched.
    writers = (lease for lease in leases if lease.kind is LeaseKind.WRITER)
    written = {lease.dataset for lease in writers if not ended or lease.id != ended.id}
    partial = {key for key, held in known.items() if not held.is_complete} | ({begun} if begun else set())
    for key in sorted(complete | partial):
        # A version whose staging has not reached the catalog yet, or that was removed from it, is left out.
        with suppress(UnknownDataset, UnknownRef), unreadable.skip(key[0]):
            held = known.get(key) or HeldVersion(*key, read_seal(workspace.catalog, *key).bytes)
            if key in complete:
                missing = _rotten_bytes(workspace, *key) if has_rotten else 0
                yield replace(held, missing=missing, fetching=False, pinned=key in pinned)
                continue
            missing = _missing_bytes(workspace, *key)
            fetching = key == begun or (held.fetching and key[0] in written)
            if fetching or missing < held.bytes:
                yield replace(held, missing=missing, fetching=fetching, pinned=key in pinned)


def _last_record(workspace: Workspace, identity: str) -> NodeRecord | None:
    """The node's last record; None where it has none, or a damaged one or another node's old one: it will be replaced.

    Raises:
        CatalogError: It is another node's, which wrote it a short time ago.
    """
    name, record = workspace.settings.node, None
    with UnreadableRecords().skip(""):
        record = read_node(workspace.catalog, name)
    if record is None or record.identity in ("", identity):
        return record
    if not record.is_current(now(), record_timeout(workspace.settings)):
        return None
    raise CatalogError(
        f"Another node is called {name}, with another cache at {record.cache}; its record was written at {record.at}",
        hint="Give each node a name of its own by STAGEGATE_NODE.",
    )


def _missing_bytes(workspace: Workspace, dataset: str, digest: str) -> int:
    """Bytes of a version's blobs that this node lacks; a blob that is several entries counts for each."""
    entries, blobs = read_manifest(workspace.catalog, dataset, digest).entries(), workspace.cache.blobs
    return sum(entry.size for entry in entries if not blobs.holds(entry.digest, entry.size))


def _rotten_bytes(workspace: Workspace, dataset: str, digest: str) -> int:
    """Bytes of a version's files that are links to rotten blobs."""
    entries = read_manifest(workspace.catalog, dataset, digest).entries()
    view = workspace.cache.layout.view(dataset, digest)
    return sum(entry.size for entry in Quarantine(workspace.cache.layout).rotten_files(view, entries))
