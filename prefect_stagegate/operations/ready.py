"""Requiring readiness: give a version out only when the catalog says that its target accepted it."""

from __future__ import annotations

from threading import Event

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.catalog import RefEntry
from prefect_stagegate.errors import CorruptRecord, GateFailed, UsageError
from prefect_stagegate.model import LATEST, Address, Version
from prefect_stagegate.operations.bring import bring
from prefect_stagegate.operations.node_refs import point
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness.attest import decision_of
from prefect_stagegate.transfer import Progress


def require_ready(
    where: Workspace, address: Address, *, progress: Progress | None = None, cancel: Event | None = None
) -> Version:
    """The version that a target accepted, complete on this node; it is brought here when it isn't.

    Args:
        where: Cache and catalog. The catalog is asked, so that a rollback holds at once, on every node.
        address: The dataset and the target: `nycflights@production`.
        progress: Told what happens while the version is brought.
        cancel: Set it to stop in time.

    Raises:
        UsageError: The address names no target, or there is no such dataset.
        GateFailed: The target accepted no version.
        CorruptRecord: The ref's log or its attestation can't be believed.
        StagegateError: The version could not be brought here.
    """
    target = address.ref
    if not target or address.digest or target == LATEST:
        raise UsageError(
            f"{address} names no target, and only a target's gate makes a version ready",
            hint=f"Name one, as in {address.dataset}@production.",
            dataset=address.dataset,
        )
    accepted = _accepted(where, address)
    with where.cache.leases.hold(LeaseKind.WRITER, address.dataset, what="require_ready") as writer:
        version = bring(where, Address(address.dataset, accepted.digest), writer, progress=progress, cancel=cancel)
        point(where, address.dataset, target, accepted.digest)
    return version


def _accepted(where: Workspace, address: Address) -> RefEntry:
    """The newest entry of the target's log, when its attestation lets exactly this version through this gate."""
    log = where.catalog.history(address.dataset, address.ref)
    if not log:
        where.catalog.require_dataset(address.dataset)
        raise GateFailed(
            f"No version of {address.dataset} was accepted for {address.ref}",
            hint=f"`stagegate check {address.dataset} --gate {address.ref}` tells what is missing.",
            dataset=address.dataset,
        )
    entry = log[-1]
    decision = decision_of(entry.attestation)
    about = (decision.dataset, decision.digest, decision.target)
    if about != (address.dataset, entry.digest, address.ref) or not decision.accepted:
        raise CorruptRecord(
            f"{address} names {entry.digest}, and the attestation beside it does not accept that version",
            hint=f"Look with `stagegate history {address}`, then check and promote the version again.",
            dataset=address.dataset,
        )
    return entry
