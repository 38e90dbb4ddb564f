"""The events about versions, which runs and commands emit. docs/events.md has an example of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect_stagegate.model import Address, Decision, DecisionOutcome, EvidenceRevocation, Promotion
from prefect_stagegate.tasks._support.assets import version_key

if TYPE_CHECKING:  # staging needs none of them
    from prefect_stagegate.catalog import RefEntry
    from prefect_stagegate.jobs.review.inbox import InboxLine
    from prefect_stagegate.show import Report, Turn
    from prefect_stagegate.workspace import Workspace

VERSION_STAGED = "stagegate.version.staged"
"""A version that `latest` had never named was staged. Payload: version, dataset, digest, files, bytes,
bytes_fetched."""
GATE_PASSED = "stagegate.gate.passed"
"""A gate accepted a version. Payload: version, dataset, digest, target, outcome, reason, turn, turns
(owner, contact, checks, first fix), checks (name → outcome,
what decided first)."""
GATE_FAILED = "stagegate.gate.failed"
"""A gate refused a version, or could not decide; `outcome` tells which. Payload: as for `stagegate.gate.passed`."""
REF_MOVED = "stagegate.ref.moved"
"""A target's ref was moved by a promotion. Payload: version, dataset, digest, target, previous
(empty for the first)."""
APPROVAL_REQUESTED = "stagegate.approval.requested"
"""A gate waits for somebody's approval; once a request. Payload: version, dataset, digest, target, groups, requester,
turn, page (where to answer; empty without STAGEGATE_PAGES_URL)."""
EVIDENCE_ENDING = "stagegate.evidence.ending"
"""Evidence that a target's acceptance rests on ends soon, or ended; once for each end. Payload: version, dataset,
digest, target, check, ends, turn, command."""
VERSION_WITHDRAWN = "stagegate.version.withdrawn"
"""A target withdrew a version that it had accepted: it failed a later check, or somebody rolled back. Payload: version,
dataset, digest, target, reason, who, users (what plugins tell of who used it)."""
EVIDENCE_REVOKED = "stagegate.evidence.revoked"
"""Somebody revoked the evidence of a check. Payload: version, dataset, digest, check, target (empty: all), reason, who,
users."""
EVENT_CHECKS = 50
"""The most checks that an event names; those that decided come first."""
EVENT_TEXT = 300
"""The most characters of a sentence in an event."""

_EVENTS = {
    DecisionOutcome.ACCEPTED: GATE_PASSED,
    DecisionOutcome.REFUSED: GATE_FAILED,
    DecisionOutcome.INCONCLUSIVE: GATE_FAILED,
}


@dataclass(frozen=True, slots=True)
class VersionEvent:
    """An event about one version, for Prefect's event feed."""

    name: str
    resource: dict[str, str]
    payload: dict[str, Any]
    related: list[dict[str, str]] = field(default_factory=list)
    identity: UUID | None = None
    """The event's id. The server drops later events of the same id."""


def version_event(
    name: str, dataset: str, digest: str, *, identity: UUID | None = None, **payload: Any
) -> VersionEvent:
    """Make one of the events above, on the resource `stagegate.dataset.<dataset>`.

    Automations can match one target by the resource's label `stagegate.target`, which events without a target lack.
    Related resources are the version, as an asset, and the version that it replaces, as `stagegate-previous`. The
    payload's values are small and JSON's.
    """
    resource = {"prefect.resource.id": f"stagegate.dataset.{dataset}", "prefect.resource.name": dataset}
    if payload.get("target"):
        resource["stagegate.target"] = payload["target"]
    versions = {"asset": digest, "stagegate-previous": payload.get("previous", "")}
    related = [
        {"prefect.resource.id": version_key(dataset, version), "prefect.resource.role": role}
        for role, version in versions.items()
        if version
    ]
    payload = {"version": f"{dataset}@{digest}", "dataset": dataset, "digest": digest, **payload}
    return VersionEvent(name, resource, payload, related, identity)


def decision_event(workspace: Workspace, decision: Decision, report: Report) -> VersionEvent:
    """The event of a decision: its gate passed, failed, or waits for an approval."""
    from prefect_stagegate.jobs.gating.approve import request_for
    from prefect_stagegate.jobs.review.reports import answer_page

    if decision.outcome is not DecisionOutcome.WAITING:
        return version_event(_EVENTS[decision.outcome], decision.dataset, decision.digest, **_payload(report))
    about = (decision.dataset, decision.digest, decision.target, decision.policy)
    request = request_for(workspace, *about)
    payload = {
        "target": decision.target,
        "groups": sorted({group for evidence in decision.checks for group in evidence.awaiting}),
        "requester": decision.requester,
        "turn": report.whose_turn[:EVENT_TEXT],
        "page": answer_page(workspace, request) if request else "",
    }
    # All decisions that wait for the same request have one event id, so the server keeps one event a request.
    identity = uuid5(NAMESPACE_URL, f"{APPROVAL_REQUESTED}/{request.id if request else '/'.join(about)}")
    return version_event(APPROVAL_REQUESTED, decision.dataset, decision.digest, identity=identity, **payload)


