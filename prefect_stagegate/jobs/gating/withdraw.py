"""Withdrawing: take back a version that a gate accepted, when the version fails a later check of the same gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_stagegate.catalog import RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.errors import RefConflict
from prefect_stagegate.gate.records.attest import decision_of
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome, Scope, Severity
from prefect_stagegate.workspace import Workspace

TRIES = 8
"""How often to try when others move the ref at the same time."""


def withdraw_failed_version(workspace: Workspace, decision: Decision, statement: Mapping[str, Any]) -> RefEntry | None:
    """Withdraw a version that its target accepted under the decision's policy, and that fails now; keep the ref.

    Failures of the environment or the node withdraw nothing: they don't count against the version. Runs that require
    the version wait or fall back, as the gate says. `promote --reinstate` promotes it again. The log keeps the
    statement, the new decision's attestation, as the reason.

    Returns:
        The new entry of the log; None when there was nothing to withdraw.
    """
    failed = version_failures(decision)
    if decision.outcome is not DecisionOutcome.REFUSED or not failed:
        return None
    names = ", ".join(evidence.check for evidence in failed)
    # Somebody may move the ref after its log was read. The move fails then, and the log is read again.
    for _ in range(TRIES):
        log = workspace.catalog.history(decision.dataset, decision.target)
        # A withdrawal would rest on the newest entry. While that isn't proved, the log serves nothing anyway.
        hidden = bool(log) and workspace.catalog.ref_log(decision.dataset, decision.target).count() > log[-1].seq
        if hidden or not _is_accepted(log, decision):
            return None
        try:
            # The entry names the version that the ref names already; only `withdrawn` is new.
            return workspace.catalog.move_ref(
                decision.dataset,
                decision.target,
                log[-1].digest,
                head=log[-1],
                action=RefAction.WITHDRAW,
                who=workspace.identity,
                reason=f"failed when it was checked again: {names}",
                withdrawn=decision.digest,
                attestation=statement,
            )
        except RefConflict:
            continue
    raise RefConflict(
        f"{decision.digest} could not be withdrawn, since others keep moving {decision.dataset}@{decision.target}",
        hint=f"Check it again, or roll back: `stagegate rollback {decision.dataset}@{decision.target} --reason …`.",
        dataset=decision.dataset,
    )


def version_failures(decision: Decision) -> tuple[Evidence, ...]:
    """The failures that count against the version wherever it is used."""
    return tuple(
        evidence
        for evidence in decision.checks
        if (evidence.outcome, evidence.severity, evidence.scope) == (Outcome.FAIL, Severity.BLOCKING, Scope.VERSION)
    )


def _is_accepted(log: list[RefEntry], decision: Decision) -> bool:
    """Whether the target accepted the version under the decision's policy, and did not withdraw it."""
    promotions = [entry for entry in moves(log) if entry.digest == decision.digest]
    if not promotions or decision.digest in withdrawn(log):
        return False
    return decision_of(promotions[-1].attestation).policy == decision.policy
