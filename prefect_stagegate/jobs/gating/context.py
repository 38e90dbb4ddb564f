"""Building the `CheckContext` of one version: the facts that checks read from node, catalog and sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from threading import Event
from typing import TypeVar

from prefect_stagegate.cache.gc import collect
from prefect_stagegate.cache.quarantine import Quarantine
from prefect_stagegate.cache.space import SpaceRules, used_bytes
from prefect_stagegate.cache.verify import Pace, file_problem
from prefect_stagegate.catalog import Catalog, RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.clock import now
from prefect_stagegate.errors import StagegateError
from prefect_stagegate.gate import Accepted, CheckContext, Integrity, Machine, Probe, Volume, find_gpus
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.jobs.address import ResolvedVersion
from prefect_stagegate.jobs.environment import capture_environment, environment_of
from prefect_stagegate.jobs.gating.approve import request_for
from prefect_stagegate.jobs.gating.contract import run_contract
from prefect_stagegate.jobs.gating.measuring import VersionMeasures
from prefect_stagegate.jobs.gating.parameters import suite_facts
from prefect_stagegate.jobs.read import keep_dataset
from prefect_stagegate.jobs.staging.probe import probe
from prefect_stagegate.jobs.staging.sources import open_sources, open_spec_source
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Address, CredentialLife, Finding, Validation
from prefect_stagegate.plugins.signatures.file_digests import file_digests, read_file
from prefect_stagegate.plugins.signatures.signature_bundle import MOST_BYTES
from prefect_stagegate.sources import renewing
from prefect_stagegate.sources.selection.selection import Selection
from prefect_stagegate.spec import Gate
from prefect_stagegate.validations import newest_time

T = TypeVar("T")


def build_context(
    workspace: Workspace,
    version: ResolvedVersion,
    gate: Gate,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    reread: bool = False,
    data_docs: Path | None = None,
) -> CheckContext:
    """Collect the facts about a version that the checks of a gate read. Expensive facts are computed on first use.

    Args:
        workspace: Cache and catalog.
        version: The version, and the spec that it is judged under.
        gate: The gate; with an empty target when nobody asks for a promotion.
        cancel: Set it to stop while the version is fetched to be validated.
        progress: Called with lines for people while the contract runs.
        reread: Whether to read all files again, also those that an earlier validation counted or probed.
        data_docs: A new or empty folder for Great Expectations' own pages of the contract's results.
    """
    dataset, digest = version.dataset, version.digest
    manifest = workspace.catalog.manifest(dataset, digest)
    # Requests, waivers and logs belong to a target, so there are none for a gate without one.
    request = request_for(workspace, dataset, digest, gate.target, gate.policy) if gate.target else None
    machine = Machine()
    # Before the log is read: a decision must not claim to follow a withdrawal that it did not see.
    after = workspace.catalog.moved(dataset, gate.target) if gate.target else 0
    log = workspace.catalog.history(dataset, gate.target) if gate.target else []
    reference = _reference(workspace.catalog, log, digest)
    authority = authority_of(version.spec, gate.target, lambda: workspace.catalog.id)
    waivers = workspace.catalog.waivers(dataset, digest, gate.target) if gate.target else []

    # What validations kept of single files is not signed.
    reread = reread or bool(version.spec.policy.node_keys)

    def validation() -> Validation:
        facts = suite_facts(workspace.catalog, version, gate, reference)
        return run_contract(workspace, version, cancel, progress, reread=reread, data_docs=data_docs, facts=facts)

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
        environment=capture_environment(workspace.settings, workspace.cache.root),
        entries=manifest.entries,
        origins=lambda: workspace.catalog.origins(dataset, digest),
        failed=cache(lambda: workspace.catalog.failed(dataset, digest)),
        validation=_cache_with_errors(validation),
        table_time=lambda table: _newest(workspace, version, table),
        probe_source=lambda position: _probe(workspace, version, position),
        credential_life=lambda position: _credential_life(workspace, version, position),
        measures=VersionMeasures(workspace, version, cancel),
        integrity=lambda: _integrity(workspace, version, cancel),
        rotten=cache(lambda: _rotten(workspace, version)),
        volume=lambda: _volume(workspace, version),
        view=lambda: workspace.cache.views.path(dataset, digest),
        gpus=_cache_with_errors(lambda: find_gpus(machine)),
        machine=machine,
        resolvable=lambda other: workspace.catalog.has_version(dataset, other),
        file_digests=lambda algorithm: file_digests(workspace, manifest, algorithm, _pace(workspace, cancel)),
        read_file=lambda entry: read_file(workspace, manifest, entry),
        signatures=_signatures(workspace, dataset, digest),
        allowed_hosts=workspace.settings.allowed_hosts,
        adopted=version.adopted,
        after=after,
        below=_below(workspace, version, gate.extends) if gate.extends else None,
        accepted=_last_accepted(workspace.catalog, log, digest),
        reference=reference,
        request=request,
        approvals=tuple(workspace.catalog.approvals(request)) if request else (),
        waivers=authority.waivers(waivers, (request.requester if request else workspace.identity).name),
        revocations=authority.revocations(workspace.catalog.revocations(dataset, digest)),
    )


def _signatures(workspace: Workspace, dataset: str, digest: str) -> Callable[[], Iterator[bytes]]:
    """Reads signatures of a version's files one by one. All calls give the same, since answers are bound to them."""
    keys = _cache_with_errors(lambda: workspace.catalog.model_signature_keys(dataset, digest))
    return lambda: (workspace.catalog.model_signature(key, MOST_BYTES) for key in keys())


