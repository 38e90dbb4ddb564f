"""Checks on the step itself: whether it has stood long enough, whether there is a way back, whether somebody agreed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pydantic import Field

from prefect_stagegate.clock import moment, stamp
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


class Soak(Parameters):
    """A day is long enough for each daily job to have run on it once. The idea is Kargo's soak time."""

    period: Duration = Field(
        default=timedelta(hours=24),
        alias="for",
        description="How long the version must have stood at the gate below, without a break.",
        examples=["24h"],
    )


@check("soak", owner="infra", binds=("target", "below"), renewal=Renewal.CHEAP)
def soak(question: Question, parameters: Soak) -> Answer:
    """Whether the version has stood at the gate below for long enough: `for` (24h) passes, a shorter time fails.

    Counted from when the ref of the gate below was last moved to it until it moved on. Not applicable to a gate that
    extends none.
    """
    extends, below = question.gate.extends, question.below
    if extends is None:
        return Answer(Outcome.NOT_APPLICABLE, "first: this gate extends none")
    if below is None or below.digest != question.digest:
        finding = Finding(extends, "it does not stand there", f"stagegate promote {question.address} --to {extends}")
        return Answer(Outcome.FAIL, f"it does not stand at {extends}", (finding,))
    since, until = moment(below.at), moment(below.until) if below.until else question.now
    stood = until - since
    measured = {"since": below.at, "until": below.until, "stood_seconds": stood.total_seconds()}
    summary = f"stood at {extends} for {age_text(stood)}"
    if stood >= parameters.period:
        return Answer(Outcome.PASS, summary, measured=measured)
    wanted = age_text(parameters.period)
    if below.until:
        fix = f"Let it stand there again: stagegate promote {question.address} --to {extends}"
        finding = Finding(extends, f"the ref moved on after {age_text(stood)}, and {wanted} are wanted", fix)
        return Answer(Outcome.FAIL, summary, (finding,), measured)
    ends = since + parameters.period
    fix = f"Wait until {stamp(ends)[:16]}Z, then check again."
    finding = Finding(extends, f"it has stood there for {age_text(stood)}, and {wanted} are wanted", fix)
    return Answer(Outcome.FAIL, summary, (finding,), measured, until=ends)


class Approval(Parameters):
    """One is GitHub's and Argo's habit; the requester never counts."""

    count: int = Field(default=1, ge=1, le=20, description="How many people must agree.", examples=[2])
    groups: tuple[Owner, ...] = Field(
        default=(),
        alias="from",
        description="Groups of `owners` that they belong to; by default anybody may agree.",
        examples=[["infra"]],
    )


@check("approval", owner="governance", binds=("target", "policy", "answers"), renewal=Renewal.SETTLED, waivable=False)
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
    return frozenset(named - {person_key(question.asker.name)})


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
    replies.pop(person_key(question.asker.name), None)
    return replies


def _answer(reply: Reply) -> Mapping[str, object]:
    return {"name": reply.approver.name, "known_by": reply.approver.source, "approved": reply.approved, "at": reply.at}


def _ignored(reply: Reply, parameters: Approval) -> Finding:
    problem = f"the answer does not count: not an address of {listed(parameters.groups)}"
    return Finding(str(reply.approver), problem, "", Outcome.WARN)


def _nobody_can(question: Question, parameters: Approval, may: frozenset[str]) -> Answer:
    groups = listed(parameters.groups)
    problem = f"{count_text(parameters.count, 'approval')} wanted from {groups}, where {len(may)} may answer"
    fix = f"Name more people under owners.{parameters.groups[0]} in the spec: {question.asker.name} asked for it."
    return Answer(Outcome.FAIL, problem, (Finding("owners", problem, fix),), {"count": parameters.count})


def _waiting(
    question: Question, parameters: Approval, have: int, ignored: tuple[Finding, ...], measured: Mapping[str, object]
) -> Answer:
    whom = parameters.groups or (ANYBODY,)
    summary = f"{have} of {count_text(parameters.count, 'approval')} by {listed(whom)}"
    fix = f"stagegate approve {question.address} --to {question.target}"  # others may wait for the same target
    finding = Finding("approval", f"{digest_text(question.digest)} waits for an answer", fix, Outcome.INCONCLUSIVE)
    return Answer(Outcome.INCONCLUSIVE, summary, (finding, *ignored), measured, awaiting=whom)
