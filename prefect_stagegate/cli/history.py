"""A dataset's history as lines: each move of a ref, refusal, revocation and adopted policy, by whom, when and why."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prefect_stagegate.catalog import PolicyEntry, RefAction, RefEntry
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import Approval, EvidenceRevocation, PolicyChange
from prefect_stagegate.operations.gating.decisions import RecordedDecision
from prefect_stagegate.readiness.checks.approval import counted_answers
from prefect_stagegate.readiness.records.attest import read_statement
from prefect_stagegate.units import count_text, digest_text


def ledger_lines(
    entries: Iterable[RefEntry],
    revocations: Iterable[EvidenceRevocation],
    refusals: Iterable[RecordedDecision],
    adoptions: Iterable[tuple[PolicyEntry, tuple[PolicyChange, ...]]],
) -> Iterator[str]:
    """The lines of all records together, the oldest record first."""
    digests: dict[str, str] = {}  # of the version that each ref names so far
    changes = {entry.seq: differences for entry, differences in adoptions}
    records: list[RefEntry | EvidenceRevocation | RecordedDecision | PolicyEntry]
    records = [*entries, *revocations, *refusals, *(entry for entry, _ in adoptions)]
    for entry in sorted(records, key=lambda record: record.at):
        if isinstance(entry, PolicyEntry):
            yield from policy_lines(entry, changes[entry.seq])
        elif isinstance(entry, RecordedDecision):
            about = f"{entry.at[:19]}Z  {entry.target:<12} refused {digest_text(entry.digest)}"
            yield f"{about}, requested by {entry.requester}: {entry.why} ({digest_text(entry.id)})"
        elif isinstance(entry, EvidenceRevocation):
            yield f"{entry.at[:19]}Z  {'evidence':<12} {entry.about}  revoked by {entry.who}: {entry.reason}"
        else:
            yield from _move_lines(entry, digests.get(entry.ref, ""))
            digests[entry.ref] = entry.digest


def policy_lines(entry: PolicyEntry, changes: Iterable[PolicyChange]) -> Iterator[str]:
    """The lines of one adoption: who, when, why, who agreed, and each change."""
    yield (
        f"{entry.at[:19]}Z  {'policy':<12} number {entry.seq}, {digest_text(entry.digest)}  "
        f"adopted by {entry.who}: {entry.reason}"
    )
    for answer in entry.approvals:
        yield f"    {_answer_text(answer)}"
    for change in changes:
        yield f"    {change.direction:<10} {change.subject}: {change.difference}"


def _answer_text(answer: Approval) -> str:
    verb = "approved" if answer.approved else "declined"
    return f"{verb} by {answer.approver} {answer.at[:19]}Z{f': {answer.reason}' if answer.reason else ''}"


def without_distributions(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry as JSON values, without the packages in its attestation's environment."""
    copied = copy.deepcopy(dict(entry))
    attested = copied.get("attestation", {}).get("predicate", {}).get("stagegate", {})
    attested.get("environment", {}).get("python", {}).pop("distributions", None)
    return copied


def _move_lines(entry: RefEntry, before: str) -> Iterator[str]:
    left = f"{digest_text(before)} → " if before else ""
    withdrawn = f", withdrew {digest_text(entry.withdrawn)}" if entry.withdrawn else ""
    withdraws = entry.action is RefAction.WITHDRAW
    move = f"withdrew {entry.withdrawn}" if withdraws else f"{left}{entry.digest}{withdrawn}"
    reason = f": {entry.reason}" if entry.reason else ""
    yield f"{entry.at[:19]}Z  {entry.ref:<12} {move}  {entry.action} by {entry.who}{reason}"
    if entry.attestation:
        yield from (f"    {line}" for line in _decision_lines(entry))


def _decision_lines(entry: RefEntry) -> Iterator[str]:
    try:
        attested = read_statement(entry.attestation)
    except CorruptRecord as error:
        yield error.message
        return
    decision = attested.decision
    yield (
        f"{decision.outcome} {decision.at[:19]}Z by policy {digest_text(decision.adopted)}, "
        f"{count_text(len(decision.checks), 'check')}, requested by {decision.requester}"
    )
    yield from map(_answer_text, counted_answers(decision, attested.approvals))
    for check in decision.checks:
        if check.ruling and check.ruling.waiver:
            yield f"{check.check} {check.ruling.waiver}"