def decision_events(workspace: Workspace, decision: Decision, report: Report) -> Iterator[VersionEvent]:
    """The event of a decision, and of the withdrawal of a version that its gate had accepted and refuses now."""
    from prefect_stagegate.catalog import withdrawal_of

    yield decision_event(workspace, decision, report)
    if decision.outcome is DecisionOutcome.REFUSED:
        entry = withdrawal_of(workspace.catalog, decision.dataset, decision.target, decision.digest)
        if entry is not None:
            yield withdrawal_event(workspace, entry)


def withdrawal_event(workspace: Workspace, entry: RefEntry) -> VersionEvent:
    """The event of an entry of a target's log that withdraws a version."""
    # Each later check that refuses the version finds the entry again.
    identity = uuid5(NAMESPACE_URL, f"{VERSION_WITHDRAWN}/{entry.dataset}/{entry.ref}/{entry.seq}/{entry.at}")
    payload = {"target": entry.ref, "reason": entry.reason, "who": str(entry.who)}
    return _recall_event(workspace, VERSION_WITHDRAWN, Address(entry.dataset, entry.withdrawn), identity, payload)


def revocation_event(workspace: Workspace, revocation: EvidenceRevocation) -> VersionEvent:
    """The event of a revocation."""
    fields = {"check": revocation.check, "target": revocation.target, "reason": revocation.reason}
    version = Address(revocation.dataset, revocation.digest)
    return _recall_event(workspace, EVIDENCE_REVOKED, version, None, {**fields, "who": str(revocation.who)})


def _recall_event(
    workspace: Workspace, name: str, version: Address, identity: UUID | None, payload: dict[str, str]
) -> VersionEvent:
    """An event with what plugins tell of who used the version."""
    from prefect_stagegate.show import recall_of

    texts = {key: text[:EVENT_TEXT] for key, text in payload.items()}
    users = recall_of(workspace, version)[1]
    return version_event(name, version.dataset, version.digest, identity=identity, **texts, users=users)


def move_event(moved: Promotion) -> VersionEvent:
    """The event of a ref that a promotion or a rollback moved."""
    return version_event(REF_MOVED, moved.dataset, moved.digest, target=moved.ref, previous=moved.previous)


def rollback_events(workspace: Workspace, moved: Promotion) -> Iterator[VersionEvent]:
    """The events of a rollback: the move, and the withdrawal of the version that was left."""
    from prefect_stagegate.catalog import withdrawal_of

    yield move_event(moved)
    if entry := withdrawal_of(workspace.catalog, moved.dataset, moved.ref, moved.previous):
        yield withdrawal_event(workspace, entry)


def ending_events(lines: Iterable[InboxLine]) -> Iterator[VersionEvent]:
    """The events of the targets whose evidence ends soon, or ended, so that somebody has to check."""
    from prefect_stagegate.jobs.review.inbox import ActionKind

    for line in lines:
        accepted = line.accepted
        actions = (action for action in line.actions if accepted and action.checks == (accepted.ends_check,))
        action = next((action for action in actions if action.kind is ActionKind.CHECK), None)
        if accepted and action:
            about = (line.dataset, line.target, accepted.digest, accepted.ends_check, accepted.ends)
            payload = {
                "target": line.target,
                "check": accepted.ends_check,
                "ends": accepted.ends,
                "turn": action.whom[:EVENT_TEXT],
                "command": action.command,
            }
            # Each staging looks, so all looks that find the same end have one event id.
            identity = uuid5(NAMESPACE_URL, "/".join((EVIDENCE_ENDING, *about)))
            yield version_event(EVIDENCE_ENDING, line.dataset, accepted.digest, identity=identity, **payload)


def _payload(report: Report) -> dict[str, Any]:
    """The payload of a decision beside the version: a few kilobytes at most."""
    return {
        "target": report.target,
        "outcome": report.outcome.value,
        "reason": report.reason[:EVENT_TEXT],
        "turn": report.whose_turn[:EVENT_TEXT],
        "turns": [_turn(turn) for turn in report.turns],
        "checks": {row.check: row.outcome.value for row in islice(report.rows, EVENT_CHECKS)},
    }


def _turn(turn: Turn) -> dict[str, Any]:
    """One owner with checks and first fix, for automations that notify people."""
    return {
        "owner": turn.person.role,
        "contact": turn.person.contact[:EVENT_TEXT],
        "checks": list(turn.checks[:EVENT_CHECKS]),
        "fix": turn.fixes[0][:EVENT_TEXT] if turn.fixes else "",
    }
