"""Checking: gather the evidence that a gate requires and that is missing or stale, decide, and record the decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

from prefect_stagegate.errors import Cancelled, UsageError
from prefect_stagegate.model import Address, Decision, DecisionOutcome, Evidence
from prefect_stagegate.operations.address import Named, SpecLike, parse, resolve
from prefect_stagegate.operations.gating.approve import ask
from prefect_stagegate.operations.gating.context import ask_about
from prefect_stagegate.operations.gating.withdraw import withdraw_what_failed
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import CheckContext, PlannedCheck, judge, plan_checks, run_check
from prefect_stagegate.readiness.checks.approval import counted_answers
from prefect_stagegate.readiness.records.attest import attest, statement_digest
from prefect_stagegate.readiness.records.signing import SigningKey, read_signing_key
from prefect_stagegate.spec import Gate, Spec

Announce = Callable[[Sequence[PlannedCheck]], None]
"""Takes what a check is going to do."""
Progress = Callable[[str], None]
"""Takes a line for people: which check is being asked, and what it does."""


def check(
    workspace: Workspace,
    named: SpecLike | Address,
    gate: str,
    *,
    spec: SpecLike | None = None,
    cancel: Event | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
) -> Decision:
    """Decide whether a version may go where a gate leads, and record why.

    Evidence that still holds is used again. When all that is missing is an approval, a request for it is recorded,
    and the outcome is `waiting`. Under a spec of the asker's own it is a trial: nothing is recorded.

    Args:
        workspace: Cache and catalog.
        named: A version's address, or a spec. Without a ref: the version that the gate below accepted, else `latest`.
        gate: The target's name.
        spec: A spec to try instead of the adopted policy.
        cancel: Set it to stop in time, before the next check or while the version is brought; nothing is decided then.
        announce: Told what is to be asked, and why, before the first check is.
        progress: Called with lines for people while the work goes on.

    Raises:
        UsageError: There is no such version, or the spec has no such gate.
    """
    version, policy = for_gate(workspace, named, gate, spec)
    return check_version(workspace, version, policy, cancel=cancel, announce=announce, progress=progress)


def check_version(
    workspace: Workspace,
    version: Named,
    gate: Gate,
    *,
    cancel: Event | None = None,
    announce: Announce | None = None,
    progress: Progress | None = None,
) -> Decision:
    """Do the same for a version that `for_gate` found."""
    key = signing_key(workspace)
    report = _CheckProgress(progress)
    context = ask_about(workspace, version, gate, cancel, report)
    decision = judge(context, *_gather(workspace, version, context, cancel, announce, report))
    if version.is_trial:
        return decision
    answers = counted_answers(decision, context.approvals)
    statement = attest(decision, context.environment, context.request, answers)
    if key:  # the signature first: a decision that is recorded is a decision that is signed
        workspace.catalog.put_signature(version.dataset, statement_digest(statement), key.id, key.sign(statement))
    workspace.catalog.put_attestation(version.dataset, version.digest, gate.target, statement)
    withdraw_what_failed(workspace, decision, statement)
    if decision.outcome is DecisionOutcome.WAITING:
        ask(workspace, decision)
    return decision


def signing_key(workspace: Workspace) -> SigningKey | None:
    """The key that the settings name; read before anything is done, for a wrong one must leave nothing half done."""
    path = workspace.settings.signing_key
    return read_signing_key(path, workspace.ask_passphrase) if path else None


def preview_check(
    workspace: Workspace, named: SpecLike | Address, gate: str, *, spec: SpecLike | None = None
) -> tuple[PlannedCheck, ...]:
    """What `check` would ask, what it would use as it is, and why. Changes nothing."""
    return preview_version(workspace, *for_gate(workspace, named, gate, spec))


def preview_version(workspace: Workspace, version: Named, gate: Gate) -> tuple[PlannedCheck, ...]:
    """Do the same for a version that `for_gate` found."""
    stored = workspace.catalog.evidence(version.dataset, version.digest)
    return plan_checks(ask_about(workspace, version, gate), stored)


def for_gate(
    workspace: Workspace, named: SpecLike | Address, gate: str, spec: SpecLike | None = None
) -> tuple[Named, Gate]:
    """Find the version that is meant at a gate, and the gate that it is judged by.

    Without a ref that is the version which the gate below accepted, else `latest`.
    """
    what = parse(named)
    newest = resolve(workspace, what, spec)
    policy = _gate(workspace, newest, gate)
    if isinstance(what, Spec) or what.ref or not policy.extends:
        return newest, policy
    below = workspace.catalog.ref(newest.dataset, policy.extends)
    if below is None or below.digest == newest.digest:
        return newest, policy
    older = resolve(workspace, Address(newest.dataset, below.digest), spec)
    return older, _gate(workspace, older, gate)


def _gate(workspace: Workspace, version: Named, target: str) -> Gate:
    """The gate of a target in the spec that a version is judged under; says so where only another spec has it."""
    if version.spec.gates or version.is_trial:
        return version.spec.gate(target)
    if workspace.catalog.policy(version.dataset) is None:
        problem, hint = "adopted no policy yet", "`stagegate policy adopt SPEC --reason TEXT` adopts the one of a spec."
    else:
        problem, hint = "adopted a policy without gates", f"`stagegate policy show {version.dataset}` prints it."
    raise UsageError(
        f"There is no gate for {target!r}: {version.dataset} {problem}", hint=hint, dataset=version.dataset
    )


class _CheckProgress:
    """Names the check that is being asked before each line that its work reports."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._check = ""

    def begin(self, check: str) -> None:
        """Report that a check is asked now."""
        self._check = check
        if self._progress:
            self._progress(check)

    def __call__(self, line: str) -> None:
        """Report what its work does."""
        if self._progress:
            self._progress(f"{self._check}: {line}")


def _gather(
    workspace: Workspace,
    version: Named,
    context: CheckContext,
    cancel: Event | None,
    announce: Announce | None,
    report: _CheckProgress,
) -> tuple[list[Evidence], list[Evidence]]:
    """What still holds with the answers to what had to be asked again, and all that was found out before and now."""
    record = workspace.catalog.evidence(context.dataset, context.digest)
    planned = plan_checks(context, record)
    if announce:
        announce(planned)
    to_ask = [one for one in planned if one.evidence is None]
    fresh = []
    for number, one in enumerate(to_ask, start=1):
        if cancel and cancel.is_set():
            raise Cancelled(f"The check of {context.address} was stopped", dataset=context.dataset)
        report.begin(f"{one.requirement.check} ({number} of {len(to_ask)})")
        fresh.append(run_check(one.definition, one.requirement, context))
    if not version.is_trial:
        workspace.catalog.put_evidence(context.dataset, context.digest, fresh)
    return [one.evidence for one in planned if one.evidence] + fresh, record + fresh
