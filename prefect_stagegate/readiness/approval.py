"""The check whether enough people agreed to a step, who they are, and how that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, model_validator

from prefect_stagegate.canonical import digest_of
from prefect_stagegate.model import Approval as Reply
from prefect_stagegate.model import Finding, Outcome, Request, person_key
from prefect_stagegate.readiness.base import Answer, Parameters, Renewal, check
from prefect_stagegate.readiness.question import Question
from prefect_stagegate.readiness.signing import signers
from prefect_stagegate.readiness.wording import listed
from prefect_stagegate.spec.models import Owner
from prefect_stagegate.units import count_text, digest_text

ANYBODY = "anybody"
ANSWER_PAYLOAD = "application/vnd.prefect-stagegate.answer+json"
"""The payload type of signed answers in DSSE envelopes."""
PublicKey = Annotated[str, Field(pattern=r"^ed25519:[0-9a-f]{64}$")]


class Approval(Parameters):
    """One is GitHub's and Argo's habit; the requester never counts."""

    count: int = Field(default=1, ge=1, le=20, description="How many people must agree.", examples=[2])
    groups: tuple[Owner, ...] = Field(
        default=(),
        alias="from",
        description="Groups of `owners` that they belong to; by default anybody may agree.",
        examples=[["infra"]],
    )
    signed: bool = Field(
        default=False,
        description="Whether an answer needs a signature by the key that `keys` gives for the name.",
        examples=[True],
    )
    keys: dict[str, PublicKey] = Field(
        default={},
        description="The Ed25519 keys of people by name, as `stagegate key` prints them.",
        examples=[{"ines@example.org": "ed25519:" + "0f" * 32}],
    )

    @model_validator(mode="after")
    def _signable(self) -> Approval:
        if self.signed and not self.keys:
            raise ValueError("`signed` needs the `keys` of those who may answer")
        return self


@check("approval", owner="governance", binds=("target", "policy", "answers"), renewal=Renewal.SETTLED, waivable=False)
def approval(question: Question, parameters: Approval) -> Answer:
    """Whether enough people agreed to promote exactly this version under exactly this policy.

    The last answer of each person counts, if their name is an address of one of the groups under `from` and they are
    not the requester. `count` (1) who agree pass, one who declines fails, and until then it waits. With `signed`, only
    answers count that are signed with the person's key under `keys`.
    """
    may = _who_may(question, parameters)
    if may is not None and len(may) < parameters.count:
        return _nobody_can(question, parameters, may)
    replies = _last_replies(question, parameters)
    void = {name: why for name, reply in replies.items() if (why := _why_void(name, reply, question, parameters, may))}
    counted = {name: reply for name, reply in replies.items() if name not in void}
    ignored = tuple(Finding(str(replies[name].approver), why, "", Outcome.WARN) for name, why in void.items())
    measured = {
        "count": parameters.count,
        "answers": [_answer(reply, question, parameters) for reply in counted.values()],
    }
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
    named = {person_key(address) for group in parameters.groups for address in question.addresses(group)}
    keyed = {person_key(name) for name in parameters.keys}
    if parameters.signed:
        named = named & keyed if parameters.groups else keyed
    elif not parameters.groups:
        return None
    return frozenset(named - {person_key(question.asker.name)})


def _last_replies(question: Question, parameters: Approval) -> dict[str, Reply]:
    """The last answer of each person but the requester, to the request for this version under this policy."""
    request = question.request
    if request is None or (request.digest, request.target, request.policy) != (
        question.digest,
        question.target,
        question.gate.policy,
    ):
        return {}
    replies = [reply for reply in question.approvals if reply.request == request.id]
    if parameters.signed:
        # What is signed says when; so nobody can put somebody's earlier answer behind their last one.
        proved = [reply for reply in replies if _proved(reply, request, parameters)]
        replies = [reply for reply in replies if reply not in proved] + sorted(proved, key=lambda reply: reply.at)
    last = {person_key(reply.approver.name): reply for reply in replies}
    last.pop(person_key(question.asker.name), None)
    return last


def signed_answer(request: Request, reply: Reply) -> dict[str, Any]:
    """What somebody signs who answers: the whole request by its digest, and their answer to it; JSON values."""
    return {
        "request": digest_of(asdict(request)),
        "dataset": request.dataset,
        "digest": request.digest,
        "target": request.target,
        "approver": reply.approver.name,
        "approved": reply.approved,
        "reason": reply.reason,
        "at": reply.at,
    }


def _proved(reply: Reply, request: Request, parameters: Approval) -> bool:
    """Whether an answer is signed with the key that the policy gives for the name."""
    person = person_key(reply.approver.name)
    keys = [key for name, key in parameters.keys.items() if person_key(name) == person]
    if not keys or not reply.envelope:
        return False
    return bool(signers(reply.envelope, signed_answer(request, reply), ANSWER_PAYLOAD, keys))


def _why_void(name: str, reply: Reply, question: Question, parameters: Approval, may: frozenset[str] | None) -> str:
    """Why an answer does not count; empty when it does."""
    if may is not None and name not in may:
        of = f"not an address of {listed(parameters.groups)}" if parameters.groups else "the policy has no key for it"
        return f"the answer does not count: {of}"
    if parameters.signed and question.request and not _proved(reply, question.request, parameters):
        return "the answer does not count: it is not signed with the key that the policy has for this name"
    return ""


def _answer(reply: Reply, question: Question, parameters: Approval) -> Mapping[str, object]:
    proved = question.request is not None and _proved(reply, question.request, parameters)
    known_by = "signature" if proved else "declared" if reply.approver.source == "signature" else reply.approver.source
    return {"name": reply.approver.name, "known_by": known_by, "approved": reply.approved, "at": reply.at}


def _nobody_can(question: Question, parameters: Approval, may: frozenset[str]) -> Answer:
    groups = listed(parameters.groups or ["those with keys"])
    problem = f"{count_text(parameters.count, 'approval')} wanted from {groups}, where {len(may)} may answer"
    where = f"owners.{parameters.groups[0]}" if parameters.groups else "the keys of approval"
    also = " Each needs a key under approval's `keys`, too." if parameters.signed and parameters.groups else ""
    fix = f"Name more people under {where} in the spec: {question.asker.name} asked for it.{also}"
    return Answer(Outcome.FAIL, problem, (Finding("owners", problem, fix),), {"count": parameters.count})


def _waiting(
    question: Question, parameters: Approval, have: int, ignored: tuple[Finding, ...], measured: Mapping[str, object]
) -> Answer:
    whom = parameters.groups or (ANYBODY,)
    summary = f"{have} of {count_text(parameters.count, 'approval')} by {listed(whom)}"
    key = " --key KEY.pem" if parameters.signed else ""
    fix = f"stagegate approve {question.address} --to {question.target}{key}"  # others may wait for the same target
    finding = Finding("approval", f"{digest_text(question.digest)} waits for an answer", fix, Outcome.INCONCLUSIVE)
    return Answer(Outcome.INCONCLUSIVE, summary, (finding, *ignored), measured, awaiting=whom)
