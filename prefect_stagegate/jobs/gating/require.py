"""Requiring readiness: give a run a version only when its target accepted it, and the acceptance still holds.

    find_ready: read the ref's log in the catalog, and repeat the cheap checks → Readiness
    hold_ready: lease the version, fetch it to this node, and keep it there while it is used

What a run finds out is not written to the catalog: it concerns this run alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.catalog import RefAction, RefEntry, adopted_as, moves, withdrawn
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import has_version
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.gate.renewal import renew
from prefect_stagegate.jobs.address import judged_spec
from prefect_stagegate.jobs.arriving import begin_arriving
from prefect_stagegate.jobs.gating.check import build_context
from prefect_stagegate.jobs.gating.proofs import counted_evidence
from prefect_stagegate.jobs.gating.table_facts import recorded_times, table_time
from prefect_stagegate.jobs.gating.withdraw import version_failures
from prefect_stagegate.jobs.read import OpenDataset, override_ref, used
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.jobs.staging.fetch import fetch_version
from prefect_stagegate.jobs.upkeep.verify import require_undamaged
from prefect_stagegate.model import Address, Decision, Version
from prefect_stagegate.show import Candidate, Readiness, build_report, ready_text
from prefect_stagegate.spec import HOLD, Gate
from prefect_stagegate.transport.transfer import Progress
from prefect_stagegate.workspace import ResolvedVersion, Workspace


def find_ready(workspace: Workspace, address: Address) -> Readiness:
    """Find the version that a run may use now: the one that the target names, or an earlier one if its gate allows it.

    Args:
        workspace: Cache and catalog. The catalog is read each time, so that a rollback takes effect at once everywhere.
        address: The dataset and the target: `nycflights@production`.

    Raises:
        UsageError: The address names no target, or there is no such dataset or gate.
        CorruptRecord: The ref's log or an attestation in it is damaged.
        UnprovedEntry: The newest entry of the ref's log lacks signatures that it needs.
    """
    if not address.target:
        raise UsageError(
            f"{address} names no target, and only a target's gate makes a version ready",
            hint=f"Name one, as in {address.dataset}@production.",
            dataset=address.dataset,
        )
    with workspace.cache.refs.suspending(address):
        workspace.catalog.followed(address.dataset, address.ref)
    log = workspace.catalog.history(address.dataset, address.ref)
    if not log:
        adoption = policy_log(workspace.catalog, address.dataset).head()
        if adoption is None or address.ref not in adoption.policy.get("gates", {}):
            workspace.catalog.require_ref(address.dataset, address.ref)  # its error says which was meant
    candidates: list[Candidate] = []
    falls_back = False
    withdrawals = withdrawn(log)
    policies = policy_log(workspace.catalog, address.dataset).entries()
    for entry in _accepted(log, withdrawals):
        if candidates and not has_version(workspace.catalog, address.dataset, entry.digest):
            continue  # an earlier version that was removed from the catalog
        # Judge each version by the policy under which it was accepted, not by the policy in force.
        decision = decision_of(entry.attestation)
        adoption = adopted_as(policies, decision.adopted)
        spec = judged_spec(workspace.catalog, address.dataset, entry.digest, adoption)
        version = ResolvedVersion(address.dataset, entry.digest, spec, adopted=decision.adopted)
        gate = spec.gate(address.ref)
        # The gate of the version that the target names decides whether runs may fall back to earlier ones.
        falls_back = falls_back or (not candidates and gate.on_withdrawal != HOLD)
        candidates.append(_examine(workspace, version, gate, entry, decision, withdrawals.get(entry.digest)))
        # A failure of this node also ends the search: it says nothing about the version, so an older one is no remedy.
        if not candidates[-1].against_version or not falls_back:
            break
    return Readiness(address, tuple(candidates), falls_back)


@contextmanager
def hold_ready(
    workspace: Workspace,
    readiness: Readiness,
    *,
    arriving: bool = False,
    progress: Progress | None = None,
    cancel: Event | None = None,
) -> Iterator[Version]:
    """Fetch the version of a `Readiness` to this node, and keep it there during the block.

    During the block the address resolves to this version in this process, even if the ref moves on. With `arriving`,
    the fetching only begins, in another process.

    Raises:
        GateFailed: No version is ready, or a file of it is damaged here; the message says why, whose turn it is and
            what to do.
        StagegateError: The version could not be fetched.
    """
    address, candidate = readiness.address, readiness.chosen
    # Counted by itself, since the block is the run's own work.
    with step(workspace, "require", address.dataset) as job:
        job.note(target=address.ref)
        if candidate is None:
            raise GateFailed(ready_text(readiness), dataset=address.dataset)
        digest = candidate.digest
        job.note(digest=digest)
    # Lease the version before it is fetched, so that no collection removes it in between.
    with workspace.cache.leases.hold(LeaseKind.READER, address.dataset, digest, f"require_ready {address}"):
        exact = Address(address.dataset, digest)
        # A version that the run fell back to is not the one that the ref names.
        ref = "" if readiness.fell_back else address.ref
        if arriving and workspace.cache.views.path(address.dataset, digest) is None:
            version = begin_arriving(workspace, address.dataset, digest, ref)
        else:
            version = fetch_version(workspace, exact, "require_ready", follow=ref, progress=progress, cancel=cancel)
            require_undamaged(workspace, address.dataset, digest, GateFailed)
        held = OpenDataset(version.dataset, digest, version.path, address.ref, workspace.catalog)
        with override_ref(workspace, address, digest), used(held):
            yield version


def _accepted(log: Sequence[RefEntry], withdrawals: Mapping[str, RefEntry]) -> list[RefEntry]:
    """The last entry of each version that a target accepted and did not withdraw, the newest first.

    The version that the ref names comes first even if it was withdrawn: its gate says whether runs wait or fall back.
    """
    newest = {entry.digest: entry for entry in moves(log)}
    kept = [entry for entry in newest.values() if entry.digest not in withdrawals or entry.digest == log[-1].digest]
    return sorted(kept, key=lambda entry: entry.seq, reverse=True)


def _examine(
    workspace: Workspace,
    version: ResolvedVersion,
    gate: Gate,
    entry: RefEntry,
    decision: Decision,
    withdrawal: RefEntry | None,
) -> Candidate:
    """Repeat the cheap checks of an accepted version, and say what keeps a run from using it."""
    stored = counted_evidence(workspace.catalog, version)
    context = build_context(workspace, version, gate)
    # Reading a table for its newest time is expensive, so use the recorded time where there is one.
    times = recorded_times(stored, context)
    cheap = replace(context, facts={table_time: lambda table: times.get(table) or table_time(context, table)})
    renewed = renew(cheap, stored, decision)
    return Candidate(
        report=build_report(renewed.decision, version.spec),
        since=entry.at,
        by=str(entry.who),
        renewed=renewed.rerun,
        against_version=tuple(dict.fromkeys((*renewed.against_version, *_failed_checks(withdrawal)))),
        against_node=renewed.against_node,
        withdrawn=f"withdrawn {withdrawal.at[:16]}Z by {withdrawal.who}: {withdrawal.reason}" if withdrawal else "",
    )


def _failed_checks(withdrawal: RefEntry | None) -> tuple[str, ...]:
    """The checks for whose failure a version was withdrawn; none for a rollback."""
    if withdrawal is None or withdrawal.action is not RefAction.WITHDRAW:
        return ()
    return tuple(evidence.check for evidence in version_failures(decision_of(withdrawal.attestation)))
