"""What checks may ask about one version: the facts that this node, the catalog and the sources give."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from threading import Event
from typing import TypeVar

from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import SpaceRules
from prefect_stagegate.cache.verify import Pace, file_problem
from prefect_stagegate.catalog import RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.clock import now
from prefect_stagegate.environment import Environment
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.model import Address, CredentialLife, Finding
from prefect_stagegate.operations.address import Named
from prefect_stagegate.operations.environment import here
from prefect_stagegate.operations.gating.approve import request_for
from prefect_stagegate.operations.gating.contract import run_contract
from prefect_stagegate.operations.gating.measuring import VersionMeasures
from prefect_stagegate.operations.read import keep_dataset
from prefect_stagegate.operations.staging.probe import probe
from prefect_stagegate.operations.staging.sources import open_sources, open_spec_source
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import Accepted, CheckContext, Integrity, Machine, Probe, Volume, find_gpus
from prefect_stagegate.readiness.records.attest import decision_of, environment_of
from prefect_stagegate.sources import renewing
from prefect_stagegate.sources.selection.selection import Selection
from prefect_stagegate.spec import Gate
from prefect_stagegate.validations import newest_time

T = TypeVar("T")


def ask_about(
    workspace: Workspace,
    version: Named,
    gate: Gate,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
) -> CheckContext:
    """Gather what the checks of a gate may ask about a version; what costs something waits until it is asked.

    Args:
        workspace: Cache and catalog.
        version: The version, and the spec it is spoken about under.
        gate: Its target is empty where nobody asks at a gate.
        cancel: Set it to stop the bringing of a version that is to be validated.
        progress: Called with lines for people while the contract is run.
    """
    dataset, digest = version.dataset, version.digest
    manifest = workspace.catalog.manifest(dataset, digest)
    request = request_for(workspace, dataset, digest, gate.target, gate.policy) if gate.target else None
    machine = Machine()
    log = workspace.catalog.history(dataset, gate.target) if gate.target else []
    return CheckContext(
        dataset=dataset,
        digest=digest,
        files=manifest.files,
        bytes=manifest.bytes,
        spec=version.spec,
        gate=gate,
        now=now(),
        requester=workspace.identity,
        node=workspace.settings.node,
        environment=here(workspace.settings, workspace.cache.root),
        entries=manifest.entries,
        origins=lambda: workspace.catalog.origins(dataset, digest),
        failed=cache(lambda: workspace.catalog.failed(dataset, digest)),
        validation=cache(lambda: run_contract(workspace, version, cancel, progress)),
        table_time=lambda table: _newest(workspace, version, table),
        probe_source=lambda position: _probe(workspace, version, position),
        credential_life=lambda position: _credential_life(workspace, version, position),
        measures=VersionMeasures(workspace, version, cancel),
        integrity=lambda: _integrity(workspace, version, cancel),
        rotten=cache(lambda: _rotten(workspace, version)),
        volume=lambda: _volume(workspace, version),
        view=lambda: workspace.cache.views.path(dataset, digest),
        gpus=_once(lambda: find_gpus(machine)),
        machine=machine,
        resolvable=lambda other: workspace.catalog.has_version(dataset, other),
        allowed_hosts=workspace.settings.allowed_hosts,
        adopted=version.adopted,
        after=len(log),
        below=_below(workspace, version, gate.extends) if gate.extends else None,
        accepted=_last_accepted(log, digest),
        reference=_reference(log, digest),
        request=request,
        approvals=tuple(workspace.catalog.approvals(request)) if request else (),
        waivers=tuple(workspace.catalog.waivers(dataset, digest, gate.target)) if gate.target else (),
        revocations=tuple(workspace.catalog.revocations(dataset, digest)),
    )


def _once(ask: Callable[[], T]) -> Callable[[], T]:
    """The same answer for all who ask, and the same failure: what hangs is waited for once."""

    @cache
    def asked() -> T | StagegateError:
        try:
            return ask()
        except StagegateError as error:
            return error

    def answer() -> T:
        told = asked()
        if isinstance(told, StagegateError):
            raise told
        return told

    return answer


def _below(workspace: Workspace, version: Named, target: str) -> Accepted | None:
    """This version, if the gate below let it in and did not take it back, else what that gate's ref names.

    The ref may have moved on while the version waited for an approval, which takes nothing back.
    """
    entries = workspace.catalog.history(version.dataset, target)
    let_in, taken = moves(entries), withdrawn(entries)
    own = [entry for entry in let_in if entry.digest == version.digest]
    if own and version.digest not in taken:
        after = [entry for entry in let_in if entry.seq > own[-1].seq]
        return replace(_accepted(own[-1]), until=after[0].at if after else "")
    return _accepted(let_in[-1]) if let_in and let_in[-1].digest not in taken else None


def _last_accepted(log: Sequence[RefEntry], digest: str) -> Accepted | None:
    """The newest version that a target's log let in and did not take back, other than one."""
    taken = withdrawn(log)
    others = [entry for entry in moves(log) if entry.digest != digest and entry.digest not in taken]
    return _accepted(others[-1]) if others else None


