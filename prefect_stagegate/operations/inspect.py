"""Looking at what there is: datasets, versions, refs, differences and history. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.catalog import RefEntry
from prefect_stagegate.errors import UsageError
from prefect_stagegate.manifest import Difference, Manifest, diff
from prefect_stagegate.model import Address, EvidenceRevocation, FailedObject, Pins, Waiver
from prefect_stagegate.operations.workspace import Workspace


@dataclass(frozen=True, slots=True)
class VersionLine:
    """One version, as `stagegate ls` and `stagegate show` tell of it."""

    dataset: str
    digest: str
    files: int
    bytes: int
    refs: tuple[str, ...]
    """The catalog's refs that name it."""
    here: bool
    """Whether this node's cache holds it."""
    here_as: tuple[str, ...]
    """This node's copies of refs that name it."""
    leases: tuple[Lease, ...]
    """Who keeps it on this node: who reads or pins it, and who writes to its dataset."""
    pins: Pins | None
    """What fixes its entries at their sources."""


def list_versions(where: Workspace, dataset: str | None = None) -> list[VersionLine]:
    """Every version of one dataset, or of all.

    Raises:
        UnknownDataset: Nothing was staged under the name.
    """
    if dataset is not None:
        where.catalog.require_dataset(dataset)
    leases = where.cache.leases.live()
    return [
        _line(where, where.catalog.manifest(name, digest), refs, leases)
        for name in ([dataset] if dataset else where.catalog.datasets())
        for refs in [where.catalog.refs(name)]
        for digest in where.catalog.versions(name)
    ]


def show(where: Workspace, address: Address) -> tuple[VersionLine, Manifest]:
    """One version with its manifest.

    Raises:
        UsageError: There is no such dataset, ref or version.
    """
    manifest = where.catalog.manifest(address.dataset, where.catalog.resolve(address))
    refs = where.catalog.refs(address.dataset)
    return _line(where, manifest, refs, where.cache.leases.live()), manifest


def waivers(where: Workspace, dataset: str, digest: str) -> list[Waiver]:
    """All waivers for a version, whatever the target, also those that ended; the oldest first."""
    targets = where.catalog.waived_targets(dataset, digest)
    return sorted((one for t in targets for one in where.catalog.waivers(dataset, digest, t)), key=lambda one: one.at)


def revocations(where: Workspace, address: Address) -> list[EvidenceRevocation]:
    """The revocations of evidence about one version, or about all versions of a dataset; the oldest first.

    Args:
        where: The catalog.
        address: With a digest or a number of versions back, that version's; with a target, those of any version that
            speak of this target.
    """
    if address.is_version:
        digests, ref = [where.catalog.resolve(address)], ""
    else:
        digests, ref = where.catalog.revoked_versions(address.dataset), address.ref
    found = [one for digest in digests for one in where.catalog.revocations(address.dataset, digest)]
    return sorted((one for one in found if not ref or one.target in ("", ref)), key=lambda one: one.at)


def failed(where: Workspace, dataset: str, digest: str) -> tuple[FailedObject, ...]:
    """What could not be staged when the version was made, and was let be left out."""
    return where.catalog.failed(dataset, digest)


def compare(where: Workspace, old: Address, new: Address) -> Iterator[Difference]:
    """How the entries of one version differ from another's, in the order of their paths."""
    return diff(*(where.catalog.manifest(a.dataset, where.catalog.resolve(a)).entries() for a in (old, new)))


def history(where: Workspace, address: Address) -> list[RefEntry]:
    """The moves of one ref, or of all refs of a dataset, the oldest first.

    Raises:
        UsageError: There is no such dataset, or the address names a version.
        CorruptRecord: A log was changed after it was written.
    """
    require_log(where, address)
    refs = [address.ref] if address.ref else list(where.catalog.refs(address.dataset))
    return sorted((move for ref in refs for move in where.catalog.history(address.dataset, ref)), key=lambda m: m.at)


def forget(where: Workspace, address: Address) -> None:
    """Forget what this node remembers of the logs of one ref, or of all refs of a dataset."""
    for ref in [address.ref] if address.ref else where.catalog.ref_names(address.dataset):
        where.catalog.ref_log(address.dataset, ref).forget()


def require_log(where: Workspace, address: Address) -> None:
    """Raise unless the address names a ref that was moved, or a dataset.

    Raises:
        UsageError: There is no such dataset or ref, or the address names a version.
    """
    if address.is_version:
        raise UsageError("A version has no history; a ref has", hint=f"Try `stagegate history {address.dataset}`.")
    if address.ref:
        where.catalog.require_ref(address.dataset, address.ref)
    else:
        where.catalog.require_dataset(address.dataset)


def _line(where: Workspace, manifest: Manifest, refs: dict[str, RefEntry], leases: list[Lease]) -> VersionLine:
    dataset, digest = manifest.dataset, manifest.digest
    here = where.cache.views.path(dataset, digest) is not None
    return VersionLine(
        dataset,
        digest,
        manifest.files,
        manifest.bytes,
        refs=tuple(name for name, entry in refs.items() if entry.digest == digest),
        here=here,
        here_as=tuple(name for name, held in where.cache.refs.of(dataset).items() if held == digest),
        leases=tuple(lease for lease in leases if here and lease.keeps(dataset, digest)),
        pins=where.catalog.pins(dataset, digest),
    )
