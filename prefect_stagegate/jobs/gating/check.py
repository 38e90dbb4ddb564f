"""Checking: run the checks of a gate whose evidence is missing or stale, decide, and record the decision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from threading import Event

from prefect_stagegate.catalog.gate_records import REVOCATIONS, SIGNATURES, put_attestation, read_answers, read_waivers
from prefect_stagegate.catalog.policies import policy_log
from prefect_stagegate.catalog.version_records import read_manifest
from prefect_stagegate.clock import now
from prefect_stagegate.errors import Cancelled, CorruptRecord, UsageError, suggest
from prefect_stagegate.gate.approval_counting import counted_answers
from prefect_stagegate.gate.authority import authority_of
from prefect_stagegate.gate.check_context import CheckContext
from prefect_stagegate.gate.evidence_rules import run_check
from prefect_stagegate.gate.gate import PlannedCheck, judge, plan_checks
from prefect_stagegate.gate.records.answers import PersonKey, signer_of
from prefect_stagegate.gate.records.attest import attest, statement_digest
from prefect_stagegate.gate.records.signing import SigningKey
from prefect_stagegate.jobs.address import SpecLike, parse, resolve
from prefect_stagegate.jobs.environment import capture_environment
from prefect_stagegate.jobs.gating.approve import request_approval, request_for
from prefect_stagegate.jobs.gating.proofs import counted_evidence, key_of_node, put_signed
from prefect_stagegate.jobs.gating.withdraw import withdraw_failed_version
from prefect_stagegate.jobs.runner import step
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Evidence
from prefect_stagegate.spec import Gate, Spec
from prefect_stagegate.workspace import ResolvedVersion, Workspace

log = logging.getLogger(__name__)

Announce = Callable[[Sequence[PlannedCheck]], None]
"""Takes the plan: which checks will run, and why."""
Progress = Callable[[str], None]
"""Takes a line for people: which check runs, and what it does."""


def check(
    workspace: Workspace,
    version_or_spec: SpecLike | Address,
    gate: str,
    *,
    spec: SpecLike | None = None,
    asked_by: PersonKey | None = None,
) -> Decision:
    """Decide whether a target accepts a version, and record the decision.

    Evidence that is still current is used again. When only an approval is missing, a request for it is recorded, and
    the outcome is `waiting`. Under a spec that the caller brings it is a trial: nothing is recorded.

    Args:
        workspace: Cache and catalog.
        version_or_spec: A version's address, or a spec. Without a ref: the version that the gate below accepted, else
            `latest`.
        gate: The target's name.
        spec: A spec to try instead of the adopted policy.
        asked_by: Signs the request, where the gate wants to know who asked.

    Raises:
        UsageError: There is no such version, or the spec has no such gate.
    """
    return check_version(workspace, *resolve_for_gate(workspace, version_or_spec, gate, spec), asked_by=asked_by)


def check_version(
    workspace: Workspace,
    version: ResolvedVersion,
    gate: Gate,
    *,
    again: Collection[str] = (),
    cancel: Event | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
    asked_by: PersonKey | None = None,
) -> Decision:
    """Check a version that `resolve_for_gate` returned; see `check`.

    Args:
        workspace: Cache and catalog.
        version: The version.
        gate: The target's gate.
        again: The checks that are asked although their evidence is current.
        cancel: Set it to stop before the next check, or while the version is fetched; nothing is decided then.
        announce: Called with the plan before the first check runs.
        progress: Called with lines for people while the work goes on.
        asked_by: As of `check`.
    """
    if asked_by:
        workspace = replace(workspace, identity=signer_of(workspace.identity, asked_by))
    key = key_of_node(workspace, version)
    report = _CheckProgress(progress)
    subject = None if version.is_trial else version
    with step(workspace, "check", version.dataset, target=gate.target, subject=subject) as job:
        job.note(digest=version.digest, target=gate.target)
        context = build_context(workspace, version, gate, cancel, report)
        evidence, record = _collect_evidence(workspace, version, context, again, key, cancel, announce, report)
        with step(workspace, "decide", version.dataset) as decided:
            decision = judge(context, evidence, record)
            decided.note(digest=version.digest, target=gate.target, outcome=decision.outcome.value)
            if not version.is_trial:
                _record_decision(workspace, version, gate, context, decision, key, asked_by)
        job.note(outcome=decision.outcome.value)
        job.result = decision.checks
    return decision


def _record_decision(
    workspace: Workspace,
    version: ResolvedVersion,
    gate: Gate,
    context: CheckContext,
    decision: Decision,
    key: SigningKey | None,
    asked_by: PersonKey | None,
) -> None:
    answers = counted_answers(decision, context.approvals)
    statement = attest(decision, context.environment, context.request, answers)
    if key:  # before the attestation, so that no decision is ever recorded without its signature
        workspace.catalog.create(
            SIGNATURES, dict(key.sign(statement)), version.dataset, statement_digest(statement), key.id
        )
    put_attestation(workspace.catalog, version.dataset, version.digest, gate.target, statement)
    # After the attestation: a promotion under way looks for a later decision once it moved the ref.
    withdraw_failed_version(workspace, decision, statement)
    if decision.outcome is DecisionOutcome.WAITING:
        request_approval(workspace, decision, asked_by)


def preview_version(workspace: Workspace, version: ResolvedVersion, gate: Gate) -> tuple[PlannedCheck, ...]:
    """Plan what `check_version` would run, what evidence it would use again, and why. Changes nothing."""
    return plan_checks(build_context(workspace, version, gate), _readable_evidence(workspace, version))


def _readable_evidence(workspace: Workspace, version: ResolvedVersion) -> list[Evidence]:
    """The evidence that counts; none where its record is damaged: all checks run again, and a new one replaces it."""
    try:
        return counted_evidence(workspace.catalog, version)
    except CorruptRecord as error:
        log.warning("All checks run again: %s", error.message)
        return []


def resolve_for_gate(
    workspace: Workspace, version_or_spec: SpecLike | Address, target: str, spec: SpecLike | None = None
) -> tuple[ResolvedVersion, Gate]:
    """Resolve a version for a gate, and find the gate in the spec that it is judged under.

    Without a ref it is the version that the gate below accepted, else `latest`.
    """
    parsed = parse(version_or_spec)
    newest = resolve(workspace, parsed, spec)
    gate = _gate(workspace, newest, target)
    if isinstance(parsed, Spec) or parsed.ref or not gate.extends:
        return newest, gate
    # A newer version has not passed the gate below yet, so judge the one that this gate's ref names.
    below = workspace.catalog.ref(newest.dataset, gate.extends)
    if below is None or below.digest == newest.digest:
        return newest, gate
    older = resolve(workspace, Address(newest.dataset, below.digest), spec)
    return older, _gate(workspace, older, target)


def _gate(workspace: Workspace, version: ResolvedVersion, target: str) -> Gate:
    """The gate of a target in the spec that a version is judged under.

    Raises:
        UsageError: The spec has no such gate.
    """
    gates = version.spec.gates
    if version.is_trial or target in gates:
        return version.spec.gate(target)
    if gates:
        problem = "adopted a policy without one"
        adopts = "A gate of a newer spec counts after `stagegate policy adopt SPEC --reason TEXT`."
        hint = f"{suggest(target, gates, 'It')} {adopts}"
    elif policy_log(workspace.catalog, version.dataset).head() is None:
        problem, hint = "adopted no policy yet", "`stagegate policy adopt SPEC --reason TEXT` adopts the one of a spec."
    else:
        problem, hint = "adopted a policy without gates", f"`stagegate policy show {version.dataset}` prints it."
    raise UsageError(
        f"There is no gate for {target!r}: {version.dataset} {problem}", hint=hint, dataset=version.dataset
    )


class _CheckProgress:
    """Puts the name of the running check before each line that it reports."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._check = ""

    def begin(self, check: str) -> None:
        """Report that a check starts."""
        self._check = check
        if self._progress:
            self._progress(check)

    def __call__(self, line: str) -> None:
        """Report a line of the running check."""
        if self._progress:
            self._progress(f"{self._check}: {line}")


