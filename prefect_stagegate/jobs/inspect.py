"""Looking at what there is: datasets, versions, refs, differences and history. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from prefect_stagegate.cache.leases import Lease
from prefect_stagegate.catalog import PolicyEntry, RefEntry, gate_records
from prefect_stagegate.catalog.refs import REFS, ref_heads
from prefect_stagegate.catalog.version_records import (
    listed_datasets,
    read_failed,
    read_manifest,
    read_pins,
    read_seal,
    require_dataset,
    version_digests,
)
from prefect_stagegate.doors import hidden_names
from prefect_stagegate.errors import UsageError
from prefect_stagegate.jobs.gating.policy import adoptions
from prefect_stagegate.model import LATEST, Address, EvidenceRevocation, FailedObject, Pins, PolicyChange, Waiver
from prefect_stagegate.model.manifest import Difference, Manifest, Seal, diff
from prefect_stagegate.unreadable import UnreadableRecords
from prefect_stagegate.workspace import Workspace

READERS = 8
"""Versions whose records are read at a time: an object store takes 20 ms for each record."""


@dataclass(frozen=True, slots=True)
class NewestDecision:
    """The newest decision of a target's gate about a version."""

    target: str
    outcome: str
    at: str


@dataclass(frozen=True, slots=True)
class VersionLine:
    """One version, as `stagegate ls` and `stagegate show` print it."""

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
    """The leases that keep it on this node: readers and pins of the version, and writers of its dataset."""
    pins: Pins | None
    """What fixes its entries at their sources; None when the record can't be read."""
    volumes: tuple[str, ...] = ()
    """This node's cache folder where it holds it, else nothing: a list, since nodes once had several."""
    staged_at: str = ""
    """When `latest` was moved to it last; empty when the log doesn't have it."""
    decisions: tuple[NewestDecision, ...] = ()
    """One for each target whose gate decided about it, sorted by target."""


def list_versions(
    workspace: Workspace,
    dataset: str | None = None,
    unreadable: UnreadableRecords | None = None,
    *,
    every: bool = False,
    part: slice = slice(None),
) -> list[VersionLine]:
    """List the versions of one dataset, or of all, in the order of their staging.

    Records that can't be read are left out and collected. With `every`, what is hidden is listed, too. `part` of each
    dataset's versions are read.

    Raises:
        UnknownDataset: There is no such dataset.
    """
    catalog = workspace.catalog
    if dataset is not None:
        require_dataset(catalog, dataset)
    unreadable = unreadable or UnreadableRecords()
    leases = workspace.cache.leases.live(unreadable)
    hidden = () if every else hidden_names(catalog)
    lines: list[VersionLine] = []
    with ThreadPoolExecutor(READERS, "stagegate-versions") as pool:
        for name in [dataset] if dataset else listed_datasets(catalog, hidden):
            refs = _Refs(workspace, name, unreadable, hidden)
            staged = _staging_times(workspace, name, unreadable)

            def read(digest: str, name: str = name, refs: _Refs = refs) -> tuple[VersionLine | None, UnreadableRecords]:
                lost = UnreadableRecords()
                with lost.skip(name):
                    return _line(workspace, name, read_seal(catalog, name, digest), refs, leases, lost), lost
                return None, lost

            digests = sorted((staged.get(digest, ""), digest) for digest in version_digests(catalog, name))[part]
            for (staged_at, _), (line, lost) in zip(
                digests, pool.map(read, [each for _, each in digests]), strict=True
            ):
                unreadable.update(lost)
                lines += [replace(line, staged_at=staged_at)] if line else []
    return lines


