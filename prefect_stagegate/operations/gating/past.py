"""What happened to a target before a decision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prefect_stagegate.catalog import RefAction, RefEntry
from prefect_stagegate.model import Decision
from prefect_stagegate.operations.workspace import Workspace
from prefect_stagegate.readiness.records.attest import decision_of
from prefect_stagegate.report import PastEvent, reason_of
from prefect_stagegate.report.past_events import MOST

_WORDS = {
    RefAction.PROMOTE: "promoted",
    RefAction.ROLLBACK: "rolled back to",
    RefAction.WITHDRAW: "withdrawn",
    RefAction.STAGE: "staged",
}


def past_events(workspace: Workspace, decision: Decision, earlier: Sequence[RefEntry]) -> tuple[PastEvent, ...]:
    """The last moves of the target's ref, and earlier decisions of its gate about this version; the newest first.

    `earlier` are the entries of the ref's log up to the decision.

    Raises:
        CatalogError: The decisions can't be read.
    """
    events = [*map(_moved, earlier[-MOST:]), *_decided(workspace, decision)]
    return tuple(sorted(events, key=lambda event: event.at, reverse=True)[:MOST])


def _moved(entry: RefEntry) -> PastEvent:
    digest = entry.withdrawn if entry.action is RefAction.WITHDRAW else entry.digest
    return PastEvent(entry.at, _WORDS[entry.action], digest, str(entry.who), entry.reason)


def _decided(workspace: Workspace, decision: Decision) -> Iterator[PastEvent]:
    statements = workspace.catalog.attestations(decision.dataset, decision.digest, decision.target, newest=MOST + 1)
    for past in map(decision_of, statements):
        if past.at < decision.at:
            yield PastEvent(past.at, past.outcome.value, past.digest, past.requester, reason_of(past))
