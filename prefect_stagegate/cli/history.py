"""The moves of refs as a ledger: who, what, when, why, from where to where, and by which decision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prefect_stagegate.catalog import RefAction, RefEntry
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.model import EvidenceRevocation
from prefect_stagegate.readiness.attest import Attested, read_statement
from prefect_stagegate.units import count_text, digest_text


def ledger_lines(entries: Iterable[RefEntry], revocations: Iterable[EvidenceRevocation] = ()) -> Iterator[str]:
    """The lines of a ledger, the oldest entry first, with the evidence that was revoked in between."""
    named: dict[str, str] = {}
    told: list[RefEntry | EvidenceRevocation] = [*entries, *revocations]
    for entry in sorted(told, key=lambda one: one.at):
        if isinstance(entry, EvidenceRevocation):
            yield f"{entry.at[:19]}Z  {'evidence':<12} {entry.about}  revoked by {entry.who}: {entry.reason}"
            continue
        before = named.get(entry.ref, "")
        named[entry.ref] = entry.digest
        reason = f": {entry.reason}" if entry.reason else ""
        yield f"{entry.at[:19]}Z  {entry.ref:<12} {_moved(entry, before)}  {entry.action} by {entry.who}{reason}"
        if entry.attestation:
            yield from (f"    {line}" for line in _decided(entry))


def _moved(entry: RefEntry, before: str) -> str:
    if entry.action is RefAction.WITHDRAW:
        return f"withdrew {entry.withdrawn}"
    left = f"{digest_text(before)} → " if before else ""
    withdrawn = f", withdrew {digest_text(entry.withdrawn)}" if entry.withdrawn else ""
    return f"{left}{entry.digest}{withdrawn}"


def _decided(entry: RefEntry) -> Iterator[str]:
    try:
        attested = read_statement(entry.attestation)
    except CorruptRecord as error:
        yield error.message
        return
    decision = attested.decision
    yield (
        f"{decision.outcome} {decision.at[:19]}Z by policy {digest_text(decision.policy)}, "
        f"{count_text(len(decision.checks), 'check')}, asked for by {decision.requester}"
    )
    yield from _people(attested)


def _people(attested: Attested) -> Iterator[str]:
    for answer in attested.approvals:
        verb = "approved" if answer.approved else "declined"
        reason = f": {answer.reason}" if answer.reason else ""
        yield f"{verb} by {answer.approver} {answer.at[:19]}Z{reason}"
    for check in attested.decision.checks:
        if check.ruling and check.ruling.waiver:
            yield f"{check.check} {check.ruling.waiver}"
