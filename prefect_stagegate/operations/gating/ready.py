"""Requiring readiness: give a version out only when the catalog says that its target accepted it, and that still holds.

    find_ready: ask the catalog, and again what is cheap to ask → Readiness
    hold_ready: lease what was found, bring it to this node, and keep it there while it is used

Nothing is written to the catalog: the catalog's ref says what was accepted, and a run's own findings are the run's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

from prefect_stagegate.cache.leases import LeaseKind
from prefect_stagegate.catalog import RefAction, RefEntry, adopted_as, moves, withdrawn
from prefect_stagegate.errors import GateFailed, UsageError
from prefect_stagegate.model import Address, Decision, Version
from prefect_stagegate.operations.address import Named, judged_spec
from prefect_stagegate.operations.gating.context import ask_about
from prefect_stagegate.operations.gating.withdraw import failed_for_all
from prefect_stagegate.operations.read import meaning
from prefect_stagegate.operations.staging.fetch import bring
from prefect_stagegate.operations.upkeep.node_refs import point
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import decision_of, recorded_times, renew
from prefect_stagegate.report import Candidate, Readiness, build_report, ready_text
from prefect_stagegate.spec import HOLD, Gate
from prefect_stagegate.transfer import Progress


def find_ready(workspace: Workspace, address: Address) -> Readiness:
    """Find the version that a run may use now: what the target names, or what it named before if its gate says so.

    Args:
        workspace: Cache and catalog. The catalog is asked, so that a rollback holds at once, on every node.
        address: The dataset and the target: `nycflights@production`.

    Raises:
        UsageError: The address names no target, or there is no such dataset.
        CorruptRecord: The ref's log or its attestation can't be believed.
    """
    if not address.target:
        raise UsageError(
            f"{address} names no target, and only a target's gate makes a version ready",
            hint=f"Name one, as in {address.dataset}@production.",
            dataset=address.dataset,
        )
    log = workspace.catalog.history(address.dataset, address.ref)
    if not log:
        workspace.catalog.require_dataset(address.dataset)
    tried: list[Candidate] = []
    falls_back = False
    taken = withdrawn(log)
    policies = workspace.catalog.policies(address.dataset)  # each version is judged by the one that let it in
    for entry in _accepted(log, taken):
        if tried and not workspace.catalog.has_version(address.dataset, entry.digest):
            continue  # nobody can return to it
        decision = decision_of(entry.attestation)
        adoption = adopted_as(policies, decision.adopted)
        spec = judged_spec(workspace.catalog, address.dataset, entry.digest, adoption)
        version = Named(address.dataset, entry.digest, spec, adopted=decision.adopted)
        gate = spec.gate(address.ref)
        falls_back = falls_back or (not tried and gate.on_withdrawal != HOLD)
        tried.append(_look(workspace, version, gate, entry, decision, taken.get(entry.digest)))
        if not tried[-1].against_version or not falls_back:
            break
    return Readiness(address, tuple(tried), falls_back)


@contextmanager
def hold_ready(
    workspace: Workspace, readiness: Readiness, *, progress: Progress | None = None, cancel: Event | None = None
) -> Iterator[Version]:
    """Have the version that was found on this node, complete, and keep it there during the block.

    In this process the address means exactly this version for as long, whatever its ref names meanwhile.

    Args:
        workspace: Cache and catalog.
        readiness: What `find_ready` gave.
        progress: Told what happens while the version is brought.
        cancel: Set it to stop in time.

    Raises:
        GateFailed: None was found; the message says why, whose turn it is and what to do.
        StagegateError: The version could not be brought here.
    """
    address, found = readiness.address, readiness.chosen
    if found is None:
        raise GateFailed(ready_text(readiness), dataset=address.dataset)
    with workspace.cache.leases.hold(LeaseKind.READER, address.dataset, found.digest, f"require_ready {address}"):
        with workspace.cache.leases.hold(LeaseKind.WRITER, address.dataset, what="require_ready") as writer:
            version = bring(workspace, Address(address.dataset, found.digest), writer, progress=progress, cancel=cancel)
            if not readiness.fell_back:
                point(workspace, address.dataset, address.ref, found.digest)
        with meaning(workspace.cache, address, found.digest):
            yield version


def _accepted(log: Sequence[RefEntry], taken: Mapping[str, RefEntry]) -> Iterator[RefEntry]:
    """The versions that a log let in and did not take back, the newest first, each once.

    What the ref names comes first even if it was withdrawn there: whether runs are held is for its gate to say.
    """
    newest = {entry.digest: entry for entry in moves(log)}
    standing = [entry for entry in newest.values() if entry.digest not in taken or entry.digest == log[-1].digest]
    return iter(sorted(standing, key=lambda entry: entry.seq, reverse=True))


def _look(
    workspace: Workspace, version: Named, gate: Gate, entry: RefEntry, decision: Decision, taken: RefEntry | None
) -> Candidate:
    stored = workspace.catalog.evidence(version.dataset, version.digest)
    context = ask_about(workspace, version, gate)
    times = recorded_times(stored, context)
    cheap = replace(context, table_time=lambda table: times.get(table) or context.table_time(table))
    renewed = renew(cheap, stored, decision)
    return Candidate(
        report=build_report(renewed.decision, version.spec),
        since=entry.at,
        by=str(entry.who),
        renewed=renewed.asked,
        against_version=tuple(dict.fromkeys((*renewed.against_version, *_withdrawn_for(taken)))),
        against_node=renewed.against_node,
        withdrawn=f"withdrawn {taken.at[:16]}Z by {taken.who}: {taken.reason}" if taken else "",
    )


def _withdrawn_for(taken: RefEntry | None) -> tuple[str, ...]:
    """The checks that a version was withdrawn for."""
    if taken is None or taken.action is not RefAction.WITHDRAW:
        return ()
    return tuple(answer.check for answer in failed_for_all(decision_of(taken.attestation)))
