"""What is known of each volume of this node, and the workspace on the one that a job works on."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from prefect_stagegate.cache import Cache
from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.layout import explained
from prefect_stagegate.cache.leases import Lease, LeaseKind
from prefect_stagegate.cache.space import SpaceRules, measure
from prefect_stagegate.errors import CacheError, StagegateError, UsageError
from prefect_stagegate.manifest import Manifest
from prefect_stagegate.model import LATEST, Address
from prefect_stagegate.operations.address import resolve_for_node
from prefect_stagegate.operations.volumes.choice import VolumeChoice, VolumeFacts, choose_volume
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.settings import Settings
from prefect_stagegate.spec import Spec
from prefect_stagegate.unreadable import UnreadableRecords

log = logging.getLogger(__name__)


def on_chosen_volume(
    workspace: Workspace, subject: Spec | Address, folder: Path | None = None
) -> tuple[Workspace, VolumeChoice | None]:
    """Choose the volume for a version, or for what a spec will make.

    Args:
        workspace: Cache and catalog.
        subject: The version, or the spec, which goes where the last version of its dataset lies.
        folder: The volume that the caller wants.

    Returns:
        The workspace on that volume, and the choice; None on a node with a single volume.

    Raises:
        UsageError: `folder` is no volume of this node; or there is no such dataset, ref or version.
        CacheError: The home, or the wanted volume, can't be used.
    """
    home = workspace.cache.home
    if folder is not None:
        volume = _named(home, Path(os.path.abspath(folder.expanduser())))  # noqa: PTH100 - as the volumes' own
        return workspace.on_volume(volume), VolumeChoice(str(volume.root), "it was asked for")
    if not home.further and not home.missing:
        return workspace, None
    version = _expected(workspace, subject)
    copies = home.copies(*version) if version else []
    # What lies in memory is gone after a reboot, so it is no place for an only copy.
    disks = [volume for volume in home.volumes if not volume.is_tier]
    complete = [volume for volume, _ in copies if volume in disks]
    if complete:
        # Without a look at any file: most stagings change little or nothing.
        held = "the version" if isinstance(subject, Address) else "the dataset's last version"
        return workspace.on_volume(complete[0]), VolumeChoice(str(complete[0].root), f"it holds {held} already")
    if staging := [volume for volume in disks if _is_staging(volume, subject.dataset)]:
        # Two stagings of a dataset share what they fetch only on one volume.
        reason = "another staging of the dataset is under way there"
        return workspace.on_volume(staging[0]), VolumeChoice(str(staging[0].root), reason)
    manifest = workspace.catalog.manifest(*version) if version else None
    facts = _all_facts(workspace, disks, manifest)
    choice = choose_volume([fact for _, fact in facts], manifest.bytes if manifest else 0)
    volume = next(volume for volume, fact in facts if fact.folder == choice.folder)
    missing = "".join(f"; {volume}" for volume in home.missing)
    return workspace.on_volume(volume), replace(choice, reason=choice.reason + missing)


def on_volume_of(workspace: Workspace, dataset: str, digest: str) -> Workspace:
    """The workspace on the volume from which a version is read: the fastest that has it, else where it would go."""
    home = workspace.cache.home
    if not home.further:
        return workspace
    copies = home.copies(dataset, digest)
    return workspace.on_volume(copies[0][0]) if copies else on_chosen_volume(workspace, Address(dataset, digest))[0]


def _named(home: Cache, folder: Path) -> Cache:
    """The volume of a folder."""
    for missing in home.missing:
        if missing.folder == folder:
            raise CacheError(f"The volume {folder} can't be used: {missing.problem}")
    for volume in home.volumes:
        if volume.root == folder:
            return volume
    known = ", ".join(str(volume.root) for volume in home.volumes)
    raise UsageError(
        f"{folder} is no volume of this node's cache; it has {known}",
        hint="STAGEGATE_VOLUMES names the volumes beside STAGEGATE_CACHE.",
    )


def _expected(workspace: Workspace, subject: Spec | Address) -> tuple[str, str] | None:
    """Dataset and digest of the version, or of the last one that a spec made; None for the first."""
    if isinstance(subject, Address):
        return subject.dataset, resolve_for_node(workspace, subject)
    head = workspace.catalog.ref(subject.dataset, LATEST)
    return (subject.dataset, head.digest) if head else None


def _is_staging(volume: Cache, dataset: str) -> bool:
    leases: list[Lease] = []
    with volume.skipped_when_unreadable():
        leases += volume.leases.live(UnreadableRecords())
    return any(lease.kind is LeaseKind.WRITER and lease.dataset == dataset for lease in leases)


def _all_facts(
    workspace: Workspace, volumes: Sequence[Cache], manifest: Manifest | None
) -> list[tuple[Cache, VolumeFacts]]:
    """The facts of each volume that answers; the home must."""
    facts = []
    for volume in volumes:
        try:
            facts.append((volume, _facts(workspace.settings, volume, manifest)))
        except CacheError as error:
            if volume is volume.home:
                raise
            log.warning("The volume %s is left out: %s", volume.root, error)
    # Where the GPUs are matters only for a version that no volume holds.
    return _with_gpus(facts) if len(facts) > 1 and not any(fact.held for _, fact in facts) else facts


def _facts(settings: Settings, volume: Cache, manifest: Manifest | None) -> VolumeFacts:
    with explained("look at the volume", volume.root):
        entries = manifest.entries() if manifest else iter(())
        held = sum(entry.size for entry in entries if volume.blobs.holds(entry.digest, entry.size))
        room = measure(volume.layout, SpaceRules(settings.free_floor, settings.limit_of(volume.root))).bytes
        # A collection is foreseen only where it matters, since it looks at every file.
        if manifest and room < manifest.bytes - held:
            with suppress(CacheError):  # where locks do nothing, nothing is collected
                room += collect(volume.layout, dry_run=True).bytes
    return VolumeFacts(str(volume.root), volume.medium, held, max(0, room))


def _with_gpus(facts: Sequence[tuple[Cache, VolumeFacts]]) -> list[tuple[Cache, VolumeFacts]]:
    """Add how many of the GPUs that this process sees are near each volume."""
    # Late: all checks are imported with it.
    from prefect_stagegate.readiness import Machine, find_gpus

    machine = Machine()
    gpus = machine.pci_gpus()
    if gpus:
        try:
            gpus = tuple(gpu.pci for gpu in find_gpus(machine).gpus)
        except StagegateError as error:
            log.debug("Volumes are chosen by the GPUs on the PCI bus: %s", error)
    return [
        (volume, replace(fact, near_gpus=machine.near(volume.root, gpus), gpus=len(gpus))) for volume, fact in facts
    ]
