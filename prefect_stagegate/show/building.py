"""Making the report of a decision."""

from __future__ import annotations

from prefect_stagegate.model import Decision
from prefect_stagegate.model.transfers import TransferRecord
from prefect_stagegate.show.changes import VersionChanges
from prefect_stagegate.show.document import Section
from prefect_stagegate.show.model import Report
from prefect_stagegate.show.next_steps import reason_of, reinstating_reason, steps_of, turns_of, unrequested
from prefect_stagegate.show.past_events import PastEvent
from prefect_stagegate.show.rows import row_of
from prefect_stagegate.spec import Spec

TRIED = ("stagegate policy adopt SPEC --reason TEXT",)
"""The steps after a trial that accepts."""


def build_report(  # noqa: PLR0913 - one parameter for each fact that the caller looks up
    decision: Decision,
    spec: Spec,
    *,
    serves: str | None = None,
    notes: tuple[str, ...] = (),
    is_trial: bool = False,
    is_requested: bool = True,
    is_withdrawn: bool = False,
    changes: VersionChanges | None = None,
    transfer: TransferRecord | None = None,
    past: tuple[PastEvent, ...] = (),
    sections: tuple[Section, ...] = (),
) -> Report:
    """Make the report of a decision.

    Args:
        decision: The gate's decision.
        spec: The spec whose `owners` are the contacts.
        serves: The digest that the target serves; empty when it serves none, None when that is not known.
        notes: Facts beside the checks, one line each.
        is_trial: Whether a policy was tried that nobody adopted.
        is_requested: Whether the catalog has a request for the approval that a check waits for.
        is_withdrawn: Whether the target withdrew the version, so that promoting it takes `--reinstate`.
        changes: How the version differs from the one that the target serves.
        transfer: What staging the version transferred.
        past: What happened to the target before, the newest first.
        sections: What plugins add.
    """
    rows = tuple(sorted((row_of(evidence, spec) for evidence in decision.checks), key=lambda row: row.standing))
    if not is_requested:
        rows = tuple(unrequested(row, decision) if row.awaiting else row for row in rows)
    turns = turns_of(decision, rows, spec)
    return Report(
        dataset=decision.dataset,
        digest=decision.digest,
        target=decision.target,
        outcome=decision.outcome,
        reason=reinstating_reason(decision) if is_withdrawn else reason_of(decision),
        turn=tuple(turn.person for turn in turns),
        turns=turns,
        steps=TRIED if is_trial and decision.accepted else steps_of(decision, rows, serves, is_withdrawn=is_withdrawn),
        rows=rows,
        runbook=spec.runbook or "",
        policy=decision.adopted or decision.policy,
        environment=decision.environment,
        at=decision.at,
        expires=decision.expires,
        requester=decision.requester,
        serves=serves,
        notes=notes,
        is_trial=is_trial,
        is_withdrawn=is_withdrawn,
        changes=changes,
        transfer=transfer,
        past=past,
        sections=sections,
    )
