"""Checks on the step itself: whether there is a way back, and whether somebody else agreed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pydantic import Field

from prefect_stagegate.clock import moment
from prefect_stagegate.model import Approval as Reply
from prefect_stagegate.model import Finding, Outcome, person_key
from prefect_stagegate.readiness.base import Answer, Parameters, Renewal, check
from prefect_stagegate.readiness.question import Question
from prefect_stagegate.readiness.wording import age_text, count_text, listed
from prefect_stagegate.spec import Duration
from prefect_stagegate.spec.models import Owner
from prefect_stagegate.units import digest_text

ANYBODY = "anybody"


class Rollback(Parameters):
    """Beyond 30 days few remember that a version works."""

    warn: Duration = Field(
        default=timedelta(days=30),
        description="The age of the version that one would return to, above which it warns.",
        examples=["30d"],
    )


@check("rollback", owner="infra", ttl=timedelta(hours=1), binds=("target", "accepted"), renewal=Renewal.CHEAP)
def rollback(question: Question, parameters: Rollback) -> Answer:
    """Whether there is a way back: the catalog still has the version that the target would return to.

    Accepted at most `warn` (30d) ago passes, longer ago warns, gone from the catalog fails. Not applicable at the
    first promotion.
    """
    accepted = question.accepted
    if accepted is None:
        return Answer(Outcome.NOT_APPLICABLE, f"first: nothing to return to in {question.target}")
    age = question.now - moment(accepted.at)
    measured = {"version": accepted.digest, "accepted_at": accepted.at, "age_seconds": age.total_seconds()}
    name = digest_text(accepted.digest)
    if not question.resolvable(accepted.digest):
        fix = f"stagegate history {question.dataset}@{question.target}"
        finding = Finding(name, "the catalog has lost its manifest: restore it from a backup", fix)
        return Answer(Outcome.FAIL, f"{name} can't be returned to", (finding,), measured)
    summary = f"{name}, accepted {age_text(age)} ago"
    if age <= parameters.warn:
        return Answer(Outcome.PASS, summary, measured=measured)
    fix = f"Rehearse it: stagegate stage {question.dataset}@{accepted.digest}"
    finding = Finding(name, f"it was accepted {age_text(age)} ago", fix, Outcome.WARN)
    return Answer(Outcome.WARN, summary, (finding,), measured)


class Approval(Parameters):
    """One is GitHub's and Argo's habit; the requester never counts."""

    count: int = Field(default=1, ge=1, le=20, description="How many people must agree.", examples=[2])
    groups: tuple[Owner, ...] = Field(
        default=(),
        alias="from",
        description="Groups of `owners` that they belong to; by default anybody may agree.",
        examples=[["infra"]],
    )


@check("approval", owner="governance", binds=("target", "policy", "answers"), renewal=Renewal.SETTLED)
def approval(question: Question, parameters: Approval) -> Answer:
    """Whether enough people agreed to promote exactly this version under exactly this policy.

    The last answer of each person counts, if their name is an address of one of the groups under `from` and they are
    not the requester. `count` (1) who agree pass, one who declines fails, and until then it waits.
    """
    may = _who_may(question, parameters)
    if may is not None and len(may) < parameters.count:
        return _nobody_can(question, parameters, may)
    replies = _last_replies(question)
    counted = {name: reply for name, reply in replies.items() if may is None or name in may}
    ignored = tuple(_ignored(reply, parameters) for name, reply in replies.items() if name not in counted)
    measured = {"count": parameters.count, "answers": [_answer(reply) for reply in counted.values()]}
    declined = [reply for reply in counted.values() if not reply.approved]
    if declined:
        findings = tuple(Finding(str(reply.approver), f"declined: {reply.reason}") for reply in declined)
        names = listed([reply.approver.name for reply in declined])
        return Answer(Outcome.FAIL, f"declined by {names}", findings + ignored, measured)
    if len(counted) >= parameters.count:
        names = listed([reply.approver.name for reply in counted.values()])
        return Answer(Outcome.PASS, f"approved by {names}", ignored, measured)
    return _waiting(question, parameters, len(counted), ignored, measured)


def _who_may(question: Question, parameters: Approval) -> frozenset[str] | None:
    """The names that may answer; None when anybody but the requester may."""
    if not parameters.groups:
        return None
    named = {person_key(address) for group in parameters.groups for address in question.addresses(group)}
    return frozenset(named - {_requester(question)})


def _last_replies(question: Question) -> dict[str, Reply]:
    """The last answer of each person but the requester, to the request for this version under this policy."""
    request = question.request
    if request is None or (request.digest, request.target, request.policy) != (
        question.digest,
        question.target,
        question.gate.policy,
    ):
        return {}
    replies = {person_key(reply.approver.name): reply for reply in question.approvals if reply.request == request.id}
    replies.pop(_requester(question), None)
    return replies


def _requester(question: Question) -> str:
    return person_key((question.request.requester if question.request else question.requester).name)


def _answer(reply: Reply) -> Mapping[str, object]:
    return {"name": reply.approver.name, "known_by": reply.approver.source, "approved": reply.approved, "at": reply.at}


def _ignored(reply: Reply, parameters: Approval) -> Finding:
    problem = f"the answer does not count: not an address of {listed(parameters.groups)}"
    return Finding(str(reply.approver), problem, "", Outcome.WARN)


def _nobody_can(question: Question, parameters: Approval, may: frozenset[str]) -> Answer:
    groups = listed(parameters.groups)
    problem = f"{count_text(parameters.count, 'approval')} wanted from {groups}, where {len(may)} may answer"
    fix = f"Name more people under owners.{parameters.groups[0]} in the spec: {_requester(question)} asked for it."
    return Answer(Outcome.FAIL, problem, (Finding("owners", problem, fix),), {"count": parameters.count})


def _waiting(
    question: Question, parameters: Approval, have: int, ignored: tuple[Finding, ...], measured: Mapping[str, object]
) -> Answer:
    whom = parameters.groups or (ANYBODY,)
    summary = f"{have} of {count_text(parameters.count, 'approval')} by {listed(whom)}"
    fix = f"stagegate approve {question.address} --to {question.target}"  # others may wait for the same target
    finding = Finding("approval", f"{digest_text(question.digest)} waits for an answer", fix, Outcome.INCONCLUSIVE)
    return Answer(Outcome.INCONCLUSIVE, summary, (finding, *ignored), measured, awaiting=whom)
