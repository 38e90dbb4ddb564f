"""Making the inbox's lines of what the catalog says. Pure: no I/O and no clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefect_stagegate.catalog import RefEntry, RefHead
from prefect_stagegate.clock import moment, stamp
from prefect_stagegate.gate import CHECKS
from prefect_stagegate.gate.approval_counting import AnswerTally
from prefect_stagegate.gate.check_context import addresses_of
from prefect_stagegate.gate.records.attest import decision_of, statement_digest
from prefect_stagegate.gate.registry import Renewal
from prefect_stagegate.jobs.gating.withdraw import version_failures
from prefect_stagegate.jobs.review.inbox import (
    ANYBODY,
    AcceptedVersion,
    ActionKind,
    InboxLine,
    PendingAction,
    ProposedVersion,
    TargetStanding,
    report_command,
)
from prefect_stagegate.model import (
    ApprovalRequest,
    Decision,
    DecisionOutcome,
    Evidence,
    Outcome,
    Severity,
    person_key,
)
from prefect_stagegate.show import Person, reason_of
from prefect_stagegate.units import digest_text, listed


@dataclass(frozen=True, slots=True)
class RequestState:
    """A request that can still be answered, with its answers."""

    request: ApprovalRequest
    tally: AnswerTally
    lapsed_at: str = ""
    """When the last flow run that waited for it gave up; empty while it can be answered."""


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision with its attestation."""

    decision: Decision
    statement: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The decision's id. Computed when it is asked for: that takes milliseconds."""
        return statement_digest(self.statement)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts:
    """What the catalog says about one target; `line_of` makes its line of this."""

    dataset: str
    target: str
    owners: Mapping[str, str]
    adopted: str
    """`sha256:<hex>` of the adopted policy."""
    adopted_at: str
    has_gate: bool
    head: RefHead | None
    source: RefEntry | None
    """The entry that names the version which would come next: of `latest`, or of the target that the gate extends. None
    where a target withdrew that version."""
    accepted: Decision | None = None
    """The newest acceptance of the version that the target names."""
    decision: DecisionRecord | None = None
    """The newest decision about the version that would come next, or about the accepted one, when that is the same."""
    withdrawal: RefEntry | None = None
    """The entry that withdrew the version that the target names."""
    requests: Sequence[RequestState] = ()
    """The requests for the target that can still be answered, the newest first."""
    held_by: tuple[str, ...] = ()
    problem: str = ""
    """Why a record can't be read."""


@dataclass(frozen=True, slots=True)
class _Finding:
    standing: TargetStanding
    actions: tuple[PendingAction, ...]


def line_of(facts: TargetFacts, now: datetime, warning: float) -> InboxLine:
    """The inbox's line of one target.

    Args:
        facts: What the catalog says.
        now: The reader's time, aware.
        warning: The share of an evidence's life, 0.0 to 1.0, that is left when it counts as ending soon.
    """
    accepted = _accepted(facts)
    proposed = _proposed(facts, now)
    findings = sorted(_findings(facts, accepted, proposed, now, warning), key=lambda finding: finding.standing.rank)
    default = TargetStanding.SERVING if facts.head else TargetStanding.EMPTY
    return InboxLine(
        facts.dataset,
        facts.target,
        findings[0].standing if findings else default,
        accepted,
        proposed,
        tuple(action for finding in findings for action in finding.actions),
        facts.problem,
    )


def _accepted(facts: TargetFacts) -> AcceptedVersion | None:
    if facts.head is None:
        return None
    move, decision, withdrawal = facts.head.move, facts.accepted, facts.withdrawal
    checks: Iterable[Evidence] = decision.checks if decision is not None else ()
    ends, check = min(((end, item.check) for item in checks if (end := _end_of(item))), default=("", ""))
    return AcceptedVersion(
        digest=facts.head.entry.digest,
        at=move.at,
        by=str(move.who),
        decided_at=decision.at if decision is not None else "",
        expires=decision.expires if decision is not None else "",
        ends=ends,
        ends_check=check,
        withdrawn=f"{withdrawal.at[:16]}Z by {withdrawal.who}: {withdrawal.reason}" if withdrawal else "",
        held_by=facts.held_by,
    )


def _end_of(evidence: Evidence) -> str:
    """When evidence ends so that somebody has to check again; empty when it does not, or a run gathers it again."""
    definition = CHECKS.get(evidence.check)
    if definition is None or definition.ttl is None or definition.renewal is not Renewal.CHEAP:
        return evidence.expires
    # A run asks such a check again, and a failure then still needs the waiver.
    return evidence.ruling.waiver.until if evidence.ruling and evidence.ruling.waiver else ""