def show(
    workspace: Workspace, address: Address, unreadable: UnreadableRecords | None = None
) -> tuple[VersionLine, Manifest]:
    """Return one version with its manifest.

    Records beside the manifest that can't be read are left out and collected.

    Raises:
        UsageError: There is no such dataset, ref or version.
        CorruptRecord: The ref or the manifest can't be read.
    """
    unreadable = unreadable or UnreadableRecords()
    manifest = read_manifest(workspace.catalog, address.dataset, workspace.catalog.resolve(address))
    refs = _Refs(workspace, address.dataset, unreadable)
    sums = Seal(manifest.digest, manifest.files, manifest.bytes)
    line = _line(workspace, address.dataset, sums, refs, workspace.cache.leases.live(unreadable), unreadable)
    staged = _staging_times(workspace, address.dataset, unreadable)
    return replace(line, staged_at=staged.get(line.digest, "")), manifest


def waivers(
    workspace: Workspace, dataset: str, digest: str, unreadable: UnreadableRecords | None = None
) -> list[Waiver]:
    """List a version's waivers for all targets, also those that ended; the oldest first."""
    unreadable = unreadable or UnreadableRecords()
    granted: list[Waiver] = []
    for target in workspace.catalog.folders(gate_records.WAIVERS, dataset, digest):
        with unreadable.skip(dataset):
            recorded = gate_records.read_waivers(workspace.catalog, dataset, digest, target)
            granted.extend({waiver.id: waiver for waiver in recorded}.values())
    return sorted(granted, key=lambda waiver: waiver.at)


def revocations(
    workspace: Workspace, address: Address, unreadable: UnreadableRecords | None = None
) -> list[EvidenceRevocation]:
    """List revocations of evidence about one version, or about all versions of a dataset; the oldest first.

    Args:
        workspace: The catalog.
        address: With a digest or a number of versions back: the revocations for that version. With a target: those
            for any version that concern this target, or all targets.
        unreadable: Collects the records that can't be read, which are left out.
    """
    unreadable = unreadable or UnreadableRecords()
    if address.is_version:
        digests, ref = [workspace.catalog.resolve(address)], ""
    else:
        digests, ref = workspace.catalog.folders(gate_records.REVOCATIONS, address.dataset), address.ref
    recorded: list[EvidenceRevocation] = []
    for digest in digests:
        with unreadable.skip(address.dataset):
            recorded.extend(workspace.catalog.all(gate_records.REVOCATIONS, address.dataset, digest))
    concerning = [revocation for revocation in recorded if not ref or revocation.target in ("", ref)]
    return sorted(concerning, key=lambda revocation: revocation.at)


def failed(
    workspace: Workspace, dataset: str, digest: str, unreadable: UnreadableRecords | None = None
) -> tuple[FailedObject, ...]:
    """The objects that could not be staged, and that the version was allowed to leave out."""
    with (unreadable or UnreadableRecords()).skip(dataset):
        return read_failed(workspace.catalog, dataset, digest)
    return ()


def beside(workspace: Workspace, version: Address, unreadable: UnreadableRecords) -> dict[str, Any]:
    """What is recorded beside a version, by what `stagegate show --json` calls it."""
    return {
        "waivers": waivers(workspace, version.dataset, version.digest, unreadable),
        "revocations": revocations(workspace, version, unreadable),
        "failed": failed(workspace, version.dataset, version.digest, unreadable),
    }


def compare(workspace: Workspace, old: Address, new: Address) -> Iterator[Difference]:
    """Compare the entries of two versions, in the order of their paths."""
    before, after = (read_manifest(workspace.catalog, a.dataset, workspace.catalog.resolve(a)) for a in (old, new))
    return diff(before.entries(), after.entries())


def history(workspace: Workspace, address: Address, unreadable: UnreadableRecords | None = None) -> list[RefEntry]:
    """List the moves of one ref, or of all refs of a dataset, the oldest first.

    Without a ref, logs that can't be read are left out and collected.

    Raises:
        UsageError: There is no such dataset, or the address names a version.
        CorruptRecord: The log of the address's ref was changed after it was written.
    """
    require_log(workspace, address)
    if address.ref:
        return sorted(workspace.catalog.ref_log(address.dataset, address.ref).entries(), key=lambda move: move.at)
    unreadable = unreadable or UnreadableRecords()
    moves: list[RefEntry] = []
    for ref in workspace.catalog.folders(REFS, address.dataset):
        with unreadable.skip(address.dataset):
            moves.extend(workspace.catalog.ref_log(address.dataset, ref).entries())
    return sorted(moves, key=lambda move: move.at)