def _collect_evidence(
    workspace: Workspace,
    version: ResolvedVersion,
    context: CheckContext,
    again: Collection[str],
    key: SigningKey | None,
    cancel: Event | None,
    announce: Announce | None,
    report: _CheckProgress,
) -> tuple[list[Evidence], list[Evidence]]:
    """Run the checks whose evidence is missing or stale, and record what they found.

    Returns:
        The evidence to decide by, and all evidence about the version, recorded and new.
    """
    record = _readable_evidence(workspace, version)
    planned = plan_checks(context, [evidence for evidence in record if evidence.check not in again])
    if announce:
        announce(planned)
    due = [check for check in planned if check.evidence is None]
    fresh = []
    for number, check in enumerate(due, start=1):
        if cancel and cancel.is_set():
            raise Cancelled(f"The check of {context.address} was stopped", dataset=context.dataset)
        report.begin(f"{check.requirement.check} ({number} of {len(due)})")
        with step(workspace, "evidence", context.dataset) as job:
            job.note(check=check.requirement.check)
            result = run_check(check.definition, check.requirement, context)
            job.note(outcome=result.outcome.value)
        fresh.append(result)
    # One record for all checks, and none when the check was stopped before it decided.
    if not version.is_trial:
        put_signed(workspace.catalog, version, fresh, key)
    return [check.evidence for check in planned if check.evidence is not None] + fresh, record + fresh


def build_context(
    workspace: Workspace,
    version: ResolvedVersion,
    gate: Gate,
    cancel: Event | None = None,
    progress: Callable[[str], None] | None = None,
) -> CheckContext:
    """The context that the checks of a gate read.

    Args:
        workspace: Cache and catalog.
        version: The version, and the spec that it is judged under.
        gate: The gate; with an empty target when nobody asks for a promotion.
        cancel: Set it to stop while the version is fetched to be validated.
        progress: Called with lines for people while the contract runs.
    """
    catalog, dataset, digest = workspace.catalog, version.dataset, version.digest
    # Requests, waivers and logs belong to a target, so there are none for a gate without one.
    request = request_for(workspace, dataset, digest, gate.target, gate.policy) if gate.target else None
    authority = authority_of(version.spec, gate.target, lambda: catalog.id)
    waivers = read_waivers(catalog, dataset, digest, gate.target) if gate.target else ()
    return CheckContext(
        version=version,
        manifest=read_manifest(catalog, dataset, digest),
        gate=gate,
        now=now(),
        workspace=workspace,
        environment=capture_environment(workspace.settings, workspace.cache.root),
        # Facts read the log later: a decision must not claim to follow a withdrawal that it did not see.
        after=catalog.ref_log(dataset, gate.target).count() if gate.target else 0,
        request=request,
        approvals=tuple(read_answers(catalog, request)) if request else (),
        waivers=authority.waivers(waivers, (request.requester if request else workspace.identity).name),
        revocations=authority.revocations(catalog.all(REVOCATIONS, dataset, digest)),
        cancel=cancel,
        progress=progress,
    )