def _proposed(facts: TargetFacts, now: datetime) -> ProposedVersion | None:
    source, accepted = facts.source, facts.head.entry.digest if facts.head else ""
    if source is None or not facts.has_gate or source.digest == accepted:
        return None
    if facts.decision is None:
        return ProposedVersion(source.digest, source.at, str(source.who))
    decision = facts.decision.decision
    return ProposedVersion(
        digest=source.digest,
        since=source.at,
        by=str(source.who),
        outcome=decision.outcome.value,
        decided_at=decision.at,
        reason=reason_of(decision),
        decision=facts.decision.id,
        is_current=_is_current(decision, facts, now),
    )


def _is_current(decision: Decision, facts: TargetFacts, now: datetime) -> bool:
    expired = decision.accepted and decision.expires and decision.expires <= stamp(now)
    return decision.adopted == facts.adopted and not expired


def _findings(
    facts: TargetFacts,
    accepted: AcceptedVersion | None,
    proposed: ProposedVersion | None,
    now: datetime,
    warning: float,
) -> Iterator[_Finding]:
    if facts.problem:
        yield _Finding(TargetStanding.UNREADABLE, (_reading(facts.dataset, facts.target, facts.problem),))
    if accepted:
        yield from _of_accepted(facts, accepted, now, warning)
    if not facts.has_gate:
        return
    about = proposed.digest if proposed else accepted.digest if accepted else ""
    if about:
        yield from _of_decision(facts, about, proposed, now)
    for state in facts.requests:
        if state.request.digest == about or state.tally.declined or state.lapsed_at:
            continue
        if state.tally.missing_people > 0:
            yield _Finding(TargetStanding.WAITING, (_approval(facts, state),))
        elif facts.head and state.request.digest in facts.head.withdrawals:
            yield _Finding(TargetStanding.UNCHECKED, (_reinstatement(facts, state),))


def _of_accepted(facts: TargetFacts, accepted: AcceptedVersion, now: datetime, warning: float) -> Iterator[_Finding]:
    again = _check_command(facts, accepted.digest)
    if facts.withdrawal:
        yield _Finding(TargetStanding.WITHDRAWN, (_return(facts, facts.withdrawal),))
    if not accepted.ends or facts.accepted is None:
        return
    ending = next(evidence for evidence in facts.accepted.checks if evidence.check == accepted.ends_check)
    begun, end = moment(ending.at or accepted.decided_at), moment(accepted.ends)
    people, checks = _owners(facts, (ending.owner,)), (ending.check,)
    if end <= now:
        reason = f"the evidence of {ending.check} ended"
        action = PendingAction(ActionKind.CHECK, people, accepted.ends, reason, again, accepted.digest, checks)
        yield _Finding(TargetStanding.EXPIRED, (action,))
    elif (end - now) < warning * (end - begun):
        reason = f"the evidence of {ending.check} ends {accepted.ends[:16]}Z"
        since = stamp(end - warning * (end - begun))
        action = PendingAction(ActionKind.CHECK, people, since, reason, again, accepted.digest, checks)
        yield _Finding(TargetStanding.ENDING, (action,))


def _return(facts: TargetFacts, withdrawal: RefEntry) -> PendingAction:
    """What the withdrawal of the version that a target names asks for."""
    failed = version_failures(decision_of(withdrawal.attestation)) if withdrawal.attestation else ()
    return PendingAction(
        ActionKind.RETURN,
        _owners(facts, dict.fromkeys(evidence.owner for evidence in failed) or ("data",)),
        withdrawal.at,
        f"withdrawn by {withdrawal.who.name}: {withdrawal.reason}",
        f"stagegate rollback {facts.dataset}@{facts.target} --reason TEXT",
        withdrawal.withdrawn,
        tuple(evidence.check for evidence in failed),
    )