def _cache_with_errors(compute: Callable[[], T]) -> Callable[[], T]:
    """Cache a function's result, or its error: checks wait once for a driver that hangs or a contract that fails."""

    @cache
    def outcome() -> T | StagegateError:
        try:
            return compute()
        except StagegateError as error:
            return error

    def result() -> T:
        value = outcome()
        if isinstance(value, StagegateError):
            raise value
        return value

    return result


def _below(workspace: Workspace, version: ResolvedVersion, target: str) -> Accepted | None:
    """This version, if the gate below accepted it and did not withdraw it, else what that gate's ref names.

    The ref may have moved on while this version waited for an approval. That withdraws nothing.
    """
    catalog = workspace.catalog
    entries = catalog.history(version.dataset, target)
    accepted, withdrawals = moves(entries), withdrawn(entries)
    to_version = [entry for entry in accepted if entry.digest == version.digest]
    if to_version and version.digest not in withdrawals:
        later = [entry for entry in accepted if entry.seq > to_version[-1].seq]
        return replace(_accepted(catalog, to_version[-1]), until=later[0].at if later else "")
    return _accepted(catalog, accepted[-1]) if accepted and accepted[-1].digest not in withdrawals else None


def _last_accepted(catalog: Catalog, log: Sequence[RefEntry], digest: str) -> Accepted | None:
    """The newest version other than `digest` that a target accepted and did not withdraw."""
    withdrawals = withdrawn(log)
    others = [entry for entry in moves(log) if entry.digest != digest and entry.digest not in withdrawals]
    return _accepted(catalog, others[-1]) if others else None


def _reference(catalog: Catalog, entries: Sequence[RefEntry], digest: str) -> Accepted | None:
    """The version to compare this one with: what the target named before it accepted this one.

    Where the target never accepted this version, or withdrew it, that is what the target names now. A later move, or a
    rollback to this version, does not change the reference, so the evidence that it was accepted with stays current.
    """
    promotions = [entry.seq for entry in entries if entry.digest == digest and entry.action is RefAction.PROMOTE]
    end = promotions[-1] if promotions and digest not in withdrawn(entries) else None
    return _last_accepted(catalog, [entry for entry in entries if end is None or entry.seq < end], digest)


