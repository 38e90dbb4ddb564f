"""A decision in the forms that Prefect shows: a table, an error, a state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prefect import State
from prefect.states import Completed, Failed

from prefect_stagegate.errors import GateFailed, GateUndecided
from prefect_stagegate.model import Decision, DecisionOutcome, Evidence, Outcome
from prefect_stagegate.report.legible import legible_text
from prefect_stagegate.tasks._support.refusals import ended_by_gate

FINDINGS = 5
"""The most findings of one check that an error's message names; the report has all of them."""
NOT_APPROVED = "Not approved"
"""The name of the state of a run whose version somebody declined, or nobody approved in time."""
FINE = (Outcome.PASS, Outcome.WAIVED, Outcome.NOT_APPLICABLE)


def checks_table(checks: Iterable[Evidence]) -> list[dict[str, Any]]:
    """One row a check, for a table artifact."""
    return [
        {
            "check": answer.check,
            "outcome": answer.outcome.value,
            "severity": answer.severity.value,
            "owner": answer.owner,
            "found": legible_text(answer.full_summary),
            "defects": len(answer.findings),
        }
        for answer in checks
    ]


def not_accepted(decision: Decision) -> State[Decision]:
    """The end of a run whose version a gate did not accept: failed, with a short table of why."""
    about = f"{decision.dataset}@{decision.digest}"
    refused = decision.outcome is DecisionOutcome.REFUSED
    verb = "refused" if refused else "can't decide about"
    first = f"The gate {decision.target} {verb} {about}"
    kind = GateFailed if refused else GateUndecided
    return ended_by_gate(kind("\n".join([first, *_lines(decision)]), dataset=decision.dataset))


def waiting(decision: Decision) -> State[Decision]:
    """The end of a run that did all it could: what it asked for is recorded, and somebody has to answer.

    It is completed, since nothing failed and nothing of it goes on: the answer may take days, and holds whether or
    not a process waits for it. The state's name and the decision that the flow returns tell it from a promotion.
    """
    asked = f"{decision.dataset}@{decision.digest}"
    return Completed(
        name="Waiting for approval",
        message=f"`stagegate approve {asked} --to {decision.target}` answers; then run this flow again with "
        f"version={asked}",
        data=decision,
    )


def not_approved(decision: Decision) -> State[Decision]:
    """The end of a run whose version was declined: failed, with who declined it and why. Calling the flow raises it."""
    why = legible_text(decision.declined)
    message = f"{decision.dataset}@{decision.digest} is not approved for {decision.target}: {why}"
    return Failed(name=NOT_APPROVED, message=message, data=GateFailed(message, dataset=decision.dataset))


def _lines(decision: Decision) -> Iterator[str]:
    for answer in decision.checks:
        if answer.outcome in FINE:
            continue
        yield f"  {answer.outcome.value:<12}  {answer.check:<14}  {legible_text(answer.full_summary)}  [{answer.owner}]"
        for finding in answer.findings[:FINDINGS]:
            yield f"      {legible_text(finding.subject)}: {legible_text(finding.problem)}"
        if len(answer.findings) > FINDINGS:
            yield f"      … and {len(answer.findings) - FINDINGS} more"