def _reference(entries: Sequence[RefEntry], digest: str) -> Accepted | None:
    """The version that a target named before it let this one in; what it names now, where it has not, or took it back.

    So a later move, or a rollback to this version, leaves the answers that it was let in with as they are.
    """
    own = [entry.seq for entry in entries if entry.digest == digest and entry.action is RefAction.PROMOTE]
    let_in = own[-1] if own and digest not in withdrawn(entries) else None
    return _last_accepted([entry for entry in entries if let_in is None or entry.seq < let_in], digest)


def _accepted(entry: RefEntry) -> Accepted:
    statement = entry.attestation
    decision = decision_of(statement) if statement else None
    environment: Environment | None = environment_of(statement) if statement else None
    return Accepted(entry.ref, entry.digest, entry.at, decision, environment)


def _newest(workspace: Workspace, version: Named, table: str) -> datetime | None:
    view = workspace.cache.views.path(version.dataset, version.digest)
    entries = workspace.catalog.manifest(version.dataset, version.digest).entries()
    return newest_time(view, entries, version.spec.contract.tables[table]) if view else None


def _volume(workspace: Workspace, version: Named) -> Volume:
    root = workspace.cache.root
    stat = os.statvfs(root)
    total = stat.f_blocks * stat.f_frsize
    manifest = workspace.catalog.manifest(version.dataset, version.digest)
    here = workspace.cache.views.path(version.dataset, version.digest) is not None
    blobs = workspace.cache.blobs
    held = manifest.bytes if here else sum(e.size for e in manifest.entries() if blobs.holds(e.digest, e.size))
    free, floor = stat.f_bavail * stat.f_frsize, SpaceRules(workspace.settings.free_floor).kept_free(total)
    return Volume(root, total, free, floor, held, stat.f_files, stat.f_favail)


def _integrity(workspace: Workspace, version: Named, cancel: Event | None) -> Integrity:
    """Hash the version's files as they lie here. Unlike a verification it moves nothing aside: a check only looks."""
    pace = Pace(workspace.settings.verify_rate, cancel)
    manifest = workspace.catalog.manifest(version.dataset, version.digest)
    with keep_dataset(workspace.cache, Address(version.dataset, version.digest), "check") as held:
        problems = ((entry.path, file_problem(held.path / entry.path, entry, pace)) for entry in manifest.entries())
        damaged = tuple(Finding(path, problem) for path, problem in problems if problem)
    return Integrity(manifest.files, pace.bytes, damaged)


def _rotten(workspace: Workspace, version: Named) -> tuple[str, ...]:
    found = Quarantine(workspace.cache.layout).all()
    if not found:
        return ()
    own = {entry.digest for entry in workspace.catalog.manifest(version.dataset, version.digest).entries()}
    return tuple(sorted(one.name for one in found if one.digest in own))


def _credential_life(workspace: Workspace, version: Named, position: int) -> CredentialLife:
    with open_sources(workspace, version.spec, only=position) as sources:
        return sources.groups[0].primary.credential_life()


def _probe(workspace: Workspace, version: Named, position: int) -> Probe:
    one = version.spec.sources[position]
    reopen = partial(renewing, partial(open_spec_source, one, workspace.settings, workspace.resolve_credentials))
    return probe(one.url, reopen, Selection(one, now()))