def _of_decision(
    facts: TargetFacts, digest: str, proposed: ProposedVersion | None, now: datetime
) -> Iterator[_Finding]:
    """What the newest decision about the version that would come next, or about the accepted one, asks for."""
    record = facts.decision
    if record is None or not _is_current(record.decision, facts, now):
        if proposed:
            yield _Finding(TargetStanding.UNCHECKED, (_check(facts, proposed),))
        return
    decision = record.decision
    if facts.withdrawal and digest == facts.withdrawal.withdrawn and not decision.accepted:
        return  # it is why the version was withdrawn
    match decision.outcome:
        case DecisionOutcome.ACCEPTED:
            if proposed:
                yield _Finding(TargetStanding.ACCEPTED, (_promotion(facts, decision),))
        case DecisionOutcome.REFUSED:
            yield _Finding(TargetStanding.REFUSED, tuple(_repairs(facts, record)))
        case DecisionOutcome.INCONCLUSIVE:
            yield _Finding(TargetStanding.INCONCLUSIVE, tuple(_repairs(facts, record)))
        case DecisionOutcome.WAITING:
            yield _of_request(facts, record)


def _check(facts: TargetFacts, proposed: ProposedVersion) -> PendingAction:
    """Asking the gate about a version that it has not decided about, or not under what counts now."""
    command = _check_command(facts, proposed.digest)
    if facts.decision is None:
        # Without what an identity's text has behind the name.
        bringer = (Person("whoever brought it", proposed.by.rpartition(" (")[0] or proposed.by),)
        reason = "the gate has not decided about it"
        return PendingAction(ActionKind.CHECK, bringer, proposed.since, reason, command, proposed.digest)
    decision = facts.decision.decision
    expired = decision.adopted == facts.adopted
    reason = "its acceptance expired" if expired else "the policy changed since the gate decided"
    since = decision.expires if expired else facts.adopted_at
    return PendingAction(ActionKind.CHECK, _asker(decision), since, reason, command, decision.digest)


def _promotion(facts: TargetFacts, decision: Decision) -> PendingAction:
    command = f"stagegate promote {facts.dataset}@{digest_text(decision.digest)} --to {facts.target}"
    return PendingAction(
        ActionKind.PROMOTE, _asker(decision), decision.at, reason_of(decision), command, decision.digest
    )


def _of_request(facts: TargetFacts, record: DecisionRecord) -> _Finding:
    """What a decision that waits for an approval asks for, by the answers so far."""
    decision = record.decision
    about = (decision.digest, decision.policy)
    state = next((state for state in facts.requests if (state.request.digest, state.request.policy) == about), None)
    asker, check = _asker(decision), _check_command(facts, decision.digest)
    if state is None or state.lapsed_at:
        why = f"the request lapsed {state.lapsed_at[:16]}Z" if state else "there is no request that can be answered"
        action = PendingAction(ActionKind.CHECK, asker, decision.at, why, check, decision.digest, ("approval",))
        return _Finding(TargetStanding.UNCHECKED, (action,))
    if state.tally.declined:
        since = state.tally.counted[-1].at
        reason, command = f"declined by {state.tally.refusal}", report_command(record.id)
        action = PendingAction(ActionKind.REPAIR, asker, since, reason, command, decision.digest, ("approval",))
        return _Finding(TargetStanding.REFUSED, (action,))
    if state.tally.missing_people <= 0:
        since, names = state.tally.counted[-1].at, listed([answer.approver.name for answer in state.tally.counted])
        reason = f"approved by {names}; the gate has not decided since"
        action = PendingAction(ActionKind.CHECK, asker, since, reason, check, decision.digest)
        return _Finding(TargetStanding.UNCHECKED, (action,))
    return _Finding(TargetStanding.WAITING, (_approval(facts, state),))


def _approval(facts: TargetFacts, state: RequestState) -> PendingAction:
    request = state.request
    people = remaining_people(facts.owners, state.tally)
    more = f"{state.tally.missing_people} more approvals" if state.tally.missing_people > 1 else "an approval"
    if facts.head and request.digest in facts.head.withdrawals:
        more += " of a version that was withdrawn"
    return PendingAction(
        ActionKind.APPROVE,
        people,
        request.at,
        f"{request.requester.name} asks for {more}",
        f"stagegate approve {facts.dataset}@{digest_text(request.digest)} --to {facts.target}",
        request.digest,
        ("approval",),
        request.requester.name,
        request.id,
    )


def _reinstatement(facts: TargetFacts, state: RequestState) -> PendingAction:
    """What is left once people approved a version that was withdrawn: no schedule does it."""
    request, names = state.request, listed([answer.approver.name for answer in state.tally.counted])
    asker = (Person("whoever asked", request.requester.name),)
    reason = f"{names} approved a version that was withdrawn; check it, then promote it with --reinstate"
    command = _check_command(facts, request.digest)
    return PendingAction(ActionKind.CHECK, asker, state.tally.counted[-1].at, reason, command, request.digest)


