"""`stagegate history`: each move of a ref, refusal, revocation and adopted policy, by whom, when and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from typing import Annotated, Any

from cyclopts import Parameter

from prefect_stagegate.catalog import PolicyEntry, RefAction, RefEntry
from prefect_stagegate.cli.flags import Json, Places, VersionName
from prefect_stagegate.cli.printing import end_unreadable, print_json, say_line, unreadable_lines
from prefect_stagegate.cli.prove import Keys, print_audit
from prefect_stagegate.errors import CorruptRecord
from prefect_stagegate.gate.approval_counting import counted_answers
from prefect_stagegate.gate.records.attest import approvals_of, decision_of
from prefect_stagegate.jobs import inspect
from prefect_stagegate.jobs.review.decisions import RecordedDecision, list_refusals
from prefect_stagegate.jobs.workspace import Workspace
from prefect_stagegate.model import Address, Approval, EvidenceRevocation, PolicyChange
from prefect_stagegate.units import count_text, digest_text
from prefect_stagegate.unreadable import UnreadableRecords


def history(
    address: VersionName,
    /,
    *,
    verify: Annotated[bool, Parameter(negative="", help="Walk the logs and say what that proves.")] = False,
    key: Keys = (),
    policy: Annotated[bool, Parameter(negative="", help="Also show what each adopted policy changed.")] = False,
    full: Annotated[
        bool, Parameter(negative="", help="With --json: the environments' packages, too, as attestations have them.")
    ] = False,
    forget: Annotated[
        bool, Parameter(negative="", help="Forget what this node knows of the logs, after a restore that was meant.")
    ] = False,
    json: Json = False,
    places: Places | None = None,
) -> None:
    """Show who moved which ref to which version, when and why, and what was refused and adopted in between.

    Each move has its decision, approvals and waivers. `stagegate decisions` lists all decisions.

    `--verify` finds entries that are missing or were changed, and attestations of something else; it exits with 3 then.

    For example:

    - `stagegate history nycflights@production`
    - `stagegate history nycflights --verify`

    Parameters
    ----------
    address
        DATASET@REF for one ref, DATASET for all of them.
    """
    workspace, about = (places or Places()).workspace(), Address.parse(address)
    # Before anything reads the logs: what this node remembers would refuse a log that was restored.
    if forget:
        inspect.forget(workspace, about)
    if verify:
        print_audit(workspace, about, key, json=json)
        return
    unreadable = UnreadableRecords()
    moves = inspect.history(workspace, about, unreadable)
    revocations = inspect.revocations(workspace, about, unreadable)
    refusals = list_refusals(workspace, about, moves)
    policies = inspect.policy_history(workspace, about.dataset, unreadable)
    if json:
        records = [asdict(_whole(workspace, move, unreadable)) for move in moves]
        records = records if full else list(map(_without_distributions, records))
        records += [asdict(revocation) | {"action": "revoke"} for revocation in revocations]
        records += [asdict(refusal) | {"action": "refuse"} for refusal in refusals]
        records += [asdict(entry) | {"action": "adopt", "changes": list(map(asdict, each))} for entry, each in policies]
        print_json([*sorted(records, key=lambda record: record["at"]), *unreadable_lines(unreadable.all)])
    else:
        for line in ledger_lines(moves, revocations, refusals, policies, is_policy_folded=not policy):
            say_line(line)
    end_unreadable(unreadable.all)


def ledger_lines(
    entries: Iterable[RefEntry],
    revocations: Iterable[EvidenceRevocation],
    refusals: Iterable[RecordedDecision],
    adoptions: Iterable[tuple[PolicyEntry, tuple[PolicyChange, ...]]],
    *,
    is_policy_folded: bool = False,
) -> Iterator[str]:
    """The lines of all records together, the oldest record first; an adoption has one when it is folded."""
    digests: dict[str, str] = {}  # of the version that each ref names so far
    changes = {entry.seq: differences for entry, differences in adoptions}
    records: list[RefEntry | EvidenceRevocation | RecordedDecision | PolicyEntry]
    records = [*entries, *revocations, *refusals, *(entry for entry, _ in adoptions)]
    for entry in sorted(records, key=lambda record: record.at):
        if isinstance(entry, PolicyEntry):
            first, *more = policy_lines(entry, changes[entry.seq])
            counts = Counter(change.direction.value for change in changes[entry.seq] if is_policy_folded)
            yield first + "".join(f", {count} {direction}" for direction, count in sorted(counts.items()))
            yield from () if is_policy_folded else more
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


def _whole(workspace: Workspace, move: RefEntry, unreadable: UnreadableRecords) -> RefEntry:
    """An entry with its attestation as it was signed."""
    with unreadable.skip(move.dataset):
        return replace(move, attestation=workspace.catalog.environments.whole(move.attestation))
    return move


def _without_distributions(move: dict[str, Any]) -> dict[str, Any]:
    """An entry's JSON values, without the packages in its attestation's environment."""
    environment = move["attestation"].get("predicate", {}).get("stagegate", {}).get("environment")
    if isinstance(environment, dict):
        environment.get("python", {}).pop("distributions", None)
    return move


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
        decision, approvals = decision_of(entry.attestation), approvals_of(entry.attestation)
    except CorruptRecord as error:
        yield error.message
        return
    yield (
        f"{decision.outcome} {decision.at[:19]}Z by policy {digest_text(decision.adopted)}, "
        f"{count_text(len(decision.checks), 'check')}, requested by {decision.requester}"
    )
    yield from map(_answer_text, counted_answers(decision, approvals))
    for check in decision.checks:
        if check.ruling and check.ruling.waiver:
            yield f"{check.check} {check.ruling.waiver}"
