"""How a gate overrides the outcome of a check. Pure: no I/O and no clock.

    fail          + a valid waiver             → waived, until the waiver ends
    pass or warn  + too few of them in a row   → inconclusive
    an approval   + a waiver granted since     → inconclusive, until people answer again

All other answers stay as they are. A waiver does not help an inconclusive or missing answer: only a known failure can
be waived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from prefect_stagegate.clock import written_moment
from prefect_stagegate.gate.evidence_rules import parameters_digest
from prefect_stagegate.gate.registry import CHECKS
from prefect_stagegate.model import Decision, Evidence, Outcome, Ruling, Severity, Waiver, person_key
from prefect_stagegate.spec import Requirement

LONGEST_WAIVER = timedelta(days=30)
PASSES = (Outcome.PASS, Outcome.WARN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A version, its target and a moment: what a gate decides about."""

    dataset: str
    digest: str
    target: str
    requester: str
    """Who asks for the promotion."""
    environment: str
    """`sha256:<hex>` of the environment's fingerprint."""
    at: str
    """The moment of the decision, as `clock.stamp` writes it."""
    adopted: str = ""
    """`sha256:<hex>` of the adopted policy; empty for a trial."""
    after: int = 0
    """The number of the target's last move."""


def case_of(decision: Decision, at: str = "") -> Case:
    """The case that a decision was about, at its own moment or at another one."""
    return Case(
        dataset=decision.dataset,
        digest=decision.digest,
        target=decision.target,
        requester=decision.requester,
        environment=decision.environment,
        at=at or decision.at,
        adopted=decision.adopted,
        after=decision.after,
    )


def apply_overrides(
    answer: Evidence,
    requirement: Requirement,
    case: Case,
    *,
    waivers: Iterable[Waiver] = (),
    record: Sequence[Evidence] = (),
) -> Evidence:
    """The answer as the gate counts it, with the gate's severity.

    Void waivers are ignored. `record` is all recorded evidence about the version, the oldest first, the answer among
    it.
    """
    answer = replace(answer, severity=requirement.severity)
    if answer.outcome is Outcome.FAIL:
        valid = [
            waiver
            for waiver in waivers
            # Another contract finds other failures, which nobody has accepted.
            if waiver.contract in ("", answer.binding.get("contract")) and not why_void(waiver, requirement, case)
        ]
        # The one that lasts longest: each of them alone lets the failure pass.
        longest = max(valid, key=lambda waiver: waiver.until, default=None)
        if longest is None:
            return answer
        # No longer than the failure itself is known: afterwards it may be another one.
        ends = min(filter(None, (answer.expires, longest.until)))
        ruling = Ruling(answer.outcome, answer.expires, longest)
        return replace(answer, outcome=Outcome.WAIVED, expires=ends, ruling=ruling)
    if requirement.consecutive > 1 and answer.outcome in PASSES:
        passes = passes_in_a_row(answer, record)
        ruling = Ruling(answer.outcome, answer.expires, passes=passes, wanted=requirement.consecutive)
        enough = passes >= requirement.consecutive
        return replace(answer, outcome=answer.outcome if enough else Outcome.INCONCLUSIVE, ruling=ruling)
    return answer


def outcomes_shown(answers: Iterable[Evidence]) -> dict[str, str]:
    """What people are asked to approve: the outcome of each blocking check, or the id of the waiver that counts."""
    blocking = [answer for answer in answers if answer.severity is Severity.BLOCKING and answer.check != "approval"]
    waivers = {each.check: each.ruling.waiver.id for each in blocking if each.ruling and each.ruling.waiver}
    return {answer.check: answer.outcome.value for answer in blocking} | waivers


def waived_since(shown: Mapping[str, str], answers: Iterable[Evidence]) -> list[str]:
    """The checks that were waived after outcomes were shown; none where the record does not say what was shown."""
    waived = [answer for answer in answers if shown and answer.outcome is Outcome.WAIVED]
    return [check for check, waiver in outcomes_shown(waived).items() if shown.get(check) != waiver]


def require_seen_waivers(approval: Evidence, answers: Iterable[Evidence]) -> Evidence:
    """An approval as the gate counts it: people must have seen each failure that is waived."""
    unseen = waived_since(approval.measured.get("shown", {}), answers) if approval.outcome is Outcome.PASS else []
    if not unseen:
        return approval
    summary = f"{approval.summary}, before {', '.join(unseen)} failed and was waived"
    whom = tuple(approval.measured.get("whom", ()))
    return replace(approval, outcome=Outcome.INCONCLUSIVE, summary=summary, awaiting=whom)


def unruled(answer: Evidence) -> Evidence:
    """The answer as the check gave it, without the gate's override."""
    if answer.ruling is None:
        return answer
    return replace(answer, outcome=answer.ruling.found, expires=answer.ruling.expires, ruling=None)


def why_void(waiver: Waiver, requirement: Requirement, case: Case) -> str:
    """Why a waiver does not count for this requirement in this case; empty when it does."""
    check = CHECKS.get(requirement.check)
    if (waiver.dataset, waiver.digest, waiver.target) != (case.dataset, case.digest, case.target):
        return "it is for another version or target"
    if waiver.check != requirement.check:
        return "it is for another check"
    if check is None or not check.waivable:
        return f"{requirement.check} can't be waived"
    # A waiver accepts a failure under known limits; under other limits, the failure is another one.
    if waiver.parameters != parameters_digest(check, requirement):
        return "the parameters of the check changed since"
    # Compared when the waiver is granted and again here: the version may be requested later, by whoever waived.
    if person_key(waiver.approver.name) == person_key(case.requester):
        return f"{waiver.approver.name} requested the promotion"
    return why_out_of_time(waiver, case.at)


def why_out_of_time(waiver: Waiver, at: str) -> str:
    """Why a waiver does not hold at a moment; empty when it does. What it is for is not looked at."""
    try:
        length = written_moment(waiver.until) - written_moment(waiver.at)
    except ValueError:
        return "its times can't be read"
    # Whatever its time: by the clock of a node that is ahead, it would begin later.
    if waiver.revoked:
        return f"{waiver.revoked.who} revoked it at {waiver.revoked.at}"
    if not waiver.at <= at < waiver.until:
        return f"it holds from {waiver.at} until {waiver.until}"
    # The command refuses longer waivers, but somebody who writes to the catalog does not use the command.
    if length > LONGEST_WAIVER:
        return f"it is longer than {LONGEST_WAIVER.days} days"
    return ""


def passes_in_a_row(answer: Evidence, record: Sequence[Evidence]) -> int:
    """How many of the newest answers with the same check and binding passed, without another outcome between them."""
    passes = 0
    for earlier in reversed(record):
        if (earlier.check, earlier.binding) != (answer.check, answer.binding):
            continue  # it was asked about another state, so it neither counts nor ends the row
        if earlier.outcome not in PASSES:
            break
        passes += 1
    return max(passes, 1)  # the answer itself passed, even where the record lacks it


def missing_passes(answer: Evidence, requirement: Requirement, record: Sequence[Evidence]) -> str:
    """Why the check must run again: `2 of 3 passes in a row`. Empty when the gate has as many as it wants."""
    if requirement.consecutive <= 1 or answer.outcome not in PASSES:
        return ""
    passes = passes_in_a_row(answer, record)
    return "" if passes >= requirement.consecutive else f"{passes} of {requirement.consecutive} passes in a row"