def policy_history(
    workspace: Workspace, dataset: str, unreadable: UnreadableRecords
) -> list[tuple[PolicyEntry, tuple[PolicyChange, ...]]]:
    """List a dataset's adoptions with what each changed, the oldest first; none when the log can't be read."""
    with unreadable.skip(dataset):
        return adoptions(workspace, dataset)
    return []


def forget(workspace: Workspace, address: Address) -> None:
    """Drop what this node remembers of the log of one ref, or of the logs of all refs of a dataset."""
    for ref in [address.ref] if address.ref else workspace.catalog.folders(REFS, address.dataset):
        workspace.catalog.ref_log(address.dataset, ref).forget()


def require_log(workspace: Workspace, address: Address) -> None:
    """Raise unless the address names a dataset, or a ref that has a log.

    Raises:
        UsageError: There is no such dataset or ref, or the address names a version.
    """
    if address.is_version:
        raise UsageError("Only a ref has a history, not a version", hint=f"Try `stagegate history {address.dataset}`.")
    if address.ref:
        workspace.catalog.require_ref(address.dataset, address.ref)
    else:
        require_dataset(workspace.catalog, address.dataset)


def _staging_times(workspace: Workspace, dataset: str, unreadable: UnreadableRecords) -> dict[str, str]:
    """When `latest` was moved last to each digest that it named."""
    with unreadable.skip(dataset):
        return {entry.digest: entry.at for entry in workspace.catalog.history(dataset, LATEST)}
    return {}


class _Refs:
    """The refs of a dataset with the digests that they name: the catalog's, and this node's copies."""

    def __init__(
        self, workspace: Workspace, dataset: str, unreadable: UnreadableRecords, hidden: Collection[str] = ()
    ) -> None:
        heads = ref_heads(workspace.catalog, dataset, unreadable)
        self.catalog = {name: head.entry.digest for name, head in heads.items() if f"{dataset}@{name}" not in hidden}
        self.node = workspace.cache.refs.of(dataset, unreadable)


def _line(
    workspace: Workspace, dataset: str, sums: Seal, refs: _Refs, leases: list[Lease], unreadable: UnreadableRecords
) -> VersionLine:
    digest = sums.digest
    pins = None
    with unreadable.skip(dataset):
        pins = read_pins(workspace.catalog, dataset, digest)
    here = workspace.cache.views.path(dataset, digest) is not None
    return VersionLine(
        dataset,
        digest,
        sums.files,
        sums.bytes,
        refs=tuple(name for name, target in refs.catalog.items() if target == digest),
        here=here,
        here_as=tuple(name for name, target in refs.node.items() if target == digest),
        # A writer's lease is about its whole dataset, also about versions that this node lacks.
        leases=tuple(lease for lease in leases if here and lease.keeps(dataset, digest)),
        pins=pins,
        volumes=(str(workspace.cache.root),) if here else (),
        decisions=tuple(_newest_decisions(workspace, dataset, digest, unreadable)),
    )


def _newest_decisions(
    workspace: Workspace, dataset: str, digest: str, unreadable: UnreadableRecords
) -> Iterator[NewestDecision]:
    from prefect_stagegate.gate.records.attest import decision_of  # late: it loads all checks

    for target, number in gate_records.decision_numbers(workspace.catalog, dataset, digest).items():
        with unreadable.skip(dataset):
            decision = decision_of(gate_records.read_attestation(workspace.catalog, dataset, digest, target, number))
            yield NewestDecision(target, decision.outcome.value, decision.at)