def _accepted(catalog: Catalog, entry: RefEntry) -> Accepted:
    if not entry.attestation:
        return Accepted(entry.ref, entry.digest, entry.at)
    environment = cache(lambda: environment_of(catalog, entry))
    return Accepted(entry.ref, entry.digest, entry.at, decision_of(entry.attestation), environment)


def _newest(workspace: Workspace, version: ResolvedVersion, table: str) -> datetime | None:
    view = workspace.cache.views.path(version.dataset, version.digest)
    entries = workspace.catalog.manifest(version.dataset, version.digest).entries()
    return newest_time(view, entries, version.spec.contract.tables[table]) if view else None


def _volume(workspace: Workspace, version: ResolvedVersion) -> Volume:
    """The cache's volume."""
    root = workspace.cache.root
    stat = os.statvfs(root)
    total = stat.f_blocks * stat.f_frsize
    manifest = workspace.catalog.manifest(version.dataset, version.digest)
    is_here = workspace.cache.views.path(version.dataset, version.digest) is not None
    blobs = workspace.cache.blobs
    held = manifest.bytes if is_here else sum(e.size for e in manifest.entries() if blobs.holds(e.digest, e.size))
    # `f_bavail` and not `f_bfree`: the rest is kept for root.
    free, floor = stat.f_bavail * stat.f_frsize, SpaceRules(workspace.settings.free_floor).kept_free(total)
    quota_left = _quota_left(workspace, held, manifest.bytes)
    return Volume(root, total, free, floor, held, stat.f_files, stat.f_favail, quota_left)


def _quota_left(workspace: Workspace, held: int, size: int) -> int | None:
    """Bytes that the cache's own limit leaves for a version of `size` bytes, `held` of them here, or None."""
    limit = workspace.settings.max_size
    if limit is None:
        return None
    left = limit - used_bytes(workspace.cache.layout)
    # A collection is foreseen only where it may matter, since it looks at every file.
    if left + held < 2 * size:
        # What is held may be part of what a collection would free, and counts once.
        left += max(0, collect(workspace.cache.layout, dry_run=True).bytes - held)
    return min(left, limit - held)


def _integrity(workspace: Workspace, version: ResolvedVersion, cancel: Event | None) -> Integrity:
    """Hash the version's files on this node. Unlike `stagegate verify` it quarantines nothing: a check only reads."""
    pace = _pace(workspace, cancel)
    manifest = workspace.catalog.manifest(version.dataset, version.digest)
    with keep_dataset(workspace.cache, Address(version.dataset, version.digest), "check") as held:
        problems = ((entry.path, file_problem(held.path / entry.path, entry, pace)) for entry in manifest.entries())
        damaged = tuple(Finding(path, problem) for path, problem in problems if problem)
    return Integrity(manifest.files, pace.bytes, damaged)


def _rotten(workspace: Workspace, version: ResolvedVersion) -> tuple[str, ...]:
    quarantined = Quarantine(workspace.cache.layout).all()
    if not quarantined:
        return ()  # seldom is anything in there, and reading the manifest takes long
    digests = {entry.digest for entry in workspace.catalog.manifest(version.dataset, version.digest).entries()}
    return tuple(sorted(file.name for file in quarantined if file.digest in digests))


def _pace(workspace: Workspace, cancel: Event | None) -> Pace:
    return Pace(workspace.settings.verify_rate, cancel)


def _credential_life(workspace: Workspace, version: ResolvedVersion, position: int) -> CredentialLife:
    with open_sources(workspace, version.spec, only=position) as sources:
        return sources.groups[0].primary.credential_life()


def _probe(workspace: Workspace, version: ResolvedVersion, position: int) -> Probe:
    source = version.spec.sources[position]
    reopen = partial(renewing, partial(open_spec_source, source, workspace.settings, workspace.resolve_credentials))
    return probe(source.url, reopen, Selection(source, now()))
