"""Withdrawing: a version that a gate let in, and that fails when the same gate asks again, is taken back for all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_stagegate.catalog import RefAction, RefEntry, moves, withdrawn
from prefect_stagegate.errors import RefConflict
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome, Scope, Severity
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness import decision_of

TRIES = 8
"""How often somebody else may move the ref in between."""


def withdraw_what_failed(workspace: Workspace, decision: Decision, statement: Mapping[str, Any]) -> RefEntry | None:
    """Take a version back that its target let in under this very policy and that fails now; the ref stays where it is.

    What the environment or the node is to blame for says nothing against the version, and withdraws nothing. Runs that
    require the version are held, or fall back, as the gate says; `promote --reinstate` lets it in again.

    Args:
        workspace: The catalog, and who checked.
        decision: What the gate says now.
        statement: Its attestation, which stands in the log as the reason.

    Returns:
        The log's new entry; None where there was nothing to take back.
    """
    failed = failed_for_all(decision)
    if decision.outcome is not DecisionOutcome.REFUSED or not failed:
        return None
    names = ", ".join(answer.check for answer in failed)
    for _ in range(TRIES):
        log = workspace.catalog.history(decision.dataset, decision.target)
        if not _stands(log, decision):
            return None
        try:
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
            continue  # whoever moved it may have taken it back as well
    raise RefConflict(
        f"{decision.dataset}@{decision.target} is moved all the time, so {decision.digest} could not be withdrawn",
        hint=f"Check it again, or roll back: `stagegate rollback {decision.dataset}@{decision.target} --reason …`.",
        dataset=decision.dataset,
    )


def failed_for_all(decision: Decision) -> tuple[Evidence, ...]:
    """The answers that count against the version wherever it is used."""
    return tuple(
        answer
        for answer in decision.checks
        if (answer.outcome, answer.severity, answer.scope) == (Outcome.FAIL, Severity.BLOCKING, Scope.VERSION)
    )


def _stands(log: list[RefEntry], decision: Decision) -> bool:
    """Whether the target let the version in under the policy of the decision, and did not take it back."""
    own = [entry for entry in moves(log) if entry.digest == decision.digest]
    if not own or decision.digest in withdrawn(log):
        return False
    return decision_of(own[-1].attestation).policy == decision.policy