def _repairs(facts: TargetFacts, record: DecisionRecord) -> Iterator[PendingAction]:
    """An action for each owner of checks that kept the gate from accepting."""
    decision, command = record.decision, report_command(record.id)
    if decision.declined:
        why = reason_of(decision)
        yield PendingAction(
            ActionKind.REPAIR, _asker(decision), decision.at, why, command, decision.digest, ("approval",)
        )
        return
    by_owner: dict[str, list[Evidence]] = {}
    worst = Outcome.FAIL if decision.outcome is DecisionOutcome.REFUSED else Outcome.INCONCLUSIVE
    for evidence in decision.checks:
        if (evidence.outcome, evidence.severity) == (worst, Severity.BLOCKING) and not evidence.awaiting:
            by_owner.setdefault(evidence.owner, []).append(evidence)
    if not by_owner:  # no check of the gate applied, say
        by_owner = {ANYBODY: []}
    for owner, failed in by_owner.items():
        checks = tuple(evidence.check for evidence in failed)
        reason = f"{failed[0].check}: {failed[0].summary}" if len(failed) == 1 else reason_of(decision)
        yield PendingAction(
            ActionKind.REPAIR, _owners(facts, (owner,)), decision.at, reason, command, decision.digest, checks
        )


def _reading(dataset: str, target: str, problem: str) -> PendingAction:
    command = f"stagegate history {dataset}{f'@{target}' if target else ''}"
    return PendingAction(ActionKind.READ, (), "", problem, command)


def unreadable_line(dataset: str, target: str, problem: str) -> InboxLine:
    """The line of a dataset or target whose records can't be read."""
    return InboxLine(
        dataset,
        target,
        TargetStanding.UNREADABLE,
        actions=(_reading(dataset, target, problem),),
        problem=problem,
    )


def _asker(decision: Decision) -> tuple[Person, ...]:
    return (Person("whoever asked", decision.requester),)


def _owners(facts: TargetFacts, roles: Iterable[str]) -> tuple[Person, ...]:
    return tuple(Person(role, ", ".join(addresses_of(facts.owners, role))) for role in roles)


def remaining_people(owners: Mapping[str, str], tally: AnswerTally) -> tuple[Person, ...]:
    """The groups that may answer a request, without those who have answered."""
    answered = {person_key(answer.approver.name) for answer in tally.counted}
    # Where as many are missing as must agree, an answer of anybody else completes nothing.
    only = tally.awaited if tally.missing_people == len(tally.awaited) else ()
    keys = {person_key(name) for name in only}
    people = []
    for group in tally.groups or (ANYBODY,):
        addresses = addresses_of(owners, group) or only
        left = [
            address
            for address in addresses
            if (key := person_key(address)) not in answered and (not keys or key in keys)
        ]
        people += [Person(group, ", ".join(left))] if left or not addresses else []
    return tuple(people)


def _check_command(facts: TargetFacts, digest: str) -> str:
    return f"stagegate check {facts.dataset}@{digest_text(digest)} --gate {facts.target}"


def policy_line(
    dataset: str,
    requests: Sequence[RequestState],
    owners: Mapping[str, str],
    *,
    is_proposed: bool,
    more: Sequence[PendingAction] = (),
) -> InboxLine | None:
    """The line of a dataset's policy; None when nothing is proposed, and nothing else waits because of it.

    Args:
        dataset: The dataset.
        requests: The requests to replace the policy in force, with their answers.
        owners: The `owners` of the policy in force.
        is_proposed: Whether the spec of `latest` proposes another one.
        more: What plugins know to wait.
    """
    actions = list(more)
    for state in requests:
        request = state.request
        if state.tally.declined or state.tally.missing_people <= 0:
            done = f"declined by {state.tally.refusal}" if state.tally.declined else "the required people agreed"
            asker = (Person("whoever asked", request.requester.name),)
            since = state.tally.counted[-1].at
            command = "stagegate policy adopt SPEC --reason TEXT"
            actions.append(PendingAction(ActionKind.AGREE, asker, since, done, command, request.digest))
            continue
        actions.append(
            PendingAction(
                ActionKind.AGREE,
                remaining_people(owners, state.tally),
                request.at,
                f"{request.requester.name} proposes another policy",
                f"stagegate policy approve {dataset} --policy {digest_text(request.digest)}",
                request.digest,
                excluded=request.requester.name,
            )
        )
    if actions:
        return InboxLine(dataset, "", TargetStanding.WAITING, actions=tuple(actions))
    return InboxLine(dataset, "", TargetStanding.PROPOSED) if is_proposed else None
